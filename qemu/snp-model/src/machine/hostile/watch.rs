//! Pages of which the host sees every single access: they are never mapped for longer than one instruction.
//!
//! A nested page fault says where the guest reaches. The page is then mapped, the guest makes one step with the trap flag
//! set, and the page is taken away again. A host of real SNP can do the same to shared pages; for private pages this is
//! how the model finds out what a cache line that was never flushed would have done.

use super::Hostile;
use crate::machine::{machine::Machine, npt::Side, stop::violation, vcpu::Vcpu, vmcb::control};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use snp_model::{PAGE_BYTES, cpuid_page::C_BIT, hostile::Lie, launch::offset, rmp::Size};

const PAGE: u64 = PAGE_BYTES as u64;
const LINE: u64 = 64;
const TRAP_FLAG: u64 = 1 << 8;
const FIRST: u8 = 1;
const LAST: u8 = 2;
/// Requests through the GHCB that are watched: enough for a boot.
const REQUESTS: u64 = 1500;

/// What is watched.
#[derive(Default)]
pub struct Watch {
    /// Private pages with stale cache lines, and which of the two lines were touched.
    stale: BTreeMap<u64, u8>,
    /// The shared page of which no field may be read twice.
    once: Option<u64>,
    /// Where that page was read.
    read: BTreeSet<u64>,
    /// Pages that are mapped for one step of a vCPU.
    open: Vec<(usize, Side, u64)>,
    requests: u64,
}

impl Watch {
    /// A page that was validated just now.
    pub fn stale(&mut self, page: u64) {
        self.stale.insert(page, 0);
    }
}

impl Hostile {
    /// Whether the guest's single steps are needed.
    pub(super) fn watches(&self) -> bool {
        matches!(self.lie, Some(Lie::StaleLines | Lie::DoubleFetch | Lie::ReplyChanges))
    }
}

impl Machine {
    /// From now on each byte of the shared page can be read once and is another one then.
    pub(super) fn watch_once(&mut self, page: u64) {
        if self.hostile.watch.requests < REQUESTS {
            self.hostile.watch.requests += 1;
            self.hostile.watch.once = Some(page);
            self.hostile.watch.read.clear();
            self.npt.unmap(Side::Shared, page, Size::Small, &mut self.pool);
        }
    }

    /// A nested page fault; whether it was at a watched page.
    pub(super) fn watched_access(&mut self, vcpu: &mut Vcpu) -> bool {
        const WRITE: u64 = 1 << 1;
        const WALK: u64 = 1 << 33;
        let address: u64 = vcpu.vmcb.get(control::EXIT_INFO_2);
        let info: u64 = vcpu.vmcb.get(control::EXIT_INFO_1);
        let private = address >> C_BIT & 1 == 1 || !vcpu.has_paging();
        let gpa = address & !(1 << C_BIT);
        let page = gpa & !(PAGE - 1);
        if private {
            let Some(touched) = self.hostile.watch.stale.get_mut(&page) else { return false };
            if info & WALK != 0 {
                violation!(
                    "the page at {page:#x} is a page table and its first and last line were never touched"
                );
            }
            *touched |= match gpa % PAGE / LINE {
                0 => FIRST,
                line if line == PAGE / LINE - 1 => LAST,
                _ => 0,
            };
            let (touched, inside) = (*touched, matches!(gpa % PAGE / LINE, 1..63));
            if inside {
                violation!(
                    "{gpa:#x} is used before the first and last line of its page were touched: what is there may be stale"
                );
            }
            if touched == FIRST | LAST {
                self.hostile.watch.stale.remove(&page);
                self.map(page, Size::Small);
                return true;
            }
        } else {
            if self.hostile.lie == Some(Lie::ExtraDevices)
                && !self.was_shared(page)
                && self.rmp.is_memory(gpa)
            {
                violation!(
                    "the guest looks at {gpa:#x}, which it never shared: whatever lies there is the host's"
                );
            }
            if self.hostile.watch.once != Some(page) {
                return false;
            }
            if info & WRITE != 0 {
                self.hostile.watch.read.remove(&(gpa & !7));
            } else if !self.hostile.watch.read.insert(gpa & !7)
                && let Some(host) = self.memory.shared(page)
            {
                let at = (gpa & (PAGE - 1) & !7) as usize;
                host.write(at, !host.read::<u64>(at));
            }
        }
        self.map(page, Size::Small);
        let side = if private { Side::Private } else { Side::Shared };
        self.hostile.watch.open.push((vcpu.number, side, page));
        let flags: u64 = vcpu.vmcb.state(offset::RFLAGS);
        vcpu.vmcb.set_state(offset::RFLAGS, flags | TRAP_FLAG);
        vcpu.resume_event();
        true
    }

    /// The guest made its one step; whether it was one of these.
    pub(super) fn step_done(&mut self, vcpu: &mut Vcpu) -> bool {
        if !self.hostile.watches() {
            return false;
        }
        for (number, side, page) in core::mem::take(&mut self.hostile.watch.open) {
            if number == vcpu.number {
                self.npt.unmap(side, page, Size::Small, &mut self.pool);
            } else {
                self.hostile.watch.open.push((number, side, page));
            }
        }
        let flags: u64 = vcpu.vmcb.state(offset::RFLAGS);
        vcpu.vmcb.set_state(offset::RFLAGS, flags & !TRAP_FLAG);
        true
    }

    fn was_shared(&self, page: u64) -> bool {
        self.hostile.shared.iter().any(|range| range.contains(&page))
    }
}
