//! The Reverse Map Table: who owns each page of the guest, and what each instruction may do to that.
//!
//! APM §15.36.3 gives the fields of an entry. The model keeps one entry for each 4 KiB page of one guest,
//! ordered by guest-physical address; system-physical addresses, ASIDs and VMPLs other than 0 do not occur in
//! it. As in the table of the processor, the first entry of a 2 MiB page says so, and the 511 that follow it
//! have no say.

use crate::{PAGE_BYTES, layout::Layout};

/// Bytes in a large page.
pub const LARGE_BYTES: u64 = 2 << 20;
/// 4 KiB pages in a large page.
pub const LARGE_PAGES: usize = LARGE_BYTES as usize / PAGE_BYTES;

/// Size of a page, in the RMP, in a page-state change and in PVALIDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
}

impl Size {
    /// Bytes of a page of this size.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Small => PAGE_BYTES as u64,
            Self::Large => LARGE_BYTES,
        }
    }

    const fn pages(self) -> usize {
        self.bytes() as usize / PAGE_BYTES
    }
}

/// One entry, as one byte.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry(u8);

impl Entry {
    const ASSIGNED: u8 = 1 << 0;
    const VALIDATED: u8 = 1 << 1;
    const VMSA: u8 = 1 << 2;
    const LARGE: u8 = 1 << 3;
    /// Not a field of the processor's: the host could have seen or written the page since it was last
    /// private.
    const EXPOSED: u8 = 1 << 4;

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

/// What a page is to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Owned by the hypervisor: shared.
    Hypervisor,
    /// The guest's, but not yet accepted by it.
    Unvalidated,
    /// The guest's, and accepted.
    Validated,
}

/// Where an entry belongs: a page and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Guest-physical address of its first byte.
    pub gpa: u64,
    /// Its size in the RMP.
    pub size: Size,
}

/// Why a page-state change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeError {
    /// Not memory of this guest, or not aligned to the page's size.
    Address,
    /// The guest gives a page away, or asks for it anew, without having rescinded its validation. Hardware
    /// would let it happen; what follows for the guest is an access fault or lost data (GHCB §4.1.6:
    /// PVALIDATE comes first).
    Validated,
}

/// How PVALIDATE and RMPADJUST end (APM volume 3; table 15-40 of volume 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The page is not the guest's: `#VMEXIT(NPF)`, which no hypervisor can resolve.
    NotAssigned,
    /// Not memory at all: `#VMEXIT(NPF)`.
    NotMemory,
    /// `FAIL_SIZEMISMATCH`, return code 6: a 2 MiB request on 4 KiB entries.
    SizeMismatch,
    /// `FAIL_PERMISSION`, return code 2.
    Permission,
}

/// What PVALIDATE did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validated {
    /// Whether the bit changed; its negation is the carry flag.
    pub changed: bool,
    /// Whether a 2 MiB entry had to be split first, so that nested page tables must follow.
    pub smashed: bool,
}

/// The table. Its entries live where the caller puts them.
pub struct Rmp<'a> {
    entries: &'a mut [Entry],
    /// RAM.
    ram: Layout,
    /// Guest-physical address of the ROM, which ends at 4 GiB.
    rom_base: u64,
}

/// End of 32-bit space, where the ROM ends.
const ROM_END: u64 = 1 << 32;
/// The VGA window of a PC. It decodes to the PCI bus and is memory on no machine that QEMU builds.
const VGA: core::ops::Range<u64> = 0xA_0000..0xC_0000;

impl<'a> Rmp<'a> {
    /// Entries that a guest of this size needs.
    pub const fn entries_for(ram_bytes: u64, rom_bytes: u64) -> usize {
        ((ram_bytes + rom_bytes) / PAGE_BYTES as u64) as usize
    }

    /// A table in which the hypervisor owns everything. `entries` must have [`Rmp::entries_for`] elements,
    /// `ram_bytes` must be whole large pages, `rom_bytes` whole pages above all RAM below 4 GiB; `None` otherwise.
    pub fn new(entries: &'a mut [Entry], ram_bytes: u64, rom_bytes: u64) -> Option<Self> {
        let ram = Layout::of(ram_bytes);
        let whole = ram_bytes.is_multiple_of(LARGE_BYTES) && rom_bytes.is_multiple_of(PAGE_BYTES as u64);
        let rom_base = ROM_END.checked_sub(rom_bytes)?;
        if !whole || ram.run_from(0) > rom_base || entries.len() != Self::entries_for(ram_bytes, rom_bytes) {
            return None;
        }
        entries.fill(Entry::default());
        Some(Self { entries, ram, rom_base })
    }

    /// Whether there is memory at `gpa`.
    pub fn is_memory(&self, gpa: u64) -> bool {
        self.index(gpa).is_some()
    }

    fn index(&self, gpa: u64) -> Option<usize> {
        let byte = if (self.rom_base..ROM_END).contains(&gpa) {
            self.ram.bytes() + (gpa - self.rom_base)
        } else if VGA.contains(&gpa) {
            return None;
        } else {
            self.ram.index(gpa)?
        };
        Some((byte / PAGE_BYTES as u64) as usize)
    }

    const fn ram_pages(&self) -> usize {
        (self.ram.bytes() / PAGE_BYTES as u64) as usize
    }

    /// The entries of the page of `size` at `gpa`, if that is all memory and aligned. Large pages are for RAM
    /// only.
    fn span(&self, gpa: u64, size: Size) -> Option<core::ops::Range<usize>> {
        let first = self.index(gpa)?;
        let end = first + size.pages();
        let fits = size == Size::Small
            || self.ram.run_from(gpa) >= size.bytes() && !(gpa < VGA.end && gpa + size.bytes() > VGA.start);
        (gpa.is_multiple_of(size.bytes()) && fits).then_some(first..end)
    }

    /// The entry that speaks for the 4 KiB page of `gpa`, and its page.
    fn speaker(&self, gpa: u64) -> Option<(usize, Page)> {
        let own = self.index(gpa)?;
        let head = own - own % LARGE_PAGES;
        if own < self.ram_pages() && self.entries[head].has(Entry::LARGE) {
            return Some((head, Page { gpa: gpa & !(LARGE_BYTES - 1), size: Size::Large }));
        }
        Some((own, Page { gpa: gpa & !(PAGE_BYTES as u64 - 1), size: Size::Small }))
    }

    /// State and extent of the page that holds `gpa`, or `None` if there is no memory.
    pub fn lookup(&self, gpa: u64) -> Option<(State, Page)> {
        let (index, page) = self.speaker(gpa)?;
        let entry = self.entries[index];
        let state = match (entry.has(Entry::ASSIGNED), entry.has(Entry::VALIDATED)) {
            (false, _) => State::Hypervisor,
            (true, false) => State::Unvalidated,
            (true, true) => State::Validated,
        };
        Some((state, page))
    }

    /// Whether the 4 KiB page of `gpa` is a VMSA (its RMP entry says so).
    pub fn is_vmsa(&self, gpa: u64) -> bool {
        self.speaker(gpa).is_some_and(|(index, _)| self.entries[index].has(Entry::VMSA))
    }

    /// PSMASH (APM §15.36.11): a 2 MiB entry becomes 512 that say the same. Whether there was one.
    pub fn smash(&mut self, gpa: u64) -> bool {
        match self.speaker(gpa) {
            Some((head, Page { size: Size::Large, .. })) => {
                let entry = Entry(self.entries[head].0 & !Entry::LARGE);
                self.entries[head..head + LARGE_PAGES].fill(entry);
                true
            }
            _ => false,
        }
    }

    /// Marks a hypervisor's page as one that host and guest have both reached; whether it was not so before.
    pub fn expose(&mut self, gpa: u64) -> bool {
        let Some((index, _)) = self.speaker(gpa) else { return false };
        let fresh = !self.entries[index].has(Entry::EXPOSED);
        self.entries[index].0 |= Entry::EXPOSED;
        fresh
    }

    /// Whether a page in `gpa..gpa + size` was exposed since it was last private.
    pub fn is_exposed(&self, gpa: u64, size: Size) -> bool {
        (0..size.pages() as u64)
            .filter_map(|page| self.speaker(gpa + page * PAGE_BYTES as u64))
            .any(|(index, _)| self.entries[index].has(Entry::EXPOSED))
    }

    /// RMPUPDATE for a page-state change (APM §15.36.5): gives the page to the guest, unvalidated, or takes
    /// it back. A page that already is what was asked for stays as it is.
    pub fn change(&mut self, gpa: u64, size: Size, to_guest: bool) -> Result<(), ChangeError> {
        let span = self.span(gpa, size).ok_or(ChangeError::Address)?;
        for page in 0..size.pages() as u64 {
            if let Some((State::Validated, _)) = self.lookup(gpa + page * PAGE_BYTES as u64) {
                return Err(ChangeError::Validated);
            }
        }
        if size == Size::Small {
            self.smash(gpa);
        }
        let owner = if to_guest { Entry::ASSIGNED } else { Entry::EXPOSED };
        let large = if size == Size::Large { Entry::LARGE } else { 0 };
        self.entries[span.clone()].fill(Entry(owner));
        self.entries[span.start].0 |= large;
        Ok(())
    }

    /// RMPUPDATE by a hostile hypervisor: the guest's page is another one from now on, assigned and not validated.
    pub fn replace(&mut self, gpa: u64) {
        self.smash(gpa);
        if let Some((index, _)) = self.speaker(gpa) {
            self.entries[index] = Entry(Entry::ASSIGNED);
        }
    }

    /// What the AMD-SP does with a page at launch (SNP ABI §8.17): it is the guest's and validated.
    pub fn launch(&mut self, gpa: u64) -> Result<(), ChangeError> {
        let index = self.index(gpa).ok_or(ChangeError::Address)?;
        if self.entries[index].has(Entry::ASSIGNED) {
            return Err(ChangeError::Validated);
        }
        self.entries[index] = Entry(Entry::ASSIGNED | Entry::VALIDATED);
        Ok(())
    }

    /// PVALIDATE (APM volume 3, and table 15-40 of volume 2). A 4 KiB request on a 2 MiB entry leaves with an
    /// NPF that says SIZEM; the hypervisor smashes the entry and the guest's instruction runs again, here in
    /// one step.
    pub fn pvalidate(&mut self, gpa: u64, size: Size, validate: bool) -> Result<Validated, Failure> {
        let smashed = self.meet(gpa, size)?;
        let (index, _) = self.speaker(gpa).ok_or(Failure::NotMemory)?;
        let entry = &mut self.entries[index];
        let changed = entry.has(Entry::VALIDATED) != validate;
        entry.0 ^= if changed { Entry::VALIDATED } else { 0 };
        Ok(Validated { changed, smashed })
    }

    /// RMPADJUST by VMPL 0 (APM volume 3): sets or clears the VMSA attribute of a page. The permission masks
    /// of other VMPLs are not kept, because no vCPU runs there. Whether an entry was split.
    pub fn rmpadjust(&mut self, gpa: u64, size: Size, target_vmpl: u8, vmsa: bool) -> Result<bool, Failure> {
        // A VMPL may only adjust less privileged ones.
        if target_vmpl == 0 || size == Size::Large && vmsa {
            return Err(Failure::Permission);
        }
        let smashed = self.meet(gpa, size)?;
        let (index, _) = self.speaker(gpa).ok_or(Failure::NotMemory)?;
        let entry = &mut self.entries[index];
        if !entry.has(Entry::VALIDATED) {
            return Err(Failure::NotAssigned);
        }
        entry.0 = entry.0 & !Entry::VMSA | if vmsa { Entry::VMSA } else { 0 };
        Ok(smashed)
    }

    /// The checks that PVALIDATE and RMPADJUST share; whether a 2 MiB entry was split for a 4 KiB request.
    fn meet(&mut self, gpa: u64, size: Size) -> Result<bool, Failure> {
        let (state, page) = self.lookup(gpa).ok_or(Failure::NotMemory)?;
        match (state, size, page.size) {
            (State::Hypervisor, ..) => Err(Failure::NotAssigned),
            (_, Size::Large, Size::Small) => Err(Failure::SizeMismatch),
            (_, Size::Small, Size::Large) => Ok(self.smash(gpa)),
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};

    const RAM: u64 = 8 << 20;
    const ROM: u64 = 64 << 10;
    const HERE: u64 = 4 << 20;

    fn entries() -> Vec<Entry> {
        vec![Entry::default(); Rmp::entries_for(RAM, ROM)]
    }

    fn state(rmp: &Rmp<'_>, gpa: u64) -> State {
        rmp.lookup(gpa).unwrap().0
    }

    #[test]
    fn memory_is_ram_and_rom_and_not_the_vga_window() {
        let mut entries = entries();
        let rmp = Rmp::new(&mut entries, RAM, ROM).unwrap();
        for (gpa, memory) in [
            (0, true),
            (0x9_FFFF, true),
            (0xA_0000, false),
            (0xB_FFFF, false),
            (0xC_0000, true),
            (RAM - 1, true),
            (RAM, false),
            (ROM_END - ROM - 1, false),
            (ROM_END - ROM, true),
            (ROM_END - 1, true),
            (ROM_END, false),
            (u64::MAX, false),
        ] {
            assert_eq!(rmp.is_memory(gpa), memory, "{gpa:#x}");
        }
    }

    #[test]
    fn memory_above_4_gib_has_entries_of_its_own() {
        const GIB: u64 = 1 << 30;
        let mut entries = vec![Entry::default(); Rmp::entries_for(3 * GIB, ROM)];
        let mut rmp = Rmp::new(&mut entries, 3 * GIB, ROM).unwrap();
        assert!(!rmp.is_memory(2 * GIB) && rmp.is_memory(5 * GIB - 1) && !rmp.is_memory(5 * GIB));
        for gpa in [2 * GIB - LARGE_BYTES, 4 * GIB, 5 * GIB - LARGE_BYTES] {
            rmp.change(gpa, Size::Large, true).unwrap();
            assert_eq!(rmp.lookup(gpa + 0x5000), Some((State::Unvalidated, Page { gpa, size: Size::Large })));
        }
        assert_eq!(state(&rmp, ROM_END - 1), State::Hypervisor);
        assert_eq!(rmp.change(2 * GIB, Size::Large, true), Err(ChangeError::Address));
    }

    #[test]
    fn a_page_is_given_validated_once_rescinded_and_taken_back() {
        let mut entries = entries();
        let mut rmp = Rmp::new(&mut entries, RAM, ROM).unwrap();
        assert_eq!(rmp.pvalidate(HERE, Size::Small, true), Err(Failure::NotAssigned));
        rmp.change(HERE, Size::Small, true).unwrap();
        assert_eq!(state(&rmp, HERE), State::Unvalidated);
        assert_eq!(rmp.pvalidate(HERE, Size::Small, true), Ok(Validated { changed: true, smashed: false }));
        assert_eq!(rmp.pvalidate(HERE, Size::Small, true), Ok(Validated { changed: false, smashed: false }));
        for to_guest in [false, true] {
            assert_eq!(rmp.change(HERE, Size::Small, to_guest), Err(ChangeError::Validated));
        }
        assert!(rmp.pvalidate(HERE, Size::Small, false).unwrap().changed);
        rmp.change(HERE, Size::Small, false).unwrap();
        assert_eq!(state(&rmp, HERE), State::Hypervisor);
        assert_eq!(state(&rmp, HERE + 0x1000), State::Hypervisor);
    }

    #[test]
    fn sizes_that_differ_end_as_in_table_15_40() {
        let mut entries = entries();
        let mut rmp = Rmp::new(&mut entries, RAM, ROM).unwrap();
        rmp.change(HERE, Size::Large, true).unwrap();
        assert!(rmp.pvalidate(HERE, Size::Large, true).unwrap().changed);
        // 4 KiB on 2 MiB: smashed; the neighbours keep their state.
        assert_eq!(
            rmp.pvalidate(HERE + 0x3000, Size::Small, false),
            Ok(Validated { changed: true, smashed: true })
        );
        assert_eq!(state(&rmp, HERE + 0x3000), State::Unvalidated);
        assert_eq!(state(&rmp, HERE + 0x2000), State::Validated);
        assert_eq!(state(&rmp, HERE + LARGE_BYTES - 1), State::Validated);
        // 2 MiB on 4 KiB: FAIL_SIZEMISMATCH.
        assert_eq!(rmp.pvalidate(HERE, Size::Large, false), Err(Failure::SizeMismatch));
    }

    #[test]
    fn a_small_change_inside_a_large_page_splits_it() {
        let mut entries = entries();
        let mut rmp = Rmp::new(&mut entries, RAM, ROM).unwrap();
        rmp.change(HERE, Size::Large, true).unwrap();
        rmp.change(HERE + 0x5000, Size::Small, false).unwrap();
        assert_eq!(
            rmp.lookup(HERE + 0x5000),
            Some((State::Hypervisor, Page { gpa: HERE + 0x5000, size: Size::Small }))
        );
        assert_eq!(state(&rmp, HERE + 0x6000), State::Unvalidated);
        assert!(rmp.is_exposed(HERE, Size::Large));
        assert!(!rmp.is_exposed(HERE, Size::Small));
    }

    #[test]
    fn a_large_page_is_aligned_and_all_memory() {
        let mut entries = entries();
        let mut rmp = Rmp::new(&mut entries, RAM, ROM).unwrap();
        for gpa in [HERE + 0x1000, 0, RAM, ROM_END - ROM] {
            assert_eq!(rmp.change(gpa, Size::Large, true), Err(ChangeError::Address), "{gpa:#x}");
        }
    }

    #[test]
    fn the_vmsa_attribute_needs_a_validated_page_and_a_lower_vmpl() {
        let mut entries = entries();
        let mut rmp = Rmp::new(&mut entries, RAM, ROM).unwrap();
        rmp.change(HERE, Size::Small, true).unwrap();
        assert_eq!(rmp.rmpadjust(HERE, Size::Small, 1, true), Err(Failure::NotAssigned));
        rmp.pvalidate(HERE, Size::Small, true).unwrap();
        assert_eq!(rmp.rmpadjust(HERE, Size::Small, 0, true), Err(Failure::Permission));
        assert_eq!(rmp.rmpadjust(HERE, Size::Small, 1, true), Ok(false));
        assert!(rmp.is_vmsa(HERE));
    }

    #[test]
    fn a_page_is_launched_once() {
        let mut entries = entries();
        let mut rmp = Rmp::new(&mut entries, RAM, ROM).unwrap();
        rmp.launch(ROM_END - 0x1000).unwrap();
        assert_eq!(state(&rmp, ROM_END - 1), State::Validated);
        assert_eq!(rmp.launch(ROM_END - 0x1000), Err(ChangeError::Validated));
        assert_eq!(rmp.launch(RAM), Err(ChangeError::Address));
    }
}
