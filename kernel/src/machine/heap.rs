//! The global allocator: a TLSF heap over the ranges that it is given, each freed block wiped.
//!
//! It starts with a few pages of the image, for the manifest; that says how much memory there is.

use super::terminate::terminate;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ops::Range;
use core::ptr::{self, NonNull};
use kernel::fatal::Fatal;
use kernel::lock::Lock;
use kernel::memory::heap::Wiping;
use kernel::memory::tlsf::Tlsf;
use wire::termination::Termination;

/// The manifest's 64 KiB, decoded, and what decoding leaves behind.
const FIRST_BYTES: usize = 512 * 1024;

#[global_allocator]
static HEAP: Wiping<Heap> = Wiping::new(Heap, out_of_memory);

/// Apart from `HEAP`, which is not all zeros and so takes room in the image.
static LISTS: Lock<Tlsf> = Lock::new(Tlsf::new());

static FIRST: FirstPages = FirstPages(UnsafeCell::new([0; FIRST_BYTES]));

#[repr(align(4096))]
struct FirstPages(UnsafeCell<[u8; FIRST_BYTES]>);

// SAFETY: nothing but the heap, which is given the pages once, touches them.
unsafe impl Sync for FirstPages {}

struct Heap;

// SAFETY: `Tlsf` hands out disjoint blocks of the given layout, within the memory that it was given.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LISTS.with(|heap| heap.take(layout)).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller gives back a block of this heap.
            LISTS.with(|heap| unsafe { heap.give(block) });
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
    unsafe { LISTS.with(|heap| heap.add(FIRST.0.get().cast(), FIRST_BYTES)) };
}

/// Gives the heap more memory.
///
/// # Safety
/// The range is validated, mapped, and nobody else uses it.
pub unsafe fn add(range: &Range<u64>) {
    // SAFETY: the caller's promise.
    unsafe { LISTS.with(|heap| heap.add(range.start as *mut u8, (range.end - range.start) as usize)) };
}
