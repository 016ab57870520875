//! Nested page tables: what the processor enforces of the RMP.
//!
//! There are two trees. The shared one maps pages of the hypervisor, the private one the guest's validated
//! pages. With paging on, the guest chooses by the C-bit, which is just an address bit here: the root has the
//! private tree at the address of the C-bit. With paging off every access is private (APM §15.34.5): another
//! root has only that tree. Whatever a tree does not map ends in an NPF, and `exits` says what that means.

use super::memory::{HostPage, Pool};
use snp_model::{PAGE_BYTES, cpuid_page::C_BIT, rmp::Size};

const PRESENT: u64 = 1 << 0;
/// Present, writable and, as every nested access is a user's (APM §15.25.5), for users.
const TABLE: u64 = 0b111;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// One of the two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Pages of the hypervisor. Never executable: instruction fetches are private (APM §15.36.10).
    Shared,
    /// Pages of the guest.
    Private,
}

/// Both trees and both roots.
pub struct Npt {
    paged_root: HostPage,
    unpaged_root: HostPage,
    shared: HostPage,
    private: HostPage,
    /// Tables that a large leaf replaced, linked by their first quadword.
    free: Option<HostPage>,
    stale: bool,
}

impl Npt {
    /// Empty trees.
    pub fn new(pool: &mut Pool) -> Self {
        let [paged_root, unpaged_root, shared, private] = [(); 4].map(|()| pool.take(1));
        const C_BIT_SLOT: usize = (1usize << C_BIT >> 48) * 8;
        paged_root.write(0, shared.address() | TABLE);
        paged_root.write(C_BIT_SLOT, private.address() | TABLE);
        unpaged_root.write(0, private.address() | TABLE);
        Self { paged_root, unpaged_root, shared, private, free: None, stale: true }
    }

    /// The root for a vCPU with paging on or off.
    pub fn root(&self, paging: bool) -> u64 {
        if paging { self.paged_root.address() } else { self.unpaged_root.address() }
    }

    /// Whether a translation was removed since the last call, so that the processors' must go too.
    pub fn take_stale(&mut self) -> bool {
        core::mem::take(&mut self.stale)
    }

    /// Whether the page of `gpa` is mapped in a tree.
    pub fn maps(&self, side: Side, gpa: u64) -> bool {
        let mut table = self.tree(side);
        for shift in [39, 30, 21, 12] {
            let entry: u64 = table.read(index(gpa, shift));
            if entry & PRESENT == 0 {
                return false;
            }
            if shift == 12 || entry & LARGE != 0 {
                return true;
            }
            // SAFETY: an entry that is present and no leaf holds the address of a table of this module.
            table = unsafe { HostPage::from_address(entry & ADDRESS) };
        }
        false
    }

    /// Maps the page at `gpa`.
    pub fn map(&mut self, side: Side, gpa: u64, size: Size, to: HostPage, pool: &mut Pool) {
        let rights = if side == Side::Shared { TABLE | NO_EXECUTE } else { TABLE };
        let large = if size == Size::Large { LARGE } else { 0 };
        self.set(side, gpa, size, to.address() | rights | large, pool);
    }

    /// Removes the page at `gpa`, if it is mapped. A larger leaf around it is split.
    pub fn unmap(&mut self, side: Side, gpa: u64, size: Size, pool: &mut Pool) {
        if size == Size::Large || self.maps(side, gpa) {
            self.set(side, gpa, size, 0, pool);
        }
    }

    fn tree(&self, side: Side) -> HostPage {
        match side {
            Side::Shared => self.shared,
            Side::Private => self.private,
        }
    }

    fn set(&mut self, side: Side, gpa: u64, size: Size, leaf: u64, pool: &mut Pool) {
        let leaf_shift = if size == Size::Large { 21 } else { 12 };
        let mut table = self.tree(side);
        for shift in [39, 30, 21, 12] {
            let slot = index(gpa, shift);
            let entry: u64 = table.read(slot);
            if shift == leaf_shift {
                if size == Size::Large && entry & PRESENT != 0 && entry & LARGE == 0 {
                    // SAFETY: the entry holds the address of a table of this module, which nothing uses from
                    // now on.
                    self.give_back(unsafe { HostPage::from_address(entry & ADDRESS) });
                }
                table.write(slot, leaf);
                self.stale |= entry & PRESENT != 0;
                return;
            }
            table = if entry & PRESENT == 0 {
                let new = self.take(pool);
                table.write(slot, new.address() | TABLE);
                new
            } else if entry & LARGE != 0 {
                let new = self.take(pool);
                for page in 0..512 {
                    new.write(page * 8, (entry & !LARGE) + (page * PAGE_BYTES) as u64);
                }
                table.write(slot, new.address() | TABLE);
                self.stale = true;
                new
            } else {
                // SAFETY: as in `maps`.
                unsafe { HostPage::from_address(entry & ADDRESS) }
            };
        }
    }

    fn take(&mut self, pool: &mut Pool) -> HostPage {
        let Some(table) = self.free else { return pool.take(1) };
        let next: u64 = table.read(0);
        // SAFETY: `give_back` wrote the address of an earlier table, or 0.
        self.free = (next != 0).then(|| unsafe { HostPage::from_address(next) });
        table.clear();
        table
    }

    fn give_back(&mut self, table: HostPage) {
        table.write(0, self.free.map_or(0, HostPage::address));
        self.free = Some(table);
    }
}

fn index(gpa: u64, shift: u32) -> usize {
    (gpa >> shift & 511) as usize * 8
}
