//! VMGEXIT: the GHCB MSR protocol (GHCB §2.3.1), and the way to the GHCB page.

use super::{
    machine::Machine,
    stop::{Verdict, stop, violation},
    vcpu::Vcpu,
};
use snp_model::{
    counts::Kind,
    cpuid_page::C_BIT,
    ghcb::{MsrRequest, answer},
    psc,
    rmp::State,
};

/// The code that a page-state change by MSR fails with; the specification only says "not zero".
const CHANGE_FAILED: u32 = 1;

impl Machine {
    /// The guest calls its hypervisor.
    pub fn vmgexit(&mut self, vcpu: &mut Vcpu) {
        let request = MsrRequest::parse(vcpu.ghcb_msr);
        match request {
            MsrRequest::Page(_) => {}
            MsrRequest::PageStateChange(_) => self.counts.add(Kind::PageState),
            _ => self.counts.add(Kind::MsrProtocol),
        }
        let answer = match request {
            MsrRequest::Page(gpa) => return self.ghcb_page(vcpu, gpa),
            MsrRequest::SevInformation => answer::sev_information(C_BIT as u8),
            MsrRequest::Cpuid { leaf, register } => {
                let registers = self.cpuid.lookup(leaf, 0).unwrap_or_default();
                answer::cpuid(registers[usize::from(register & 3)], register)
            }
            MsrRequest::ApResetHold => {
                violation!("AP reset hold, but the model starts vCPUs by AP creation only")
            }
            MsrRequest::PreferredGhcb => answer::no_preferred_ghcb(),
            MsrRequest::RegisterGhcb(gpa) => match self.rmp.lookup(gpa) {
                Some((State::Hypervisor, _)) => {
                    vcpu.ghcb = Some(gpa);
                    answer::registered(gpa)
                }
                // A GHCB is a shared page (APM §15.35.7). KVM looks only when it is used.
                Some(_) => violation!("registration of {gpa:#x} as GHCB, which is a private page"),
                None => answer::not_registered(),
            },
            MsrRequest::PageStateChange(value) => {
                let change = psc::from_msr(value);
                let changed = change.is_some_and(|change| self.change_page_state(change).is_ok());
                if let Some(change) = change.filter(|_| changed) {
                    self.watch_for_flush(vcpu, change);
                }
                answer::page_state_change(if changed { 0 } else { CHANGE_FAILED })
            }
            MsrRequest::HypervisorFeatures => answer::hypervisor_features(),
            MsrRequest::Terminate { set, code } => terminate(set, code),
            MsrRequest::Unknown(value) => {
                violation!("GHCB MSR request {value:#x}, which no protocol version has")
            }
        };
        vcpu.ghcb_msr = self.hostile.msr_answer(vcpu.ghcb_msr, answer);
    }
}

/// The guest asked to be ended.
pub fn terminate(set: u8, code: u8) -> ! {
    stop(Verdict::Terminated, format_args!("set {set} code {code}"))
}
