//! Strictness: mistakes that real hardware may forgive today and not tomorrow, as far as they can be seen from here.
//!
//! * **Stale fields.** Each event of the GHCB takes certain fields (GHCB table 6). One that is missing is answered with an
//!   error by a real host, and one too many tells it more than it needs; here both end the run.
//! * **Stale translations.** A page that changes its state needs another C-bit in its mapping, and then a flush: the TLB may
//!   still hold the old one (APM §15.34.5 and §5.5). TCG flushes its TLB at every exit and would never show it. So from the
//!   change on the model watches for a flush, and wants one before the page is used in its new state. It looks at the
//!   mapping at the page's own address only; whoever maps shared and private memory at different addresses needs no flush.

use super::{
    machine::Machine,
    npt::Side,
    stop::violation,
    vcpu::Vcpu,
    vmcb::{control, intercept},
};
use alloc::vec::Vec;
use snp_model::{
    ghcb::{Malformed, ValidBitmap, stray_field},
    psc::{Change, Operation},
    rmp::Size,
};

/// A page whose old translation may still be in a TLB.
struct Unflushed {
    vcpu: usize,
    gpa: u64,
    size: Size,
    /// What it became.
    private: bool,
}

/// What strictness has to remember.
pub struct Strict {
    on: bool,
    unflushed: Vec<Unflushed>,
}

impl Strict {
    /// A strict model, or a lenient one.
    pub const fn new(on: bool) -> Self {
        Self { on, unflushed: Vec::new() }
    }

    /// Whether page tables, too, must be as a careful guest writes them.
    pub const fn is_on(&self) -> bool {
        self.on
    }

    /// Looks at the fields that an event came with.
    pub fn check_fields(&self, code: u64, valid: ValidBitmap) {
        if let Some(field) = stray_field(code, valid).filter(|_| self.on) {
            violation!(
                "VMGEXIT with event {code:#x} and the field at {field:#x} marked valid, which it does not take"
            );
        }
    }

    /// Looks at why an event was refused.
    pub fn check_refusal(&self, code: u64, why: Malformed) {
        if self.on && matches!(why, Malformed::MissingInput | Malformed::Usage) {
            violation!("VMGEXIT with event {code:#x} refused: {why:?}");
        }
    }

    fn position(&self, gpa: u64, private: bool) -> Option<usize> {
        let holds = |page: &Unflushed| (page.gpa..page.gpa + page.size.bytes()).contains(&gpa);
        self.unflushed.iter().position(|page| page.private == private && holds(page))
    }
}

impl Machine {
    /// After a page-state change: whether the page's mapping must change and be flushed.
    pub fn watch_for_flush(&mut self, vcpu: &Vcpu, change: Change) {
        let Change { gpa, size, operation } = change;
        let private = match operation {
            Operation::Private => true,
            Operation::Shared => false,
            Operation::Smash | Operation::Unsmash => return,
        };
        let mapped = self.translate(vcpu, gpa).ok();
        let old = mapped.is_some_and(|to| to.gpa == gpa && to.private != private);
        if !self.strict.on || !vcpu.has_paging() || !old {
            return;
        }
        self.strict.unflushed.push(Unflushed { vcpu: vcpu.number, gpa, size, private });
        if !private {
            // So that its first use is seen.
            self.npt.unmap(Side::Shared, gpa, size, &mut self.pool);
        }
        intercept_flushes(vcpu, true);
    }

    /// The vCPU is about to flush translations.
    pub fn flushed(&mut self, vcpu: &Vcpu) {
        self.strict.unflushed.retain(|page| page.vcpu != vcpu.number);
        intercept_flushes(vcpu, false);
    }

    /// A page is used in a new state for the first time.
    pub fn check_flush(&mut self, vcpu: &Vcpu, gpa: u64, private: bool) {
        let Some(index) = self.strict.position(gpa, private) else { return };
        let page = self.strict.unflushed.swap_remove(index);
        let mapped = self.translate(vcpu, gpa).ok();
        let through = mapped.is_some_and(|to| to.gpa == gpa && to.private == private);
        if page.vcpu == vcpu.number && through {
            violation!(
                "{gpa:#x} became {} and is mapped so, but its old translation was not flushed from the TLB (RIP {:#x})",
                if private { "private" } else { "shared" },
                vcpu.vmcb.rip()
            );
        }
    }
}

/// INVLPG and writes of CR3 and CR4 flush translations (APM §5.5.2).
fn intercept_flushes(vcpu: &Vcpu, on: bool) {
    const CR3_AND_CR4: u16 = 0b11 << 3;
    let writes: u16 = vcpu.vmcb.get(control::CR_WRITES);
    let instructions: u32 = vcpu.vmcb.get(control::INSTRUCTIONS_1);
    let (writes, instructions) = if on {
        (writes | CR3_AND_CR4, instructions | intercept::INVLPG)
    } else {
        (writes & !CR3_AND_CR4, instructions & !intercept::INVLPG)
    };
    vcpu.vmcb.set(control::CR_WRITES, writes);
    vcpu.vmcb.set(control::INSTRUCTIONS_1, instructions);
}
