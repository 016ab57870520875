//! Lies about the start of other vCPUs, and about waking them.

use super::Hostile;
use crate::machine::machine::Machine;
use snp_model::{ghcb::Malformed, hostile::Lie};

impl Hostile {
    /// Whether a vCPU that sleeps is left asleep although the guest wants it woken.
    pub fn leaves_asleep(&self) -> bool {
        self.tells(Lie::NeverWoken)
    }
}

impl Machine {
    /// Answers the creation of a vCPU from the VMSA at `gpa` in place of the machine, if the lie is about that.
    pub fn hostile_create(&mut self, target: usize, gpa: u64) -> Option<Result<(), Malformed>> {
        match self.hostile.lie? {
            Lie::NeverStarted => Some(Ok(())),
            Lie::StartRefused => Some(Err(Malformed::InvalidInput)),
            // Real firmware marks the VMSAs of the launch as such, so any of them can be run.
            Lie::LaunchVmsa => {
                let vmsa = self.hostile.launch_vmsa.clone();
                self.run_vmsa(target, vmsa);
                Some(Ok(()))
            }
            Lie::StartedTwice => {
                let mut vmsa = self.hostile.launch_vmsa.clone();
                self.private_page(gpa)?.copy(&mut vmsa);
                self.hostile.created = Some((target, vmsa));
                None
            }
            _ => None,
        }
    }

    /// Runs a vCPU that exists from its first VMSA once more. A processor that keeps the state of the vCPU in that page would
    /// not let this happen; the guest must not rest on it.
    pub(super) fn start_again(&mut self) {
        if let Some((target, vmsa)) = self.hostile.created.take() {
            self.run_vmsa(target, vmsa);
        }
    }
}
