//! A heap that keeps nothing: every block is zeroed before it is free again (REQUIREMENTS A20).
//!
//! Buffers that held a prompt or a key are wiped by their owners; this catches what owners cannot, such as the block that
//! a growing vector leaves behind.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::asm;
use core::ptr;

/// Wipes blocks on their way back to the allocator `A`. Growing and shrinking always moves to a new block, so that it
/// wipes the old one (the default [`GlobalAlloc::realloc`] allocates, copies and frees).
pub struct Wiping<A> {
    inner: A,
    exhausted: fn(Layout),
}

impl<A> Wiping<A> {
    /// Wraps `inner`. `exhausted` is told of a request that `inner` cannot serve, before the caller is.
    pub const fn new(inner: A, exhausted: fn(Layout)) -> Self {
        Self { inner, exhausted }
    }

    /// The allocator inside.
    pub const fn inner(&self) -> &A {
        &self.inner
    }
}

// SAFETY: blocks come from and go to `A`, which keeps the contract; in between only their contents change, and only
// after the owner gave them up.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Wiping<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let block = unsafe { self.inner.alloc(layout) };
        if block.is_null() {
            (self.exhausted)(layout);
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up the block, whose size is the layout's.
        unsafe {
            wipe(block, layout.size());
            self.inner.dealloc(block, layout);
        }
    }
}

/// Zeroes memory for good: the compiler may not leave it out because nobody reads the zeros.
///
/// # Safety
/// The `size` bytes from `start` are writable and hold nothing that is used again.
pub unsafe fn wipe(start: *mut u8, size: usize) {
    // SAFETY: the caller's promise. The empty assembly may read the memory for all that the compiler knows.
    unsafe {
        ptr::write_bytes(start, 0, size);
        asm!("/* {0} */", in(reg) start, options(nostack, preserves_flags));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts blocks that come back with anything but zeros in them.
    struct Watch {
        dirty: AtomicUsize,
        freed: AtomicUsize,
    }

    // SAFETY: the system's allocator, watched.
    unsafe impl GlobalAlloc for Watch {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            if layout.size() > 1 << 30 {
                return ptr::null_mut();
            }
            // SAFETY: the caller's promise.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: the block is still ours to read.
            let bytes = unsafe { core::slice::from_raw_parts(block, layout.size()) };
            self.freed.fetch_add(1, Ordering::Relaxed);
            if bytes.iter().any(|byte| *byte != 0) {
                self.dirty.fetch_add(1, Ordering::Relaxed);
            }
            // SAFETY: the caller's promise.
            unsafe { System.dealloc(block, layout) };
        }
    }

    static EXHAUSTED: AtomicUsize = AtomicUsize::new(0);

    fn heap() -> Wiping<Watch> {
        let watch = Watch { dirty: AtomicUsize::new(0), freed: AtomicUsize::new(0) };
        Wiping::new(watch, |_| {
            EXHAUSTED.fetch_add(1, Ordering::Relaxed);
        })
    }

    #[test]
    fn a20_freed_and_outgrown_blocks_are_zero() {
        let heap = heap();
        let layout = Layout::from_size_align(100, 8).unwrap();
        // SAFETY: blocks are used within their layouts and freed once.
        unsafe {
            let block = heap.alloc(layout);
            block.write_bytes(0x5a, 100);
            let grown = heap.realloc(block, layout, 5000);
            assert_eq!(*grown.add(99), 0x5a);
            grown.write_bytes(0x5a, 5000);
            let shrunk = heap.realloc(grown, Layout::from_size_align(5000, 8).unwrap(), 10);
            assert_eq!(*shrunk.add(9), 0x5a);
            heap.dealloc(shrunk, Layout::from_size_align(10, 8).unwrap());
        }
        assert_eq!(heap.inner().freed.load(Ordering::Relaxed), 3);
        assert_eq!(heap.inner().dirty.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn exhaustion_is_reported() {
        // SAFETY: the request fails, so there is no block.
        let block = unsafe { heap().alloc(Layout::from_size_align(1 << 40, 8).unwrap()) };
        assert!(block.is_null());
        assert_eq!(EXHAUSTED.load(Ordering::Relaxed), 1);
    }
}
