//! Takes the measured memory over from the host.

use super::paging::{Mapper, Owner};
use super::shared::SharedRun;
use super::{ghcb, heap, instructions, paging};
use core::cell::RefCell;
use core::ops::Range;
use core::ptr;
use critical_section::Mutex;
use kernel::fatal::OrFatal;
use kernel::memory::accept::{self, Frames, Validation};
use kernel::memory::layout::{FRAME, Layout};
use kernel::snp::ghcb::{PageChange, PageState};

/// Every frame that was ever taken.
static FRAMES: Mutex<RefCell<Frames>> = Mutex::new(RefCell::new(Frames::new()));

/// What there is besides the heap.
pub struct Memory {
    /// For devices and guest messages.
    pub shared: SharedRun,
    /// For the weights; its bytes are whatever they are.
    pub weights: &'static mut [u8],
}

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

    fn validate(&mut self, page: u64, large: bool) -> Validation {
        // SAFETY: the page was mapped as private just now, so nothing lies in it yet.
        let result = unsafe { instructions::pvalidate(page, large, true) };
        Validation::new(result.code, result.unchanged)
    }

    fn touch(&mut self, page: u64) {
        for line in [page, page + 4095] {
            // SAFETY: the page is mapped and valid; the byte means nothing.
            unsafe { (line as *const u8).read_volatile() };
        }
    }
}

/// Takes over everything in `layout` and fills the heap. Called once: a second time no frame is left to take.
pub fn start(layout: &Layout, touch: bool) -> OrFatal<Memory> {
    critical_section::with(|section| {
        let mut frames = FRAMES.borrow(section).borrow_mut();
        let mut taker = Taker { mapper: Mapper::first_gib() };
        accept::share(&mut frames, &mut taker, layout.shared.clone())?;
        accept::accept(&mut frames, &mut taker, layout.tables.clone(), touch)?;
        let (start, size) = parts(&layout.tables);
        // SAFETY: the layout gives these frames to the page tables alone; they were validated and mapped just now.
        unsafe {
            ptr::write_bytes(start, 0, size);
            taker.mapper.add_tables(layout.tables.start, layout.tables.end);
        }
        for range in layout.heap.iter().chain([&layout.weights]) {
            accept::accept(&mut frames, &mut taker, range.clone(), touch)?;
        }
        // SAFETY: each frame was taken once and the layout's ranges do not overlap, so each range has one user.
        unsafe {
            layout.heap.iter().filter(|range| !range.is_empty()).for_each(|range| heap::add(range));
            let (start, size) = parts(&layout.shared);
            let mut shared = SharedRun::new(start as u64, size);
            shared.clear();
            // Whatever bytes the frames hold are values: no Rust allocation made them, so none of them is uninitialised.
            let (start, size) = parts(&layout.weights);
            Ok(Memory { shared, weights: core::slice::from_raw_parts_mut(start, size) })
        }
    })
}

fn parts(range: &Range<u64>) -> (*mut u8, usize) {
    (range.start as *mut u8, (range.end - range.start) as usize)
}

/// Makes memory that was filled once unchangeable.
pub fn freeze(bytes: &'static [u8]) {
    let start = bytes.as_ptr() as u64;
    for frame in (start..start + bytes.len() as u64).step_by(FRAME as usize) {
        paging::make_read_only(frame);
    }
}
