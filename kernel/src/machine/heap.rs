//! The global allocator.

use super::terminate::terminate;
use core::alloc::Layout;
use core::ops::Range;
use embedded_alloc::TlsfHeap;
use kernel::fatal::Fatal;
use kernel::memory::heap::Wiping;
use wire::termination::Termination;

#[global_allocator]
static HEAP: Wiping<TlsfHeap> = Wiping::new(TlsfHeap::empty(), out_of_memory);

/// No part of the guest goes on without memory: limits in the manifest keep an honest load below it.
fn out_of_memory(layout: Layout) {
    terminate(Fatal::new(Termination::OutOfMemory, layout.size() as u64));
}

/// Gives the heap its memory.
///
/// # Safety
/// Called once; the range is validated, mapped, and nobody else uses it.
pub unsafe fn start(range: &Range<u64>) {
    // SAFETY: the caller's promise.
    unsafe { HEAP.inner().init(range.start as usize, (range.end - range.start) as usize) };
}
