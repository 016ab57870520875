//! Page tables: one entry for each page, identity-mapped, and never both private and shared.
//!
//! The entry made the tables of the image (4 KiB pages, W^X, guards under the stacks). This adds RAM in pages of 2 MiB,
//! which is data only: writable, never executable. All entries use PAT slot 0, write-back, as RAM must be.

use super::cpus::{self, Cpus};
use super::{image, instructions};
use alloc::vec::Vec;
use inference::Workers;
use kernel::fatal::{Fatal, OrFatal};
use kernel::memory::layout::{FRAME, Layout, TABLE};
use kernel::memory::tables::{ADDRESS, LARGE, NO_EXECUTE, PRESENT, PRIVATE, Rules, WRITABLE};
use wire::termination::Termination;

/// Whose a mapping is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The guest alone.
    Guest,
    /// The host too.
    Host,
}

const fn flags(owner: Owner) -> u64 {
    let private = if matches!(owner, Owner::Guest) { PRIVATE } else { 0 };
    PRESENT | WRITABLE | NO_EXECUTE | private
}

/// Maps frames of 2 MiB; takes the tables that this needs from a run of validated, mapped, zeroed memory.
pub struct Mapper {
    next: u64,
    end: u64,
}

impl Mapper {
    /// A mapper that can map the first GiB only: its page directory is in the image.
    pub const fn first_gib() -> Self {
        Self { next: 0, end: 0 }
    }

    /// Gives the mapper memory for further tables.
    ///
    /// # Safety
    /// The run is mapped as private, zeroed, and nobody else uses it.
    pub unsafe fn add_tables(&mut self, start: u64, end: u64) {
        self.next = start;
        self.end = end;
    }

    /// Maps the frame at `address`, which was not mapped before.
    pub fn map(&mut self, address: u64, owner: Owner) -> OrFatal<()> {
        let pdpt = self.table_below(image::tables() + 8 * (address >> 39 & 0x1ff))?;
        let directory = self.table_below(pdpt + 8 * (address >> 30 & 0x1ff))?;
        let entry = directory + 8 * (address >> 21 & 0x1ff);
        if !address.is_multiple_of(FRAME) || read(entry) != 0 {
            return Err(Fatal::new(Termination::MemoryLayout, address));
        }
        write(entry, address | flags(owner) | LARGE);
        Ok(())
    }

    /// Maps the frame at `address`, which is mapped as a whole, page by page.
    pub fn split(&mut self, address: u64) -> OrFatal<()> {
        let (entry, large) = leaf(address)?;
        let frame = read(entry);
        if !large || self.next >= self.end {
            return Err(Fatal::new(Termination::MemoryLayout, address));
        }
        let table = self.next;
        self.next += TABLE;
        for page in 0..FRAME / TABLE {
            write(table + 8 * page, (frame & !LARGE) + page * TABLE);
        }
        write(entry, table | PRESENT | WRITABLE | PRIVATE);
        // SAFETY: every page of the frame is mapped as before.
        unsafe { instructions::invlpg(address) };
        Ok(())
    }

    fn table_below(&mut self, entry: u64) -> OrFatal<u64> {
        let found = read(entry);
        if found & PRESENT != 0 {
            return Ok(found & ADDRESS);
        }
        if self.next >= self.end {
            return Err(Fatal::new(Termination::MemoryLayout, entry));
        }
        let table = self.next;
        self.next += TABLE;
        write(entry, table | PRESENT | WRITABLE | PRIVATE);
        Ok(table)
    }
}

/// Takes the right to write from the frame at `address`. There is then no way back. Other CPUs may still know the old
/// mapping.
pub fn make_read_only(address: u64) -> OrFatal<()> {
    let (entry, large) = leaf(address)?;
    if !large {
        return Err(Fatal::new(Termination::PageTables, address));
    }
    write(entry, read(entry) & !WRITABLE);
    // SAFETY: the translation stays; a write that this forbids ends the VM.
    unsafe { instructions::invlpg(address) };
    Ok(())
}

/// The entry that maps `address`, and whether it maps a frame of 2 MiB.
fn leaf(address: u64) -> OrFatal<(u64, bool)> {
    let mut entry = image::tables() + 8 * (address >> 39 & 0x1ff);
    for shift in [30, 21, 12] {
        let table = read(entry);
        if table & PRESENT == 0 {
            return Err(Fatal::new(Termination::PageTables, address));
        }
        if table & LARGE != 0 {
            return Ok((entry, true));
        }
        entry = (table & ADDRESS) + 8 * (address >> shift & 0x1ff);
    }
    Ok((entry, false))
}

/// Removes the mapping of a page of 4 KiB, of which this CPU alone may know.
pub fn unmap(page: u64) -> OrFatal<()> {
    change(page, 0)
}

/// Gives the page of 4 KiB at `page` another entry.
fn change(page: u64, value: u64) -> OrFatal<()> {
    let (entry, large) = leaf(page)?;
    if large {
        return Err(Fatal::new(Termination::PageTables, page));
    }
    write(entry, value);
    // SAFETY: the callers answer for what is in the page; an access that the entry forbids ends the VM.
    unsafe { instructions::invlpg(page) };
    Ok(())
}

/// Walks the live tables and ends the VM if they are not as they must be. `weights` were frozen.
pub fn check(layout: &Layout, weights: &[u8]) -> OrFatal<()> {
    let start = weights.as_ptr() as u64;
    let frozen = start..start + weights.len() as u64;
    let absent: Vec<u64> = (0..Cpus.count()).flat_map(|number| cpus::stacks(number).guards()).collect();
    let rules = Rules {
        code: image::text(),
        shared: [image::ghcb()..image::ghcb() + TABLE, layout.shared.clone()],
        frozen: [image::constants(), frozen],
        absent: &absent,
    };
    rules.check(image::tables(), &read).map(|_| ())
}

/// Turns the mapping of a page of 4 KiB into a shared one.
///
/// # Safety
/// Nothing but volatile copies touches the page from here on.
pub unsafe fn share(page: u64) -> OrFatal<()> {
    change(page, page | flags(Owner::Host))
}

fn read(entry: u64) -> u64 {
    // SAFETY: callers pass addresses of entries of live page tables, which are mapped, aligned, and used by this module
    // and the processor only.
    unsafe { (entry as *const u64).read_volatile() }
}

fn write(entry: u64, value: u64) {
    // SAFETY: as in `read`; a new entry maps memory that had no mapping, or the callers above answer for it.
    unsafe { (entry as *mut u64).write_volatile(value) };
}
