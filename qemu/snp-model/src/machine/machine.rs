//! The machine that one guest sees: its memory, its page states, its AMD-SP, its devices.

use super::{
    cpu,
    devices::HypervisorMsrs,
    hostile::Hostile,
    memory::{GuestMemory, Pool},
    npt::{Npt, Side},
    serial::log,
    stop::{internal, violation},
    strict::Strict,
    vcpus::Vcpus,
    vmcb::PermissionMaps,
};
use alloc::vec::Vec;
use snp_model::{
    PAGE_BYTES,
    amd_sp::AmdSp,
    apic::Apic,
    counts::{Counts, LINE},
    cpuid_page::CpuidPage,
    psc::{Change, Operation},
    rmp::{ChangeError, Rmp, Size, State},
};

/// Everything but the vCPUs.
pub struct Machine {
    /// Where guest memory is.
    pub memory: GuestMemory,
    /// Who owns it.
    pub rmp: Rmp<'static>,
    /// What the processor enforces of that.
    pub npt: Npt,
    /// What vCPUs leave the guest for.
    pub maps: PermissionMaps,
    /// The vCPUs.
    pub vcpus: Vcpus,
    /// Their local APICs.
    pub apics: Vec<Apic>,
    /// What is not forgiven.
    pub strict: Strict,
    /// What they left the guest for.
    pub counts: Counts,
    /// Time-stamp counter at the launch.
    pub launched: u64,
    /// Bytes of the guest's event that is being written.
    pub event: Vec<u8>,
    /// The model's free pages.
    pub pool: Pool,
    /// The AMD-SP.
    pub amd_sp: AmdSp,
    /// What the hypervisor answers for CPUID.
    pub cpuid: CpuidPage,
    /// The table that extended guest requests return.
    pub certificates: &'static [u8],
    /// MSRs that a hypervisor emulates.
    pub msrs: HypervisorMsrs,
    /// What the hypervisor lies about.
    pub hostile: Hostile,
}

/// Why a page-state change cannot be made.
pub struct BadChange;

impl Machine {
    /// Maps a page in the tree of its state.
    pub fn map(&mut self, gpa: u64, size: Size) {
        let (side, to) = match self.rmp.lookup(gpa) {
            Some((State::Validated, _)) => (Side::Private, self.memory.private(gpa)),
            Some((State::Hypervisor, _)) => (Side::Shared, self.memory.shared(gpa)),
            _ => return,
        };
        let Some(to) = to else {
            internal!(
                "{gpa:#x} cannot be shared: the machine that the model runs on has no RAM there; share memory from 1 MiB to 2 GiB or above 4 GiB"
            );
        };
        if side == Side::Shared {
            self.rmp.expose(gpa);
        }
        self.npt.map(side, gpa, size, to, &mut self.pool);
    }

    /// A byte that the guest wrote to its event port. At the end of each event the log gets the counts so far.
    pub fn count_event(&mut self, byte: u8) {
        /// Of an event (`wire/src/event.rs`): its length, and where its code is.
        const EVENT_BYTES: usize = 16;
        const CODE: usize = 2;
        const BEGIN: u8 = 0xC1;
        if self.event.is_empty() && byte != BEGIN {
            return;
        }
        self.event.push(byte);
        if self.event.len() == EVENT_BYTES {
            let code = u16::from_le_bytes([self.event[CODE], self.event[CODE + 1]]);
            self.event.clear();
            let ticks = cpu::timestamp() - self.launched;
            log!("{LINE}event={code} ticks={ticks} {}", self.counts);
        }
    }

    /// Carries out a page-state change (GHCB §4.1.6), or finds it malformed.
    pub fn change_page_state(&mut self, change: Change) -> Result<(), BadChange> {
        if let Some(answer) = self.hostile.change(change, self.memory.ram()) {
            return answer;
        }
        let Change { gpa, size, operation } = change;
        let to_guest = match operation {
            Operation::Private => true,
            Operation::Shared => false,
            Operation::Smash => {
                self.smash(gpa);
                return Ok(());
            }
            // Joining needs the AMD-SP's help (APM §15.36.11); it is a hint, and the entries stay as they
            // are.
            Operation::Unsmash => return Ok(()),
        };
        let was_exposed = self.rmp.is_exposed(gpa, size);
        if !to_guest {
            self.check_for_stray_writes(gpa, size);
        }
        match self.rmp.change(gpa, size, to_guest) {
            Ok(()) => {}
            Err(ChangeError::Address) => return Err(BadChange),
            Err(ChangeError::Validated) => violation!(
                "page-state change of {gpa:#x} ({size:?}) to {operation:?} while the guest still holds it validated"
            ),
        }
        if to_guest {
            self.npt.unmap(Side::Shared, gpa, size, &mut self.pool);
            if was_exposed {
                self.memory.shared_pages(gpa, size).for_each(|page| page.clear());
            }
        } else {
            self.map_shared(gpa, size);
        }
        self.hostile_changed(change);
        Ok(())
    }

    /// Finds what a device wrote to pages while they were private. On hardware the IOMMU's RMP check stops
    /// it; here it went to the pages' shared twins, which are all zeroes until the pages are shared.
    fn check_for_stray_writes(&self, gpa: u64, size: Size) {
        for gpa in (gpa..gpa.saturating_add(size.bytes())).step_by(PAGE_BYTES) {
            let private = self.rmp.lookup(gpa).is_some_and(|(state, _)| state != State::Hypervisor);
            if private && self.memory.shared(gpa).is_some_and(|page| !page.is_clear()) {
                violation!("a device wrote to the private page {gpa:#x}");
            }
        }
    }

    fn map_shared(&mut self, gpa: u64, size: Size) {
        if self.memory.shared(gpa).is_none() {
            internal!(
                "{gpa:#x} cannot be shared: the machine that the model runs on has no RAM there; share memory from 1 MiB to 2 GiB or above 4 GiB"
            );
        }
        self.map(gpa, size);
    }

    /// PSMASH of the 2 MiB entry around `gpa`, and of its nested leaf.
    pub fn smash(&mut self, gpa: u64) {
        let Some((_, page)) = self.rmp.lookup(gpa) else { return };
        if !self.rmp.smash(gpa) {
            return;
        }
        // Nested and RMP page sizes must agree (APM §15.36.10), so each small page is mapped anew.
        for small in (page.gpa..page.gpa + page.size.bytes()).step_by(PAGE_BYTES) {
            self.map(small, Size::Small);
        }
    }
}
