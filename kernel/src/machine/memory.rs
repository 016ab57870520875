//! Takes the measured memory over from the host.

use super::cpus::Cpus;
use super::paging::{Mapper, Owner};
use super::shared::SharedRun;
use super::{cpus, ghcb, heap, instructions, paging};
use core::arch::asm;
use core::ops::Range;
use core::ptr;
use kernel::fatal::OrFatal;
use kernel::memory::accept::{self, Frames, Validation};
use kernel::memory::layout::{FRAME, Layout};
use kernel::snp::ghcb::{PageChange, PageState};

/// Every frame that was ever taken.
static FRAMES: Frames = Frames::new();

struct Taker {
    mapper: Mapper,
}

impl accept::Machine for Taker {
    fn change(&mut self, changes: &[PageChange]) -> OrFatal<()> {
        ghcb::with_fatal(|ghcb| ghcb.change_pages(changes))
    }

    fn map(&mut self, frame: u64, state: PageState) -> OrFatal<()> {
        let owner = match state {
            PageState::Private => Owner::Guest,
            PageState::Shared => Owner::Host,
        };
        self.mapper.map(frame, owner)
    }

    fn validate(&self, page: u64, large: bool) -> Validation {
        // SAFETY: the page was mapped as private just now, so nothing lies in it yet.
        let result = unsafe { instructions::pvalidate(page, large, true) };
        Validation::new(result.code, result.unchanged)
    }

    fn touch(&self, frame: u64) {
        for pages in (frame..frame + FRAME).step_by(32 * 4096) {
            // One load a page and nothing else, as there are 262,144 pages in a GiB: it crosses the boundary between two, and an
            // access across a boundary reads both lines (APM vol. 2, §7.3.2). None leaves these 32 pages.
            // SAFETY: the frame is mapped and valid; the bytes mean nothing.
            unsafe {
                asm!(
                    ".set touched, 4092; mov {0}, [{1}]; .rept 31; mov {0}, [{1} + touched]; .set touched, touched + 4096; .endr; mov {0}, [{1} + 131064]",
                    out(reg) _, in(reg) pages, options(nostack, readonly, preserves_flags),
                );
            }
        }
    }
}

/// Memory on its way from the host to the guest.
pub struct Memory<'a> {
    layout: &'a Layout,
    taker: Taker,
}

impl<'a> Memory<'a> {
    /// Takes over what is needed to go on with several CPUs: shared memory for devices, guest messages and GHCBs, page tables,
    /// and stacks.
    pub fn begin(layout: &'a Layout) -> OrFatal<(Self, SharedRun)> {
        let mut memory = Self { layout, taker: Taker { mapper: Mapper::first_gib() } };
        accept::share(&FRAMES, &mut memory.taker, layout.shared.clone())?;
        memory.accept(&layout.tables)?;
        let (start, size) = parts(&layout.tables);
        // SAFETY: the layout gives these frames to the page tables alone; they were validated and mapped just now.
        unsafe {
            ptr::write_bytes(start, 0, size);
            memory.taker.mapper.add_tables(layout.tables.start, layout.tables.end);
        }
        memory.accept(&layout.stacks)?;
        for frame in layout.stacks.clone().step_by(FRAME as usize) {
            memory.taker.mapper.split(frame)?;
        }
        // SAFETY: the frames were shared and mapped just now, and the layout gives them to nobody else.
        let mut shared = unsafe { SharedRun::new(layout.shared.start, parts(&layout.shared).1) };
        shared.clear();
        Ok((memory, shared))
    }

    /// Takes over everything else, by all CPUs, and fills the heap. What is returned is for the weights; its bytes are whatever
    /// they are.
    pub fn finish(mut self) -> OrFatal<&'static mut [u8]> {
        let layout = self.layout;
        for range in layout.heap.iter().chain([&layout.weights]) {
            self.accept(range)?;
        }
        // SAFETY: each frame was taken once and the layout's ranges do not overlap, so each range has one user.
        unsafe {
            layout.heap.iter().filter(|range| !range.is_empty()).for_each(|range| heap::add(range));
            // Whatever bytes the frames hold are values: no Rust allocation made them, so none of them is uninitialised.
            let (start, size) = parts(&layout.weights);
            Ok(core::slice::from_raw_parts_mut(start, size))
        }
    }

    fn accept(&mut self, range: &Range<u64>) -> OrFatal<()> {
        accept::accept(&FRAMES, &mut self.taker, &Cpus, range.clone())
    }
}

fn parts(range: &Range<u64>) -> (*mut u8, usize) {
    (range.start as *mut u8, (range.end - range.start) as usize)
}

/// Makes memory that was filled once unchangeable, for all CPUs.
pub fn freeze(bytes: &'static [u8]) -> OrFatal<()> {
    let start = bytes.as_ptr() as u64;
    (start..start + bytes.len() as u64).step_by(FRAME as usize).try_for_each(paging::make_read_only)?;
    cpus::tidy();
    Ok(())
}
