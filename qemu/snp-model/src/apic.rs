//! The local APIC that a hypervisor emulates for a guest without Restricted Injection: in x2APIC mode, as MSRs (APM §16.11),
//! because an SNP guest's accesses to the memory-mapped one would each be an MMIO event.

/// A local APIC.
#[derive(Clone, Debug)]
pub struct Apic {
    id: u32,
    base: u64,
    spurious: u32,
    task_priority: u8,
    command: u64,
    local_vectors: [u32; 6],
    timer_divide: u32,
    timer_count: u32,
    requested: Vectors,
    in_service: Vectors,
}

/// A set of vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Vectors([u32; 8]);

impl Vectors {
    fn set(&mut self, vector: u8, on: bool) {
        let (word, bit) = (&mut self.0[usize::from(vector / 32)], 1 << (vector % 32));
        *word = if on { *word | bit } else { *word & !bit };
    }

    /// The highest vector.
    fn highest(self) -> Option<u8> {
        let word = self.0.iter().rposition(|word| *word != 0)?;
        Some((word * 32) as u8 + self.0[word].ilog2() as u8)
    }
}

/// What a write asks of the rest of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// An interrupt command.
    Send(Command),
    /// The timer is to run: count, divide configuration, and whether again and again.
    Timer {
        /// Initial count; 0 stops it.
        count: u32,
        /// Divide configuration register.
        divide: u32,
        /// Whether it starts again at the end.
        periodic: bool,
    },
}

/// An interrupt command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// To whom.
    pub to: Receivers,
    /// What.
    pub message: Message,
}

/// Who gets an interrupt command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receivers {
    /// The one with this id.
    Id(u32),
    /// The sender.
    Oneself,
    /// All.
    All,
    /// All but the sender.
    Others,
}

/// What an interrupt command delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A vector.
    Fixed(u8),
    /// INIT.
    Init,
    /// Anything else, which the model does not deliver.
    Other,
}

/// There is no such register, or no such value: `#GP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// The APIC base MSR.
pub const BASE: u32 = 0x1B;
/// The MSRs of x2APIC mode.
pub const REGISTERS: core::ops::RangeInclusive<u32> = 0x800..=0x8FF;

const X2APIC: u64 = 1 << 10;
const ENABLED: u64 = 1 << 11;
const SOFTWARE_ENABLED: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;

impl Apic {
    /// The APIC of a vCPU after reset; that of the first one says that it is.
    pub const fn new(id: u32) -> Self {
        let first = if id == 0 { 1 << 8 } else { 0 };
        Self {
            id,
            base: 0xFEE0_0000 | ENABLED | first,
            spurious: 0xFF,
            task_priority: 0,
            command: 0,
            local_vectors: [MASKED; 6],
            timer_divide: 0,
            timer_count: 0,
            requested: Vectors([0; 8]),
            in_service: Vectors([0; 8]),
        }
    }

    /// Reads a register; `timer` is what the timer counts down at the moment.
    pub fn read(&self, msr: u32, timer: impl FnOnce() -> u32) -> Result<u64, Refused> {
        if msr == BASE {
            return Ok(self.base);
        }
        self.need_x2apic()?;
        Ok(match msr {
            0x802 => self.id.into(),
            // Version 10h with six local vectors, as QEMU's.
            0x803 => 0x5_0010,
            0x808 => self.task_priority.into(),
            0x80A => self.priority().into(),
            0x80D => (self.id >> 4 << 16 | 1 << (self.id & 15)).into(),
            0x80F => self.spurious.into(),
            0x810..=0x817 => self.in_service.0[(msr - 0x810) as usize].into(),
            0x818..=0x81F | 0x828 => 0,
            0x820..=0x827 => self.requested.0[(msr - 0x820) as usize].into(),
            0x830 => self.command,
            0x832..=0x837 => self.local_vectors[(msr - 0x832) as usize].into(),
            0x838 => self.timer_count.into(),
            0x839 => timer().into(),
            0x83E => self.timer_divide.into(),
            _ => return Err(Refused),
        })
    }

    /// Writes a register.
    pub fn write(&mut self, msr: u32, value: u64) -> Result<Effect, Refused> {
        if msr == BASE {
            // The address and whose it is stay; turning x2APIC mode off takes a reset (APM §16.9).
            if value & ENABLED == 0
                || (self.base & !value) & X2APIC != 0
                || (value ^ self.base) & !X2APIC != 0
            {
                return Err(Refused);
            }
            self.base = value;
            return Ok(Effect::None);
        }
        self.need_x2apic()?;
        let low = value as u32;
        if msr != 0x830 && value >> 32 != 0 {
            return Err(Refused);
        }
        match msr {
            0x808 if low < 256 => self.task_priority = low as u8,
            0x80B if low == 0 => {
                if let Some(vector) = self.in_service.highest() {
                    self.in_service.set(vector, false);
                }
            }
            0x80F => self.spurious = low & 0x3FF,
            0x828 if low == 0 => {}
            0x830 => {
                self.command = value;
                return Ok(Effect::Send(command(value)));
            }
            0x832..=0x837 => {
                self.local_vectors[(msr - 0x832) as usize] = low;
                if msr == 0x832 {
                    return Ok(self.timer());
                }
            }
            0x838 => {
                self.timer_count = low;
                return Ok(self.timer());
            }
            0x83E => {
                self.timer_divide = low & 0b1011;
                return Ok(self.timer());
            }
            0x83F if low < 256 => {
                return Ok(Effect::Send(Command {
                    to: Receivers::Oneself,
                    message: Message::Fixed(low as u8),
                }));
            }
            _ => return Err(Refused),
        }
        Ok(Effect::None)
    }

    const fn need_x2apic(&self) -> Result<(), Refused> {
        if self.base & X2APIC != 0 { Ok(()) } else { Err(Refused) }
    }

    fn timer(&self) -> Effect {
        const PERIODIC: u32 = 1 << 17;
        let entry = self.local_vectors[0];
        let count = if entry & MASKED == 0 { self.timer_count } else { 0 };
        Effect::Timer { count, divide: self.timer_divide, periodic: entry & PERIODIC != 0 }
    }

    /// The timer's count has ended.
    pub fn timer_ended(&mut self) {
        let entry = self.local_vectors[0];
        if entry & MASKED == 0 {
            self.accept(entry as u8);
        }
    }

    /// An interrupt arrives. Vectors below 16 do not exist (APM §16.6.1).
    pub fn accept(&mut self, vector: u8) {
        if vector >= 16 && self.base & ENABLED != 0 && self.spurious & SOFTWARE_ENABLED != 0 {
            self.requested.set(vector, true);
        }
    }

    /// Processor priority: the task's, or the class of what is in service.
    fn priority(&self) -> u8 {
        let in_service = self.in_service.highest().unwrap_or(0) & 0xF0;
        if self.task_priority & 0xF0 >= in_service { self.task_priority } else { in_service }
    }

    /// The vector that the processor would take now.
    pub fn next(&self) -> Option<u8> {
        self.requested.highest().filter(|vector| vector >> 4 > self.priority() >> 4)
    }

    /// The processor has taken a vector.
    pub fn taken(&mut self, vector: u8) {
        self.requested.set(vector, false);
        self.in_service.set(vector, true);
    }
}

/// Reads the interrupt command register of x2APIC mode (APM §16.13), physical destinations.
fn command(value: u64) -> Command {
    const LOGICAL: u64 = 1 << 11;
    let to = match value >> 18 & 3 {
        0 if value >> 32 == 0xFFFF_FFFF => Receivers::All,
        0 => Receivers::Id((value >> 32) as u32),
        1 => Receivers::Oneself,
        2 => Receivers::All,
        _ => Receivers::Others,
    };
    let message = match value >> 8 & 7 {
        0 if value & LOGICAL == 0 || value >> 18 & 3 != 0 => Message::Fixed(value as u8),
        5 => Message::Init,
        _ => Message::Other,
    };
    Command { to, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Apic {
        let mut apic = Apic::new(3);
        assert_eq!(apic.read(0x802, || 0), Err(Refused), "not in x2APIC mode yet");
        apic.write(BASE, 0xFEE0_0C00).unwrap();
        apic.write(0x80F, 0x1FF).unwrap();
        apic
    }

    #[test]
    fn the_highest_class_comes_first_and_holds_back_the_others() {
        let mut apic = ready();
        for vector in [0x31, 0x61, 0x65, 5] {
            apic.accept(vector);
        }
        assert_eq!(apic.next(), Some(0x65));
        apic.taken(0x65);
        assert_eq!(apic.next(), None, "61h is of the same class");
        apic.write(0x80B, 0).unwrap();
        assert_eq!(apic.next(), Some(0x61));
        apic.write(0x808, 0x60).unwrap();
        assert_eq!(apic.next(), None);
        apic.write(0x808, 0).unwrap();
        apic.taken(0x61);
        apic.write(0x80B, 0).unwrap();
        assert_eq!((apic.next(), apic.read(0x821, || 0)), (Some(0x31), Ok(1 << 17)));
    }

    #[test]
    fn commands_and_the_timer_leave_as_effects() {
        let mut apic = ready();
        let send = |to, message| Ok(Effect::Send(Command { to, message }));
        assert_eq!(apic.write(0x830, 2 << 32 | 0x61), send(Receivers::Id(2), Message::Fixed(0x61)));
        assert_eq!(apic.write(0x830, 3 << 18 | 0x500), send(Receivers::Others, Message::Init));
        assert_eq!(apic.write(0x83F, 0x70), send(Receivers::Oneself, Message::Fixed(0x70)));
        apic.write(0x838, 1000).unwrap();
        let timer = Effect::Timer { count: 1000, divide: 0, periodic: true };
        assert_eq!(apic.write(0x832, 1 << 17 | 0x40), Ok(timer));
        apic.timer_ended();
        assert_eq!(apic.next(), Some(0x40));
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        let mut apic = ready();
        for (msr, value) in
            [(0x80B, 1), (0x802, 0), (0x8FF, 0), (0x80F, 1 << 32), (BASE, 0xFEE0_0800), (BASE, 0)]
        {
            assert_eq!(apic.write(msr, value), Err(Refused), "{msr:#x}");
        }
        let mut off = Apic::new(0);
        off.write(BASE, 0xFEE0_0D00).unwrap();
        off.accept(0x50);
        assert_eq!(off.next(), None, "software has not enabled it");
    }
}
