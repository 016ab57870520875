//! Host-physical memory: who may touch which part of it, and how.
//!
//! [`Layout`] says where what lies; behind [`Layout::model_base`] are the model's image, its heap, the ROM's private pages,
//! the launch bundle and page tables.
//!
//! Nothing of the guest's is ever a Rust reference. A [`HostPage`] is a page that Rust does not manage; it is only read and written through volatile copies.

use super::stop::internal;
use snp_model::{PAGE_BYTES, Page, layout::Layout, rmp::Size};

/// Virtual address of host-physical 0. Bit 47 is an ordinary address bit with five levels of page tables.
pub const DIRECT_MAP: u64 = 1 << 47;

const PAGE: u64 = PAGE_BYTES as u64;

/// A page of RAM outside Rust's own memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HostPage(u64);

impl HostPage {
    /// Its host-physical address.
    pub const fn address(self) -> u64 {
        self.0
    }

    /// The page with this address, which an earlier [`HostPage`] had.
    ///
    /// # Safety
    /// The address came from [`HostPage::address`], possibly through a page table.
    pub unsafe fn from_address(address: u64) -> Self {
        Self(address & !(PAGE - 1))
    }

    fn at<T>(self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= PAGE_BYTES, "{offset:#x} is outside the page");
        (DIRECT_MAP + self.0 + offset as u64) as *mut T
    }

    /// Reads a number of 1, 2, 4 or 8 bytes.
    pub fn read<T: Number>(self, offset: usize) -> T {
        // SAFETY: `at` stays within the page, which is mapped RAM that no reference points into; any bytes
        // are a number.
        unsafe { core::ptr::read_volatile(self.at::<Unaligned<T>>(offset)).0 }
    }

    /// Writes a number of 1, 2, 4 or 8 bytes.
    pub fn write<T: Number>(self, offset: usize, value: T) {
        // SAFETY: as in `read`.
        unsafe { core::ptr::write_volatile(self.at::<Unaligned<T>>(offset), Unaligned(value)) }
    }

    /// Copies bytes out of the page.
    pub fn read_bytes(self, offset: usize, out: &mut [u8]) {
        assert!(offset + out.len() <= PAGE_BYTES, "{offset:#x} is outside the page");
        // SAFETY: within the page, which is mapped RAM; `out` is Rust's and so cannot overlap it.
        unsafe { core::ptr::copy_nonoverlapping(self.at::<u8>(0).add(offset), out.as_mut_ptr(), out.len()) }
    }

    /// Copies bytes into the page.
    pub fn write_bytes(self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= PAGE_BYTES, "{offset:#x} is outside the page");
        // SAFETY: as in `read_bytes`.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at::<u8>(0).add(offset), bytes.len()) }
    }

    /// A copy of the page.
    pub fn copy(self, out: &mut Page) {
        self.read_bytes(0, out);
    }

    /// Fills the page with zeroes.
    pub fn clear(self) {
        // SAFETY: the whole page is mapped RAM that no reference points into.
        unsafe { core::ptr::write_bytes(self.at::<u8>(0), 0, PAGE_BYTES) }
    }

    /// Whether the page is all zeroes.
    pub fn is_clear(self) -> bool {
        (0..PAGE_BYTES).step_by(8).all(|offset| self.read::<u64>(offset) == 0)
    }
}

/// A value that need not be aligned.
#[repr(C, packed)]
struct Unaligned<T>(T);

/// Numbers that any bytes are.
pub trait Number: Copy {}
impl Number for u8 {}
impl Number for u16 {}
impl Number for u32 {}
impl Number for u64 {}

/// Pages that the model has for itself, handed out one after the other and never taken back.
pub struct Pool {
    next: u64,
    end: u64,
}

impl Pool {
    /// The pool of the pages in `start..end`.
    ///
    /// # Safety
    /// The range is RAM that nothing else uses, page-aligned.
    pub const unsafe fn new(start: u64, end: u64) -> Self {
        Self { next: start, end }
    }

    /// Takes `count` pages in a row, zeroed.
    pub fn take(&mut self, count: usize) -> HostPage {
        let first = self.next;
        let end = first + count as u64 * PAGE;
        if end > self.end {
            internal!("the model is out of memory; start QEMU with as much as the launcher does");
        }
        self.next = end;
        for page in 0..count as u64 {
            HostPage(first + page * PAGE).clear();
        }
        HostPage(first)
    }
}

/// Where the guest's memory is.
pub struct GuestMemory {
    ram: Layout,
    rom_base: u64,
    rom: HostPage,
}

impl GuestMemory {
    /// Memory of a guest with this RAM and a ROM of `rom_bytes`.
    ///
    /// # Safety
    /// Host-physical memory below `ram.model_base()` is RAM that nothing else uses, as far as `ram` speaks of it.
    pub unsafe fn new(ram: Layout, rom_bytes: u64, pool: &mut Pool) -> Self {
        let rom = pool.take((rom_bytes / PAGE) as usize);
        Self { ram, rom_base: (1 << 32) - rom_bytes, rom }
    }

    /// Where RAM is.
    pub fn ram(&self) -> Layout {
        self.ram
    }

    /// The page that holds `gpa` while it is shared; the ROM is never shared.
    pub fn shared(&self, gpa: u64) -> Option<HostPage> {
        self.ram.shared(gpa & !(PAGE - 1)).map(HostPage)
    }

    /// The page that holds `gpa` while it is private.
    pub fn private(&self, gpa: u64) -> Option<HostPage> {
        let page = gpa & !(PAGE - 1);
        if (self.rom_base..1 << 32).contains(&gpa) {
            Some(HostPage(self.rom.0 + page - self.rom_base))
        } else {
            self.ram.private(page).map(HostPage)
        }
    }

    /// The 4 KiB pages of a page that is being shared or has been.
    pub fn shared_pages(&self, gpa: u64, size: Size) -> impl Iterator<Item = HostPage> + '_ {
        (gpa..gpa + size.bytes()).step_by(PAGE_BYTES).filter_map(|gpa| self.shared(gpa))
    }
}
