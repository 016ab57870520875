//! The global allocator: a TLSF heap over the ranges that it is given, each freed block wiped.
//!
//! It starts with a few pages of the image, for the manifest; that says how much memory there is.

use super::terminate::terminate;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::{RefCell, UnsafeCell};
use core::ops::Range;
use core::ptr::{self, NonNull};
use critical_section::Mutex;
use kernel::fatal::Fatal;
use kernel::memory::heap::Wiping;
use rlsf::Tlsf;
use wire::termination::Termination;

const CLASSES: usize = usize::BITS as usize;
/// The manifest's 64 KiB, decoded, and what decoding leaves behind.
const FIRST_BYTES: usize = 512 * 1024;

#[global_allocator]
static HEAP: Wiping<Heap> = Wiping::new(Heap(Mutex::new(RefCell::new(Tlsf::new()))), out_of_memory);

static FIRST: FirstPages = FirstPages(UnsafeCell::new([0; FIRST_BYTES]));

#[repr(align(4096))]
struct FirstPages(UnsafeCell<[u8; FIRST_BYTES]>);

// SAFETY: nothing but the heap, which is given the pages once, touches them.
unsafe impl Sync for FirstPages {}

struct Heap(Mutex<RefCell<Tlsf<'static, usize, u16, CLASSES, 16>>>);

impl Heap {
    /// Adds memory.
    ///
    /// # Safety
    /// The range is mapped, and nobody else uses it.
    unsafe fn add(&self, start: *mut u8, size: usize) {
        let Some(start) = NonNull::new(start) else { return };
        let block = NonNull::slice_from_raw_parts(start, size);
        // SAFETY: the caller's promise; the memory stays for ever.
        critical_section::with(|section| unsafe {
            self.0.borrow(section).borrow_mut().insert_free_block_ptr(block)
        });
    }
}

// SAFETY: `Tlsf` hands out disjoint blocks of the given layout, within the memory that it was given.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        critical_section::with(|section| self.0.borrow(section).borrow_mut().allocate(layout))
            .map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller gives back a block of this heap with its layout.
            critical_section::with(|section| unsafe {
                self.0.borrow(section).borrow_mut().deallocate(block, layout.align());
            });
        }
    }
}

/// No part of the guest goes on without memory: limits in the manifest keep an honest load below it.
fn out_of_memory(layout: Layout) {
    terminate(Fatal::new(Termination::OutOfMemory, layout.size() as u64));
}

/// Gives the heap its first pages.
///
/// # Safety
/// Called once.
pub unsafe fn start() {
    // SAFETY: the pages are the heap's alone.
    unsafe { HEAP.inner().add(FIRST.0.get().cast(), FIRST_BYTES) };
}

/// Gives the heap more memory.
///
/// # Safety
/// The range is validated, mapped, and nobody else uses it.
pub unsafe fn add(range: &Range<u64>) {
    // SAFETY: the caller's promise.
    unsafe { HEAP.inner().add(range.start as *mut u8, (range.end - range.start) as usize) };
}
