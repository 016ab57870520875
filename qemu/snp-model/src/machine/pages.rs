//! PVALIDATE and RMPADJUST, which are undefined opcodes to TCG (APM volume 3).

use super::{
    machine::Machine,
    npt::Side,
    stop::violation,
    vcpu::{Exception, Vcpu, register},
};
use snp_model::{
    counts::Kind,
    decode::Instruction,
    rmp::{Failure, Size, State},
};

/// `FAIL_INPUT`.
const FAIL_INPUT: u64 = 1;
/// `FAIL_PERMISSION`.
const FAIL_PERMISSION: u64 = 2;
/// `FAIL_INUSE`.
const FAIL_INUSE: u64 = 3;
/// `FAIL_SIZEMISMATCH`.
const FAIL_SIZEMISMATCH: u64 = 6;

impl Machine {
    /// An undefined opcode: one of the two, or the guest's own.
    pub fn undefined_opcode(&mut self, vcpu: &mut Vcpu) {
        let decoded = self.instruction(vcpu);
        let outcome = match decoded.instruction {
            Instruction::Pvalidate => {
                self.counts.add(Kind::Pvalidate);
                let validates = vcpu.register(register::RDX) & 1 == 1;
                self.pvalidate(vcpu).map(|(code, carry)| self.hostile.validated(validates, code, carry))
            }
            Instruction::Rmpadjust => {
                self.counts.add(Kind::Rmpadjust);
                self.rmpadjust(vcpu)
            }
            _ => return vcpu.raise(Exception::UndefinedOpcode),
        };
        match outcome {
            Ok((code, carry)) => {
                vcpu.return_code(code, carry);
                vcpu.skip(decoded.bytes);
            }
            Err(exception) => vcpu.raise(exception),
        }
    }

    /// Return code and carry flag, or the exception that the instruction ends in.
    fn pvalidate(&mut self, vcpu: &Vcpu) -> Result<(u64, bool), Exception> {
        let validate = vcpu.register(register::RDX) & 1 == 1;
        let (gpa, size) = match self.operand(vcpu, "PVALIDATE")? {
            Some(operand) => operand,
            None => return Ok((FAIL_INPUT, true)),
        };
        if self.vcpus.use_as_vmsa(gpa) {
            violation!("PVALIDATE of {gpa:#x}, the VMSA of a vCPU that exists");
        }
        // A page that was validated before may be mapped, one that was not cannot be.
        match self.rmp.pvalidate(gpa, size, validate) {
            Ok(done) => {
                if done.smashed {
                    self.remap_around(gpa);
                }
                if !done.changed {
                    // The instruction only reports this. For a guest that validates each page once (Linux and
                    // OVMF end themselves here) it means that it lost count of its own pages, so the model
                    // says so.
                    violation!(
                        "PVALIDATE of {gpa:#x} ({size:?}): the page was {} before",
                        if validate { "validated" } else { "unvalidated" }
                    );
                }
                if validate {
                    self.check_flush(vcpu, gpa, true);
                    self.map(gpa, size);
                    self.hostile_validated(gpa, size);
                } else {
                    self.npt.unmap(Side::Private, gpa, size, &mut self.pool);
                    // A page table may show through the shared side (`walk_without_c_bit`).
                    self.npt.unmap(Side::Shared, gpa, size, &mut self.pool);
                }
                Ok((0, false))
            }
            Err(Failure::SizeMismatch) => Ok((FAIL_SIZEMISMATCH, true)),
            Err(failure) => self.nested_fault("PVALIDATE", gpa, failure),
        }
    }

    fn rmpadjust(&mut self, vcpu: &Vcpu) -> Result<(u64, bool), Exception> {
        const VMSA: u64 = 1 << 16;
        let attributes = vcpu.register(register::RDX);
        let (gpa, size) = match self.operand(vcpu, "RMPADJUST")? {
            Some(operand) => operand,
            None => return Ok((FAIL_INPUT, false)),
        };
        if self.vcpus.use_as_vmsa(gpa) {
            return Ok((FAIL_INUSE, false));
        }
        match self.rmp.rmpadjust(gpa, size, attributes as u8, attributes & VMSA != 0) {
            Ok(smashed) => {
                if smashed {
                    self.remap_around(gpa);
                }
                Ok((0, false))
            }
            Err(Failure::SizeMismatch) => Ok((FAIL_SIZEMISMATCH, false)),
            Err(Failure::Permission) => Ok((FAIL_PERMISSION, false)),
            Err(failure) => self.nested_fault("RMPADJUST", gpa, failure),
        }
    }

    /// The page that RAX and RCX name, `None` for an operand that the instruction refuses.
    fn operand(&self, vcpu: &Vcpu, name: &str) -> Result<Option<(u64, Size)>, Exception> {
        if vcpu.privilege() != 0 {
            return Err(Exception::GeneralProtection);
        }
        let address = match vcpu.runs_64_bit_code() {
            true => vcpu.register(register::RAX),
            false => vcpu.register(register::RAX) & 0xFFFF_FFFF,
        };
        let size = match vcpu.register(register::RCX) as u32 {
            0 => Size::Small,
            1 => Size::Large,
            _ => return Ok(None),
        };
        if size == Size::Large && !address.is_multiple_of(Size::Large.bytes()) {
            return Ok(None);
        }
        let address = address & !(Size::Small.bytes() - 1);
        let to = match self.translate(vcpu, address) {
            Ok(to) => to,
            // The instruction would raise #PF; no guest means to handle it.
            Err(why) => violation!("{name} of {address:#x} at {:#x}: {why}", vcpu.vmcb.rip()),
        };
        if !to.private {
            violation!(
                "{name} of {address:#x} at {:#x} through a mapping without the C-bit",
                vcpu.vmcb.rip()
            );
        }
        Ok(Some((to.gpa, size)))
    }

    /// After the RMP split an entry, nested tables must have the same page size (APM §15.36.10).
    fn remap_around(&mut self, gpa: u64) {
        let head = gpa & !(Size::Large.bytes() - 1);
        for small in (head..head + Size::Large.bytes()).step_by(Size::Small.bytes() as usize) {
            if let Some((State::Validated, _)) = self.rmp.lookup(small) {
                self.map(small, Size::Small);
            }
        }
    }

    fn nested_fault(&self, name: &str, gpa: u64, failure: Failure) -> ! {
        match failure {
            Failure::NotMemory => violation!("{name} of {gpa:#x}, where there is no memory"),
            _ => violation!("{name} of {gpa:#x}, which is not a page that this guest may use it on"),
        }
    }
}
