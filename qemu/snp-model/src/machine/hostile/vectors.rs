//! Exceptions and interrupts that nothing in the guest has caused, and the page that is pulled from under it.

use crate::machine::{
    machine::Machine,
    vcpu::{Vcpu, register},
    vmcb::{control, exit},
};
use snp_model::hostile::Lie;

/// An event to inject (APM §15.20).
const VALID: u64 = 1 << 31;
const NMI: u64 = 2 << 8;
const EXCEPTION: u64 = 3 << 8;

impl Machine {
    /// The one blow of a lie that has one, when the guest has just said that it listens.
    pub(super) fn strike(&mut self, vcpu: &mut Vcpu) {
        let event = match self.hostile.lie {
            Some(Lie::InjectedVc) => return self.deliver_vc(vcpu, exit::CPUID),
            Some(Lie::InjectedMmioVc) => return self.deliver_vc(vcpu, exit::NPF),
            Some(Lie::StartedTwice) => return self.start_again(),
            Some(Lie::Remap) => return self.pull_the_stack(vcpu),
            Some(Lie::Int80) => 0x80,
            Some(Lie::Interrupt) => 0x30,
            Some(Lie::Nmi) => 2 | NMI,
            Some(Lie::Debug) => 1 | EXCEPTION,
            Some(Lie::Divide) => EXCEPTION,
            _ => return,
        };
        vcpu.vmcb.set(control::EVENT_INJECTION, event | VALID);
    }

    /// RMPUPDATE of the page under the guest's stack: it is another page now, and not validated.
    fn pull_the_stack(&mut self, vcpu: &Vcpu) {
        if let Ok(to) = self.translate(vcpu, vcpu.register(register::RSP)) {
            self.replace(to.gpa & !0xFFF);
        }
    }
}
