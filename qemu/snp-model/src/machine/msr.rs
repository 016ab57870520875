//! MSRs that the processor itself has under SEV-SNP and TCG has not, and EFER. Every other intercepted MSR is
//! a `#VC`.

use super::{
    machine::Machine,
    vcpu::{LONG_MODE_ACTIVE, LONG_MODE_ENABLE, SVM_ENABLE, Vcpu, register},
    vmcb::{control, exit},
};
use snp_model::launch::offset;

const EFER: u32 = 0xC000_0080;
const GHCB: u32 = 0xC001_0130;
const SEV_STATUS: u32 = 0xC001_0131;

impl Machine {
    /// RDMSR or WRMSR of an intercepted MSR.
    pub fn msr(&mut self, vcpu: &mut Vcpu) {
        let write = vcpu.vmcb.get::<u64>(control::EXIT_INFO_1) & 1 == 1;
        let done = match vcpu.register(register::RCX) as u32 {
            EFER if write => write_efer(vcpu),
            EFER => {
                vcpu.set_edx_eax(vcpu.vmcb.state(offset::EFER));
                true
            }
            GHCB => {
                if write {
                    vcpu.ghcb_msr = vcpu.edx_eax();
                } else {
                    vcpu.set_edx_eax(vcpu.ghcb_msr);
                }
                true
            }
            // Read-only (APM §15.34.10).
            SEV_STATUS if write => false,
            SEV_STATUS => {
                vcpu.set_edx_eax(vcpu.sev_status);
                true
            }
            _ => return self.deliver_vc(vcpu, exit::MSR),
        };
        if done {
            // Both instructions are the same length behind the same prefixes.
            let bytes = self.instruction(vcpu).bytes;
            vcpu.skip(bytes);
        } else {
            self.refuse(vcpu);
        }
    }
}

/// EFER is a register of the VMSA that the guest writes without asking; writes of SVME are ignored (APM
/// §15.35.10). Whether the value was one that the processor takes.
fn write_efer(vcpu: &mut Vcpu) -> bool {
    const SYSTEM_CALL: u64 = 1 << 0;
    const NO_EXECUTE: u64 = 1 << 11;
    const FAST_FXSAVE: u64 = 1 << 14;
    const KNOWN: u64 =
        SYSTEM_CALL | LONG_MODE_ENABLE | LONG_MODE_ACTIVE | NO_EXECUTE | SVM_ENABLE | FAST_FXSAVE;
    let (new, old) = (vcpu.edx_eax(), vcpu.vmcb.state::<u64>(offset::EFER));
    let toggles_long_mode = (new ^ old) & LONG_MODE_ENABLE != 0;
    if new & !KNOWN != 0 || toggles_long_mode && vcpu.has_paging() {
        return false;
    }
    // LMA is the processor's own.
    let efer = new & !LONG_MODE_ACTIVE | old & LONG_MODE_ACTIVE | SVM_ENABLE;
    vcpu.vmcb.set_state(offset::EFER, efer);
    true
}
