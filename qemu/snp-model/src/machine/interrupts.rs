//! Interrupts of the guest: those of devices, which arrive at the machine's own APIC (MSI), those that vCPUs send each
//! other, and the timer.

use super::{cpus, machine::Machine, stop::violation, trap, vcpu::Vcpu, vmcb::control};
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use snp_model::{
    apic::{Effect, Message, Receivers, Refused},
    bundle::MAX_VCPUS,
    launch::offset,
};

/// Vectors that arrived at each CPU's APIC; `device_common` of boot.s sets the bits.
#[unsafe(no_mangle)]
static ARRIVED: [[AtomicU32; 8]; MAX_VCPUS as usize] =
    [const { [const { AtomicU32::new(0) }; 8] }; MAX_VCPUS as usize];

/// Whether something has arrived at this CPU.
pub fn have_arrived(cpu: usize) -> bool {
    ARRIVED[cpu].iter().any(|word| word.load(SeqCst) != 0)
}

const VIRTUAL_INTERRUPT: u32 = 1 << 8;
const IGNORE_PRIORITY: u32 = 1 << 20;
const VECTOR: usize = control::INTERRUPTS + 4;

impl Machine {
    /// Takes what arrived at this CPU over into the vCPU's APIC.
    pub fn collect_interrupts(&mut self, vcpu: usize) {
        for (word, arrived) in ARRIVED[vcpu].iter().enumerate() {
            let mut bits = arrived.swap(0, SeqCst);
            while bits != 0 {
                let vector = (word * 32) as u8 + bits.trailing_zeros() as u8;
                bits &= bits - 1;
                match usize::from(vector) {
                    trap::TIMER_VECTOR => self.apics[vcpu].timer_ended(),
                    _ => self.apics[vcpu].accept(vector),
                }
            }
        }
    }

    /// Whether the guest would take an interrupt now.
    pub fn interrupt_waits(&self, vcpu: &Vcpu) -> bool {
        vcpu.takes_interrupts() && self.apics[vcpu.number].next().is_some()
    }

    /// After an exit: whether the interrupt that was offered is delivered.
    pub fn note_delivery(&mut self, vcpu: &mut Vcpu) {
        let state: u32 = vcpu.vmcb.get(control::INTERRUPTS);
        if let Some(vector) = vcpu.offered.take().filter(|_| state & VIRTUAL_INTERRUPT == 0) {
            self.apics[vcpu.number].taken(vector);
        }
    }

    /// Before VMRUN: offers the next interrupt; the processor takes it when RFLAGS.IF allows (APM §15.21.4).
    pub fn offer_interrupt(&mut self, vcpu: &mut Vcpu) {
        let state: u32 = vcpu.vmcb.get(control::INTERRUPTS);
        let state = state & !(VIRTUAL_INTERRUPT | IGNORE_PRIORITY);
        vcpu.offered = self.apics[vcpu.number].next();
        let state = match vcpu.offered {
            Some(vector) => {
                vcpu.vmcb.set(VECTOR, vector);
                state | VIRTUAL_INTERRUPT | IGNORE_PRIORITY
            }
            None => state,
        };
        vcpu.vmcb.set(control::INTERRUPTS, state);
    }

    /// RDMSR of an APIC register.
    pub fn read_apic(&self, vcpu: &Vcpu, msr: u32) -> Result<u64, Refused> {
        self.apics[vcpu.number].read(msr, trap::timer_count)
    }

    /// WRMSR of an APIC register.
    pub fn write_apic(&mut self, vcpu: &Vcpu, msr: u32, value: u64) -> Result<(), Refused> {
        match self.apics[vcpu.number].write(msr, value)? {
            Effect::None => {}
            Effect::Timer { count, divide, periodic } => trap::set_timer(count, divide, periodic),
            Effect::Send(command) => {
                for to in 0..self.apics.len() {
                    let meant = match command.to {
                        Receivers::Id(id) => id as usize == to,
                        Receivers::Oneself => to == vcpu.number,
                        Receivers::All => true,
                        Receivers::Others => to != vcpu.number,
                    };
                    if meant {
                        self.deliver(vcpu, to, command.message);
                    }
                }
            }
        }
        Ok(())
    }

    fn deliver(&mut self, from: &Vcpu, to: usize, message: Message) {
        match message {
            Message::Fixed(vector) => {
                self.apics[to].accept(vector);
                if to != from.number {
                    cpus::call(to);
                }
            }
            Message::Init => self.init_vcpu(to),
            Message::Other => violation!(
                "an interrupt command of vCPU {} for vCPU {to} that the model does not deliver",
                from.number
            ),
        }
    }
}

impl Vcpu {
    /// Whether RFLAGS.IF is set.
    pub fn takes_interrupts(&self) -> bool {
        const INTERRUPT: u64 = 1 << 9;
        self.vmcb.state::<u64>(offset::RFLAGS) & INTERRUPT != 0
    }
}
