//! The division of one output among workers.
//!
//! A matrix product is computed by all workers at once, each for its own columns of the output. Rust's slices can
//! be split into disjoint mutable parts, but not by columns, and not by a closure that several workers share. Here
//! each part can be taken once, and the parts do not overlap: that makes handing them out sound.
use core::marker::PhantomData;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// More parts than this are not made: one bit each.
pub(crate) const MAX_PARTS: usize = 64 * WORDS;
const WORDS: usize = 8;

/// A row-major matrix, divided by columns into parts.
pub(crate) struct Bands<'a, T> {
    start: *mut T,
    width: usize,
    height: usize,
    /// Columns in each part but the last ones.
    step: usize,
    taken: [AtomicU64; WORDS],
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: sharing a `Bands` lets another thread take parts of the exclusively borrowed slice, which is sending it
// `&mut [T]`; that is allowed for `T: Send`. Which parts are taken is kept in an atomic.
unsafe impl<T: Send> Sync for Bands<'_, T> {}

impl<'a, T> Bands<'a, T> {
    /// Divides whole rows of `width` columns into so many parts, each but the last a multiple of `granule` columns.
    pub(crate) fn new(data: &'a mut [T], width: usize, parts: usize, granule: usize) -> Self {
        let height = data.len().checked_div(width).unwrap_or(0);
        let granules = width.div_ceil(granule.max(1));
        let step = granules.div_ceil(parts.clamp(1, MAX_PARTS)) * granule.max(1);
        let taken = [const { AtomicU64::new(0) }; WORDS];
        Self { start: data.as_mut_ptr(), width, height, step, taken, borrow: PhantomData }
    }

    /// How many parts there are.
    pub(crate) fn parts(&self) -> usize {
        if self.step == 0 { 0 } else { self.width.div_ceil(self.step) }
    }

    /// A part; `None` if it has been taken, has no columns, or does not exist.
    pub(crate) fn take(&self, part: usize) -> Option<Band<'_, T>> {
        if part >= MAX_PARTS {
            return None;
        }
        let first = part.checked_mul(self.step).filter(|first| *first < self.width)?;
        let columns = first..self.width.min(first + self.step);
        let bit = 1 << (part % 64);
        if self.taken[part / 64].fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return None;
        }
        Some(Band {
            start: self.start,
            stride: self.width,
            height: self.height,
            columns,
            borrow: PhantomData,
        })
    }
}

/// Some columns of a row-major matrix, exclusively.
pub(crate) struct Band<'a, T> {
    start: *mut T,
    stride: usize,
    height: usize,
    columns: Range<usize>,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T> Band<'_, T> {
    /// Which columns of the whole these are.
    pub(crate) fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// The number of rows.
    pub(crate) fn height(&self) -> usize {
        self.height
    }

    /// Where this band's part of the first row is, and how many elements further that of the next.
    pub(super) fn raw(&mut self) -> (*mut T, usize) {
        (self.start.wrapping_add(self.columns.start), self.stride)
    }

    /// This band's part of a row.
    pub(crate) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.height, "row {row} of {}", self.height);
        // SAFETY: `Bands::new` took `start` from an exclusive borrow, which outlives this value, of a slice of at
        // least `height` rows of `stride` elements; `row < height` and `columns` ends at or before `stride`, so the
        // range lies in that slice. No other band has these columns, because `Bands::take` gives each part once and
        // parts do not overlap, and no second slice of this band lives, because it is borrowed mutably meanwhile.
        unsafe {
            core::slice::from_raw_parts_mut(
                self.start.add(row * self.stride + self.columns.start),
                self.columns.len(),
            )
        }
    }
}

/// A slice, divided into parts of any lengths that are handed out one after the other.
pub(crate) struct Shares<'a, T> {
    start: *mut T,
    /// Where each part ends and the next begins.
    ends: &'a [usize],
    next: AtomicUsize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: as for `Bands`.
unsafe impl<T: Send> Sync for Shares<'_, T> {}

impl<'a, T> Shares<'a, T> {
    /// Divides a slice at these ascending places.
    pub(crate) fn new(data: &'a mut [T], ends: &'a [usize]) -> Self {
        assert!(ends.is_sorted() && ends.last().is_none_or(|end| *end <= data.len()));
        Self { start: data.as_mut_ptr(), ends, next: AtomicUsize::new(0), borrow: PhantomData }
    }

    /// The next part, and its number.
    #[expect(clippy::mut_from_ref, reason = "no two calls return the same part")]
    pub(crate) fn next(&self) -> Option<(usize, &mut [T])> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let end = *self.ends.get(index)?;
        let first = if index == 0 { 0 } else { self.ends[index - 1] };
        // SAFETY: `new` took `start` from an exclusive borrow, which outlives what is returned, of a slice of at least
        // `end` elements, and `first <= end` as the places ascend. Each number is fetched once, so no element is
        // handed out twice; the counter cannot come round, as each call takes more than a nanosecond.
        Some((index, unsafe { core::slice::from_raw_parts_mut(self.start.add(first), end - first) }))
    }
}

#[cfg(test)]
mod tests {
    use super::{Bands, MAX_PARTS, Shares};
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn the_parts_cover_everything_once() {
        for (width, height, parts, granule) in
            [(1, 1, 1, 1), (20, 3, 3, 8), (7, 2, 64, 1), (16, 1, 5, 8), (9, 2, 2, 16)]
        {
            let mut data = vec![0; width * height];
            let bands = Bands::new(&mut data, width, parts, granule);
            for part in 0..parts {
                let Some(mut band) = bands.take(part) else { continue };
                assert!(bands.take(part).is_none(), "given out twice");
                assert!(band.columns().start.is_multiple_of(granule));
                for row in 0..band.height() {
                    band.row(row).iter_mut().for_each(|element| *element += 1);
                }
            }
            assert!(bands.take(parts).is_none());
            assert_eq!(data, vec![1; width * height], "{width} {height} {parts} {granule}");
        }
    }

    #[test]
    fn shares_are_handed_out_once() {
        let mut data = [0; 10];
        let shares = Shares::new(&mut data, &[3, 3, 10]);
        while let Some((index, share)) = shares.next() {
            assert_eq!(share.len(), [3, 0, 7][index]);
            share.iter_mut().for_each(|element| *element += 1);
        }
        assert!(shares.next().is_none());
        assert_eq!(data, [1; 10]);
    }

    #[test]
    fn nothing_to_divide_gives_no_parts() {
        assert!(Bands::new(&mut Vec::<f32>::new(), 0, 4, 8).take(0).is_none());
        assert!(Bands::new(&mut [0.0; 4], 4, 0, 0).take(MAX_PARTS).is_none());
    }
}
