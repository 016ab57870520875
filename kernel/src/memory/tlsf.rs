//! Two-level segregated fit: free blocks lie in lists by size, and bit maps say which lists have any, so that taking a block
//! and giving it back cost the same however many there are (Masmano et al., "TLSF: a New Dynamic Memory Allocator for
//! Real-Time Systems", ECRTS 2004).
//!
//! A block is a header of two words, its size with a flag and the address of the block before it in memory, and what its
//! owner uses. In a free block, that begins with the addresses of the next and the previous block of the same list.

use core::alloc::Layout;
use core::iter::successors;
use core::ptr::{self, NonNull};

/// Addresses and sizes of blocks are multiples of this.
const GRAIN: usize = 16;
const HEADER: usize = 2 * size_of::<usize>();
/// A header and two links.
const SMALLEST: usize = 32;
/// Lists for each power of two.
const FINE: usize = 32;
const FINE_BITS: u32 = FINE.ilog2();
/// Powers of two, from that of [`SMALLEST`] to that of the largest virtual address (AMD64 APM vol. 2, §5.3: 48 bits).
const COARSE: usize = 48 - SMALLEST.ilog2() as usize;
const FREE: usize = 1;

/// The address of a header, in memory that a heap was given, or 0 for none. Only this file makes any.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Block(usize);

/// The words of a block.
#[derive(Clone, Copy)]
enum Word {
    Size,
    Before,
    NextFree,
    PreviousFree,
}

impl Block {
    fn get(self, word: Word) -> usize {
        // SAFETY: the word is of a block, which the heap that made the block alone reads and writes.
        unsafe { ptr::with_exposed_provenance::<usize>(self.0).add(word as usize).read() }
    }

    fn set(self, word: Word, value: usize) {
        // SAFETY: as for `get`.
        unsafe { ptr::with_exposed_provenance_mut::<usize>(self.0).add(word as usize).write(value) }
    }

    fn size(self) -> usize {
        self.get(Word::Size) & !FREE
    }

    fn is_free(self) -> bool {
        self.get(Word::Size) & FREE != 0
    }

    /// The block after this one in memory.
    fn after(self) -> Self {
        Self(self.0 + self.size())
    }

    /// Makes this a block of `size` bytes.
    fn mark(self, size: usize, flag: usize) {
        self.set(Word::Size, size | flag);
        self.after().set(Word::Before, self.0);
    }

    fn some(self) -> Option<Self> {
        (self.0 != 0).then_some(self)
    }
}

/// The lists of free blocks.
pub struct Tlsf {
    heads: [[Block; FINE]; COARSE],
    /// For each power of two, which of its lists have a block.
    fine: [u32; COARSE],
    /// Which powers of two have a list with a block.
    coarse: u64,
}

/// The list for blocks of `size` bytes.
fn list(size: usize) -> (usize, usize) {
    let power = size.ilog2();
    ((power - SMALLEST.ilog2()) as usize, (size >> (power - FINE_BITS)) % FINE)
}

impl Tlsf {
    /// A heap without memory.
    pub const fn new() -> Self {
        Self { heads: [[Block(0); FINE]; COARSE], fine: [0; COARSE], coarse: 0 }
    }

    /// Adds memory.
    ///
    /// # Safety
    /// The `length` bytes from `start` are readable and writable, and this heap's alone from now on.
    pub unsafe fn add(&mut self, start: *mut u8, length: usize) {
        let first = start.expose_provenance().next_multiple_of(GRAIN);
        // A header of size 0, never free, ends the memory.
        let last = (start.addr() + length).saturating_sub(HEADER) & !(GRAIN - 1);
        if last >= first + SMALLEST {
            Block(last).set(Word::Size, 0);
            Block(first).set(Word::Before, 0);
            self.insert(Block(first), last - first);
        }
    }

    /// Takes a block for `layout`; `None` if there is none of its size.
    pub fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        let align = layout.align().max(GRAIN);
        let size = layout.size().checked_add(HEADER)?.checked_next_multiple_of(GRAIN)?.max(SMALLEST);
        // What lies before an aligned block becomes a block of its own.
        let spare = if align > GRAIN { align + SMALLEST } else { 0 };
        let found = self.find(size.checked_add(spare)?)?;
        self.remove(found);
        let (mut block, mut left) = (found, found.size());
        let mut front = (found.0 + HEADER).next_multiple_of(align) - HEADER - found.0;
        if front != 0 {
            front += if front < SMALLEST { align } else { 0 };
            left -= front;
            block = Block(found.0 + front);
            block.mark(left, 0);
            self.insert(found, front);
        }
        if left >= size + SMALLEST {
            let rest = Block(block.0 + size);
            rest.set(Word::Before, block.0);
            self.insert(rest, left - size);
            left = size;
        }
        block.mark(left, 0);
        NonNull::new(ptr::with_exposed_provenance_mut(block.0 + HEADER))
    }

    /// Takes a block back and joins it with free neighbours.
    ///
    /// # Safety
    /// `start` came from [`Self::take`] of this heap, and nobody uses what lies there any more.
    ///
    /// # Panics
    /// If the block was given back already, or its neighbour does not know it.
    pub unsafe fn give(&mut self, start: NonNull<u8>) {
        let mut block = Block(start.addr().get() - HEADER);
        let (after, before) = (block.after(), Block(block.get(Word::Before)));
        assert!(!block.is_free() && after.get(Word::Before) == block.0, "no block of the heap");
        let mut size = block.size();
        if after.is_free() {
            self.remove(after);
            size += after.size();
        }
        if let Some(before) = before.some().filter(|before| before.is_free()) {
            self.remove(before);
            size += before.size();
            block = before;
        }
        self.insert(block, size);
    }

    /// A free block of `size` bytes or more.
    fn find(&self, size: usize) -> Option<Block> {
        // Every block of the lists from here on is large enough.
        let (coarse, fine) = list(size.checked_add((1 << (size.ilog2() - FINE_BITS)) - 1)?);
        let same = self.fine.get(coarse)? & (u32::MAX << fine);
        let above = self.coarse & (u64::MAX << coarse << 1);
        let place = match (same, above) {
            // The last resort: in its own list, some may be large enough.
            (0, 0) => {
                let (coarse, fine) = list(size);
                let next = |block: &Block| Block(block.get(Word::NextFree)).some();
                return successors(self.heads[coarse][fine].some(), next).find(|block| block.size() >= size);
            }
            (0, _) => {
                let coarse = above.trailing_zeros() as usize;
                (coarse, self.fine[coarse].trailing_zeros())
            }
            _ => (coarse, same.trailing_zeros()),
        };
        self.heads[place.0][place.1 as usize].some()
    }

    fn insert(&mut self, block: Block, size: usize) {
        let (coarse, fine) = list(size);
        let next = self.heads[coarse][fine];
        block.mark(size, FREE);
        block.set(Word::NextFree, next.0);
        block.set(Word::PreviousFree, 0);
        if let Some(next) = next.some() {
            next.set(Word::PreviousFree, block.0);
        }
        self.heads[coarse][fine] = block;
        self.fine[coarse] |= 1 << fine;
        self.coarse |= 1 << coarse;
    }

    fn remove(&mut self, block: Block) {
        let (next, previous) = (Block(block.get(Word::NextFree)), Block(block.get(Word::PreviousFree)));
        if let Some(next) = next.some() {
            next.set(Word::PreviousFree, previous.0);
        }
        if let Some(previous) = previous.some() {
            return previous.set(Word::NextFree, next.0);
        }
        let (coarse, fine) = list(block.size());
        self.heads[coarse][fine] = next;
        self.fine[coarse] &= !(u32::from(next == Block(0)) << fine);
        self.coarse &= !(u64::from(self.fine[coarse] == 0) << coarse);
    }
}

impl Default for Tlsf {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LENGTH: usize = 1 << 20;

    /// Memory that begins and ends anywhere.
    fn heap(memory: &mut [u8]) -> Tlsf {
        let mut heap = Tlsf::new();
        // SAFETY: the slice is not used beside the heap.
        unsafe { heap.add(memory.as_mut_ptr(), memory.len()) };
        heap
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// The largest block that there is, found by bisection.
    fn largest(heap: &mut Tlsf) -> usize {
        let (mut fits, mut fails) = (0, 1 << 40);
        while fails - fits > 1 {
            let size = (fits + fails) / 2;
            match heap.take(layout(size, 1)) {
                Some(block) => {
                    // SAFETY: taken just now.
                    unsafe { heap.give(block) };
                    fits = size;
                }
                None => fails = size,
            }
        }
        fits
    }

    proptest! {
        /// Blocks are aligned, keep what is written until they are given back, and leave the memory whole.
        #[test]
        fn blocks_are_disjoint_and_come_back_whole(
            shift in 0..40usize,
            steps in proptest::collection::vec((any::<u8>(), 0..5000usize, 0..13u32, any::<prop::sample::Index>()), 1..300),
        ) {
            let mut memory = vec![0u8; LENGTH + shift];
            let mut heap = heap(&mut memory[shift..]);
            let whole = largest(&mut heap);
            prop_assert!(whole > LENGTH - 3 * SMALLEST);
            let mut held: Vec<(NonNull<u8>, Layout, u8)> = Vec::new();
            for (fill, size, power, which) in steps {
                if fill % 2 == 0 || held.is_empty() {
                    let layout = layout(size, 1 << power);
                    let Some(block) = heap.take(layout) else { continue };
                    prop_assert!(block.as_ptr().addr().is_multiple_of(layout.align()));
                    // SAFETY: the block is of this layout.
                    unsafe { block.as_ptr().write_bytes(fill, size) };
                    held.push((block, layout, fill));
                } else {
                    let (block, layout, fill) = held.swap_remove(which.index(held.len()));
                    // SAFETY: taken, with this layout, and given back once.
                    unsafe {
                        let bytes = core::slice::from_raw_parts(block.as_ptr(), layout.size());
                        prop_assert!(bytes.iter().all(|byte| *byte == fill));
                        heap.give(block);
                    }
                }
            }
            for (block, ..) in held {
                // SAFETY: taken and not given back yet.
                unsafe { heap.give(block) };
            }
            prop_assert_eq!(largest(&mut heap), whole);
        }
    }

    #[test]
    fn what_is_left_is_found_to_the_last_grain() {
        let mut memory = vec![0u8; LENGTH];
        let mut heap = heap(&mut memory);
        let whole = largest(&mut heap);
        let first = heap.take(layout(10_000, 1)).unwrap();
        let rest = largest(&mut heap);
        assert!(rest + 10_000 + HEADER + GRAIN > whole, "{rest} of {whole}");
        let second = heap.take(layout(rest, 1)).unwrap();
        assert!(heap.take(layout(1, 1)).is_none());
        // SAFETY: both taken above.
        unsafe {
            heap.give(first);
            heap.give(second);
        }
        assert_eq!(largest(&mut heap), whole);
    }

    #[test]
    fn memory_in_pieces_is_all_used_and_never_joined() {
        let mut memory = vec![0u8; 3 * LENGTH];
        let (first, rest) = memory.split_at_mut(LENGTH);
        let mut heap = heap(first);
        // SAFETY: the slice is not used beside the heap. One that is too small for a block is left alone.
        unsafe {
            heap.add(rest.as_mut_ptr(), 2 * LENGTH);
            heap.add(rest.as_mut_ptr(), 40);
        }
        assert!((2 * LENGTH - 64..2 * LENGTH).contains(&largest(&mut heap)));
        assert!(heap.take(layout(2 * LENGTH - 64, 1)).is_some());
        assert!((LENGTH - 64..LENGTH).contains(&largest(&mut heap)));
    }

    #[test]
    fn requests_beyond_all_memory_find_nothing() {
        let mut memory = vec![0u8; LENGTH];
        let mut heap = heap(&mut memory);
        for (size, align) in [(isize::MAX as usize & !0xfff, 4096), (1 << 47, 1), (16, 1 << 40), (LENGTH, 1)]
        {
            assert!(heap.take(layout(size, align)).is_none(), "{size} {align}");
        }
        assert!(Tlsf::new().take(layout(1, 1)).is_none());
    }

    #[test]
    #[should_panic(expected = "no block of the heap")]
    fn a_block_given_back_twice_ends_it() {
        let mut memory = vec![0u8; LENGTH];
        let mut heap = heap(&mut memory);
        let block = heap.take(layout(100, 1)).unwrap();
        // SAFETY: the second time breaks the promise, and is noticed before anything is written.
        unsafe {
            heap.give(block);
            heap.give(block);
        }
    }
}
