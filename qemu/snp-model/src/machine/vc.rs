//! Delivery of `#VC`, the exception that an SEV-ES guest gets in place of an exit (APM §15.35.5).
//!
//! TCG's event injection drops the error code of vector 29, so the model does what the processor's microcode
//! would: reads the gate, chooses the stack, pushes the frame, loads CS:RIP. A frame that cannot be pushed is
//! what it is on hardware: a double fault in a guest that handles none, and then a shutdown.

use super::{
    machine::Machine,
    stop::violation,
    vcpu::{Vcpu, register},
    vmcb::{Segment, control},
    walk::WalkError,
};
use snp_model::{counts::Kind, launch::offset};

const VECTOR: u64 = 29;

mod flag {
    pub const TRAP: u64 = 1 << 8;
    pub const INTERRUPT: u64 = 1 << 9;
    pub const NESTED_TASK: u64 = 1 << 14;
    pub const RESUME: u64 = 1 << 16;
    pub const VIRTUAL_8086: u64 = 1 << 17;
}

/// Why the exception could not be delivered.
enum Undeliverable {
    /// The gate or the frame is in memory that cannot be reached.
    Walk(WalkError),
    /// The table is too short, or the gate is not a present interrupt or trap gate.
    Gate,
    /// The gate's code segment is not fit for it.
    CodeSegment,
}

impl From<WalkError> for Undeliverable {
    fn from(error: WalkError) -> Self {
        Self::Walk(error)
    }
}

impl Machine {
    /// Delivers `#VC` with `error`, an exit code.
    pub fn deliver_vc(&mut self, vcpu: &mut Vcpu, error: u64) {
        const VALID: u64 = 1 << 31;
        self.counts.add(Kind::Vc);
        let rip = vcpu.vmcb.rip();
        let interrupted: u64 = vcpu.vmcb.get(control::EXIT_INTERRUPT_INFO);
        if interrupted & VALID != 0 {
            violation!(
                "shutdown: #VC {error:#x} at {rip:#x} while vector {} was being delivered",
                interrupted & 0xFF
            );
        }
        let delivered = match (vcpu.is_protected(), vcpu.is_long()) {
            (false, _) => self.deliver_real(vcpu),
            (true, false) => self.deliver_32(vcpu, error),
            (true, true) => self.deliver_64(vcpu, error),
        };
        match delivered {
            Ok(()) => {}
            Err(Undeliverable::Walk(why)) => {
                violation!("shutdown: #VC {error:#x} at {rip:#x} not delivered: {why}")
            }
            Err(Undeliverable::Gate) => {
                violation!("shutdown: #VC {error:#x} at {rip:#x}, but there is no handler for it")
            }
            Err(Undeliverable::CodeSegment) => {
                violation!(
                    "shutdown: #VC {error:#x} at {rip:#x}: its gate names a code segment that is not fit for it"
                )
            }
        }
    }

    /// Long mode (APM §8.9).
    fn deliver_64(&self, vcpu: &mut Vcpu, error: u64) -> Result<(), Undeliverable> {
        let vmcb = vcpu.vmcb;
        let table = vmcb.segment(offset::IDTR);
        let at = VECTOR * 16;
        if at + 15 > table.limit.into() {
            return Err(Undeliverable::Gate);
        }
        let low = self.read_u64(vcpu, table.base.wrapping_add(at))?;
        let high = self.read_u64(vcpu, table.base.wrapping_add(at + 8))?;
        let gate = Gate::parse(low)?;
        let code = self.code_segment(vcpu, gate.selector)?;
        if code.attributes & Segment::LONG == 0 {
            return Err(Undeliverable::CodeSegment);
        }

        let stack_table = (low >> 32 & 7) as u8;
        let outer = vcpu.privilege() != 0;
        let interrupted = vmcb.segment(offset::SS);
        let old_stack = vcpu.register(register::RSP);
        vcpu.save_task_register();
        let tss = vmcb.segment(offset::TR).base;
        let stack = match stack_table {
            0 if outer => self.read_u64(vcpu, tss.wrapping_add(4))?,
            0 => old_stack,
            // APM figure 12-8: IST1 is at offset 24h.
            ist => self.read_u64(vcpu, tss.wrapping_add(0x24 + u64::from(ist - 1) * 8))?,
        } & !15;

        let flags: u64 = vmcb.state(offset::RFLAGS);
        let cs = u64::from(vmcb.segment(offset::CS).selector);
        let frame = [error, vmcb.rip(), cs, flags, old_stack, interrupted.selector.into()];
        let mut bytes = [0; 48];
        for (slot, value) in bytes.chunks_exact_mut(8).zip(frame) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        let stack = stack.wrapping_sub(bytes.len() as u64);
        self.write(vcpu, stack, &bytes)?;

        if outer {
            // APM §8.9.3: SS is a null selector when the privilege level changes.
            vmcb.set_segment(
                offset::SS,
                Segment { selector: 0, attributes: 0xC93, limit: u32::MAX, base: 0 },
            );
            vmcb.set_state(offset::CPL, 0u8);
        }
        vcpu.set_register(register::RSP, stack);
        vmcb.set_segment(offset::CS, code);
        vmcb.set_state(offset::RIP, gate.offset | high << 32);
        vmcb.set_state(offset::RFLAGS, gate.flags(flags));
        Ok(())
    }

    /// Protected mode without paging (APM §8.7); only to the same privilege level.
    fn deliver_32(&self, vcpu: &mut Vcpu, error: u64) -> Result<(), Undeliverable> {
        let vmcb = vcpu.vmcb;
        let table = vmcb.segment(offset::IDTR);
        let at = VECTOR * 8;
        if at + 7 > table.limit.into() {
            return Err(Undeliverable::Gate);
        }
        let gate = Gate::parse(self.read_u64(vcpu, table.base.wrapping_add(at))?)?;
        let code = self.code_segment(vcpu, gate.selector)?;
        if vcpu.privilege() != 0 {
            return Err(Undeliverable::CodeSegment);
        }
        let flags: u64 = vmcb.state(offset::RFLAGS);
        let cs = u64::from(vmcb.segment(offset::CS).selector);
        let mut bytes = [0; 16];
        for (slot, value) in bytes.chunks_exact_mut(4).zip([error, vmcb.rip(), cs, flags]) {
            slot.copy_from_slice(&(value as u32).to_le_bytes());
        }
        let stack = vcpu.register(register::RSP).wrapping_sub(bytes.len() as u64) & 0xFFFF_FFFF;
        self.write(vcpu, (vmcb.segment(offset::SS).base + stack) & 0xFFFF_FFFF, &bytes)?;
        vcpu.set_register(register::RSP, stack);
        vmcb.set_segment(offset::CS, code);
        vmcb.set_state(offset::RIP, gate.offset);
        vmcb.set_state(offset::RFLAGS, gate.flags(flags));
        Ok(())
    }

    /// Real mode: through the vector table, without an error code (APM §8.6).
    fn deliver_real(&self, vcpu: &mut Vcpu) -> Result<(), Undeliverable> {
        let vmcb = vcpu.vmcb;
        let table = vmcb.segment(offset::IDTR);
        if VECTOR * 4 + 3 > table.limit.into() {
            return Err(Undeliverable::Gate);
        }
        let mut vector = [0; 4];
        self.read_some(vcpu, table.base + VECTOR * 4, &mut vector).1?;
        let [ip, cs] = [[vector[0], vector[1]], [vector[2], vector[3]]].map(u16::from_le_bytes);
        if (ip, cs) == (0, 0) {
            return Err(Undeliverable::Gate);
        }
        let flags: u64 = vmcb.state(offset::RFLAGS);
        let old = vmcb.segment(offset::CS);
        let mut bytes = [0; 6];
        for (slot, value) in bytes.chunks_exact_mut(2).zip([vmcb.rip() as u16, old.selector, flags as u16]) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        let rsp = vcpu.register(register::RSP);
        let stack = (rsp as u16).wrapping_sub(bytes.len() as u16);
        self.write(vcpu, vmcb.segment(offset::SS).base + u64::from(stack), &bytes)?;
        vcpu.set_register(register::RSP, rsp & !0xFFFF | u64::from(stack));
        vmcb.set_segment(offset::CS, Segment { selector: cs, base: u64::from(cs) << 4, ..old });
        vmcb.set_state(offset::RIP, u64::from(ip));
        vmcb.set_state(offset::RFLAGS, flags & !(flag::INTERRUPT | flag::TRAP));
        Ok(())
    }

    /// Reads a code-segment descriptor from the GDT (APM §4.7).
    fn code_segment(&self, vcpu: &Vcpu, selector: u16) -> Result<Segment, Undeliverable> {
        const TABLE_OR_PRIVILEGE: u16 = 0b111;
        let table = vcpu.vmcb.segment(offset::GDTR);
        let at = u64::from(selector & !TABLE_OR_PRIVILEGE);
        if at == 0 || selector & TABLE_OR_PRIVILEGE != 0 || at + 7 > table.limit.into() {
            return Err(Undeliverable::CodeSegment);
        }
        let descriptor = self.read_u64(vcpu, table.base.wrapping_add(at))?;
        // Present, of privilege level 0, code.
        if descriptor >> 40 & 0b1111_1000 != 0b1001_1000 {
            return Err(Undeliverable::CodeSegment);
        }
        const GRANULAR: u64 = 1 << 55;
        let limit = (descriptor & 0xFFFF | descriptor >> 32 & 0xF_0000) as u32;
        Ok(Segment {
            selector,
            // Bits 47:40 and 55:52 of the descriptor, packed; accessed, as loading makes it.
            attributes: (descriptor >> 40 & 0xFF | descriptor >> 44 & 0xF00 | 1) as u16,
            limit: if descriptor & GRANULAR != 0 { limit << 12 | 0xFFF } else { limit },
            base: descriptor >> 16 & 0xFF_FFFF | descriptor >> 32 & 0xFF00_0000,
        })
    }
}

/// The first eight bytes of an interrupt gate, which legacy and long mode have in common.
struct Gate {
    selector: u16,
    offset: u64,
    interrupt: bool,
}

impl Gate {
    fn parse(low: u64) -> Result<Self, Undeliverable> {
        let interrupt = match low >> 40 & 0b1001_1111 {
            0x8E => true,
            0x8F => false,
            _ => return Err(Undeliverable::Gate),
        };
        Ok(Self { selector: (low >> 16) as u16, offset: low & 0xFFFF | low >> 32 & 0xFFFF_0000, interrupt })
    }

    fn flags(&self, old: u64) -> u64 {
        let masked = if self.interrupt { flag::INTERRUPT } else { 0 };
        old & !(flag::TRAP | flag::NESTED_TASK | flag::RESUME | flag::VIRTUAL_8086 | masked)
    }
}
