//! Quantised weights as the kernels read them: sixteen rows side by side.
//!
//! A *tile* holds one block of each of sixteen rows, in as many bytes as the file has for them, but ordered so that a
//! vector load gives the same field of all rows: scales as sixteen halves, small scales as sixteen bytes, and weights
//! as sixteen times four bytes. [`super::pack`] brings a file's blocks into this order.
use super::simd::{BLOCK, ROWS, Simd, array};
use core::marker::PhantomData;

/// How a type's tiles are read. A tile is `OUTER` times `INNER` blocks of 32 columns.
///
/// A weight is `scale · (quant − 2^OFFSET) − min`, where quants are unsigned numbers of `BITS` bits. The functions are
/// unsafe because the processor must have the instructions, and the tile must be whole.
pub(super) trait Format: 'static {
    /// Bytes of a tile.
    const BYTES: usize;
    const OUTER: usize = 1;
    const INNER: usize = 1;
    const BITS: u32;
    /// Nothing is subtracted from quants where it is 0.
    const OFFSET: u32 = 0;
    /// Whether each half of a block of 32 has a scale, and a minimum, of its own.
    const HALVES: bool = false;
    /// Whether there are minima.
    const MINS: bool = false;
    /// Whether tiles come from memory, and not from a cache.
    const STREAMED: bool = true;
    /// Where the high nibbles of quants of eight bits are, if only the low ones are where quants are.
    const HIGH: usize = 0;

    /// The quants of columns `4 k` to `4 k + 3` of a block.
    unsafe fn quants<S: Simd, const I: usize>(tile: *const u8, outer: usize, k: usize) -> S::B;
    /// The scales of a block's halves: in types that say nothing else, one for the whole block, of six bits where a tile
    /// has eight of them.
    #[inline(always)]
    unsafe fn scales<S: Simd, const I: usize>(tile: *const u8, outer: usize) -> [S::F; 2] {
        // SAFETY: every tile begins with a half for each row. `outer` is below `OUTER` and `I` below 2.
        unsafe {
            match Self::OUTER {
                4 => k4_scale::<S>(tile, outer * 2 + I, false),
                _ => [S::from_f16(tile); 2],
            }
        }
    }
    /// The minima of a block's halves, if there are any; one for the whole block, which the file adds, in types that say
    /// nothing else.
    #[inline(always)]
    unsafe fn mins<S: Simd, const I: usize>(tile: *const u8, outer: usize) -> [S::F; 2] {
        // SAFETY: another half for each row follows, and every tile is longer than two. The rest is as above.
        unsafe {
            match Self::OUTER {
                4 => k4_scale::<S>(tile, outer * 2 + I, true),
                _ => [S::sub(S::splat(0.0), S::from_f16(tile.add(HALF))); 2],
            }
        }
    }
}

/// Bytes of a field of one half for each row, and of one four of bytes.
const HALF: usize = 2 * ROWS;
const FOUR: usize = 4 * ROWS;

pub(super) struct Q8_0;
pub(super) struct Q4_0;
pub(super) struct Q4_1;
pub(super) struct Q5_0;
pub(super) struct Q5_1;
pub(super) struct Q2K;
pub(super) struct Q3K;
pub(super) struct Q4K;
pub(super) struct Q5K;
pub(super) struct Q6K;

/// The nibbles of a block of 32, the second half's in the high ones.
#[inline(always)]
unsafe fn nibbles<S: Simd>(fours: *const u8, k: usize) -> S::B {
    // SAFETY: the caller's; `k` is below 8, and the fours are 4.
    unsafe {
        let both = S::bytes(fours.add(k % 4 * FOUR));
        S::and(if k < 4 { both } else { S::right(both, 4) }, 15)
    }
}

/// Q5_0 and Q5_1: bit `k` of each byte, in place of the fifth bit.
#[inline(always)]
unsafe fn fifth_bits<S: Simd>(four: *const u8, k: usize) -> S::B {
    // SAFETY: the caller's; `k` is below 8.
    unsafe {
        let bits = S::bytes(four);
        S::and(if k < 4 { S::left(bits, 4 - k as u32) } else { S::right(bits, k as u32 - 4) }, 16)
    }
}

impl Format for Q8_0 {
    const BYTES: usize = 34 * ROWS;
    const BITS: u32 = 8;
    const OFFSET: u32 = 7;

    #[inline(always)]
    unsafe fn quants<S: Simd, const I: usize>(tile: *const u8, _: usize, k: usize) -> S::B {
        // SAFETY: scales and then eight fours.
        unsafe { S::bytes(tile.add(HALF + k * FOUR)) }
    }
}

impl Format for Q4_0 {
    const BYTES: usize = 18 * ROWS;
    const BITS: u32 = 4;
    const OFFSET: u32 = 3;

    #[inline(always)]
    unsafe fn quants<S: Simd, const I: usize>(tile: *const u8, _: usize, k: usize) -> S::B {
        // SAFETY: scales and then four fours.
        unsafe { nibbles::<S>(tile.add(HALF), k) }
    }
}

impl Format for Q4_1 {
    const BYTES: usize = 20 * ROWS;
    const BITS: u32 = 4;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn quants<S: Simd, const I: usize>(tile: *const u8, _: usize, k: usize) -> S::B {
        // SAFETY: scales, minima, and then four fours.
        unsafe { nibbles::<S>(tile.add(2 * HALF), k) }
    }
}

impl Format for Q5_0 {
    const BYTES: usize = 22 * ROWS;
    const BITS: u32 = 5;
    const OFFSET: u32 = 4;

    #[inline(always)]
    unsafe fn quants<S: Simd, const I: usize>(tile: *const u8, _: usize, k: usize) -> S::B {
        // SAFETY: scales, one four of fifth bits, and then four fours.
        unsafe { S::or(nibbles::<S>(tile.add(HALF + FOUR), k), fifth_bits::<S>(tile.add(HALF), k)) }
    }
}

impl Format for Q5_1 {
    const BYTES: usize = 24 * ROWS;
    const BITS: u32 = 5;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn quants<S: Simd, const I: usize>(tile: *const u8, _: usize, k: usize) -> S::B {
        // SAFETY: scales, minima, one four of fifth bits, and then four fours.
        unsafe { S::or(nibbles::<S>(tile.add(2 * HALF + FOUR), k), fifth_bits::<S>(tile.add(2 * HALF), k)) }
    }
}

/// Q4_K and Q5_K: the six-bit scale (or, from `fields` 4 on, minimum) of block `j`, times `d` (or `dmin`).
/// `get_scale_min_k4` in `ggml-quants.c` has the packing.
#[inline(always)]
unsafe fn k4_scale<S: Simd>(tile: *const u8, j: usize, min: bool) -> [S::F; 2] {
    // SAFETY: `d`, `dmin`, and then twelve fields of a byte for each row; `j` is below 8.
    unsafe {
        let fields = tile.add(2 * HALF).cast::<[u8; ROWS]>();
        let own = if min { j + 4 } else { j };
        let mut small = fields.add(own).read();
        if j < 4 {
            for row in 0..ROWS {
                small[row] &= 63;
            }
        } else {
            let (low, high) = (fields.add(j + 4).read(), fields.add(own - 4).read());
            for row in 0..ROWS {
                let low = if min { low[row] >> 4 } else { low[row] & 15 };
                small[row] = low | high[row] >> 6 << 4;
            }
        }
        let d = S::from_f16(if min { tile.add(HALF) } else { tile });
        [S::mul(d, S::from_u8(small)); 2]
    }
}

/// Q4_K and Q5_K: the nibbles, of which 32 bytes hold two blocks.
#[inline(always)]
unsafe fn k4_nibbles<S: Simd, const I: usize>(fours: *const u8, outer: usize, k: usize) -> S::B {
    // SAFETY: the caller's; 32 fours.
    unsafe {
        let both = S::bytes(fours.add((outer * 8 + k) * FOUR));
        S::and(if I == 0 { both } else { S::right(both, 4) }, 15)
    }
}

impl Format for Q4K {
    const BYTES: usize = 144 * ROWS;
    const OUTER: usize = 4;
    const INNER: usize = 2;
    const BITS: u32 = 4;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn quants<S: Simd, const I: usize>(tile: *const u8, outer: usize, k: usize) -> S::B {
        // SAFETY: `d`, `dmin`, twelve bytes of scales, and then the nibbles.
        unsafe { k4_nibbles::<S, I>(tile.add(2 * HALF + 12 * ROWS), outer, k) }
    }
}

impl Format for Q5K {
    const BYTES: usize = 176 * ROWS;
    const OUTER: usize = 4;
    const INNER: usize = 2;
    const BITS: u32 = 5;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn quants<S: Simd, const I: usize>(tile: *const u8, outer: usize, k: usize) -> S::B {
        // SAFETY: `d`, `dmin`, twelve bytes of scales, eight fours of fifth bits, and then the nibbles.
        unsafe {
            let fours = tile.add(2 * HALF + 12 * ROWS);
            let fifth = S::right(S::bytes(fours.add(k * FOUR)), (outer * 2 + I) as u32);
            let fifth = S::left(S::and(fifth, 1), 4);
            S::or(k4_nibbles::<S, I>(fours.add(8 * FOUR), outer, k), fifth)
        }
    }
}

impl Format for Q6K {
    const BYTES: usize = 210 * ROWS;
    const OUTER: usize = 2;
    const INNER: usize = 4;
    const BITS: u32 = 6;
    const OFFSET: u32 = 5;
    const HALVES: bool = true;

    #[inline(always)]
    unsafe fn quants<S: Simd, const I: usize>(tile: *const u8, outer: usize, k: usize) -> S::B {
        // SAFETY: `d`, sixteen bytes of scales, 32 fours of nibbles, and then 16 fours of upper pairs.
        unsafe {
            let low = tile.add(HALF + 16 * ROWS);
            let nibble = S::bytes(low.add((outer * 16 + I % 2 * 8 + k) * FOUR));
            let nibble = S::and(if I < 2 { nibble } else { S::right(nibble, 4) }, 15);
            let pair = S::bytes(low.add((32 + outer * 8 + k) * FOUR));
            let pair = match I {
                0 => S::left(pair, 4),
                1 => S::left(pair, 2),
                2 => pair,
                _ => S::right(pair, 2),
            };
            S::or(nibble, S::and(pair, 0x30))
        }
    }

    #[inline(always)]
    unsafe fn scales<S: Simd, const I: usize>(tile: *const u8, outer: usize) -> [S::F; 2] {
        // SAFETY: sixteen fields of a byte for each row, two for each block.
        unsafe {
            let (d, small) = (S::from_f16(tile), tile.add(HALF + (outer * 4 + I) * 2 * ROWS));
            [S::mul(d, S::from_i8(small)), S::mul(d, S::from_i8(small.add(ROWS)))]
        }
    }
}

/// Q2_K and Q3_K: the pairs of bits, of which 32 bytes hold four blocks.
#[inline(always)]
unsafe fn pairs<S: Simd, const I: usize>(fours: *const u8, outer: usize, k: usize) -> S::B {
    // SAFETY: the caller's; 16 fours.
    unsafe { S::and(S::right(S::bytes(fours.add((outer * 8 + k) * FOUR)), 2 * I as u32), 3) }
}

impl Format for Q3K {
    const BYTES: usize = 110 * ROWS;
    const OUTER: usize = 2;
    const INNER: usize = 4;
    const BITS: u32 = 3;
    const OFFSET: u32 = 2;
    const HALVES: bool = true;

    #[inline(always)]
    unsafe fn quants<S: Simd, const I: usize>(tile: *const u8, outer: usize, k: usize) -> S::B {
        // SAFETY: `d`, twelve bytes of scales, eight fours of third bits, and then the pairs.
        unsafe {
            let fours = tile.add(HALF + 12 * ROWS);
            let third = S::right(S::bytes(fours.add(k * FOUR)), (outer * 4 + I) as u32);
            let third = S::left(S::and(third, 1), 2);
            S::or(pairs::<S, I>(fours.add(8 * FOUR), outer, k), third)
        }
    }

    #[inline(always)]
    unsafe fn scales<S: Simd, const I: usize>(tile: *const u8, outer: usize) -> [S::F; 2] {
        // SAFETY: twelve fields of a byte for each row: nibbles of sixteen scales, and then their upper pairs.
        unsafe {
            let d = S::from_f16(tile);
            let fields = tile.add(HALF).cast::<[u8; ROWS]>();
            array!(2, d, half => {
                let index = (outer * 4 + I) * 2 + half;
                let (mut small, high) = (fields.add(index % 8).read(), fields.add(8 + index % 4).read());
                for row in 0..ROWS {
                    let low = small[row] >> (index / 8 * 4) & 15;
                    small[row] = low | (high[row] >> (index / 4 * 2) & 3) << 4;
                }
                S::mul(d, S::sub(S::from_u8(small), S::splat(32.0)))
            })
        }
    }
}

impl Format for Q2K {
    const BYTES: usize = 84 * ROWS;
    const OUTER: usize = 2;
    const INNER: usize = 4;
    const BITS: u32 = 2;
    const HALVES: bool = true;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn quants<S: Simd, const I: usize>(tile: *const u8, outer: usize, k: usize) -> S::B {
        // SAFETY: `d`, `dmin`, sixteen bytes of scales and minima, and then the pairs.
        unsafe { pairs::<S, I>(tile.add(2 * HALF + 16 * ROWS), outer, k) }
    }

    #[inline(always)]
    unsafe fn scales<S: Simd, const I: usize>(tile: *const u8, outer: usize) -> [S::F; 2] {
        // SAFETY: sixteen fields of a byte for each row, two for each block.
        unsafe {
            let (d, small) = (S::from_f16(tile), tile.add(2 * HALF + (outer * 4 + I) * 2 * ROWS));
            array!(2, d, half => {
                let mut small = small.add(half * ROWS).cast::<[u8; ROWS]>().read();
                for row in 0..ROWS {
                    small[row] &= 15;
                }
                S::mul(d, S::from_u8(small))
            })
        }
    }

    #[inline(always)]
    unsafe fn mins<S: Simd, const I: usize>(tile: *const u8, outer: usize) -> [S::F; 2] {
        // SAFETY: as above.
        unsafe {
            let (d, small) = (S::from_f16(tile.add(HALF)), tile.add(2 * HALF + (outer * 4 + I) * 2 * ROWS));
            array!(2, d, half => {
                let mut small = small.add(half * ROWS).cast::<[u8; ROWS]>().read();
                for row in 0..ROWS {
                    small[row] >>= 4;
                }
                S::mul(d, S::from_u8(small))
            })
        }
    }
}

/// A format whose quants have been brought to a byte each, and scales and minima to single precision, once for all
/// tokens of a large batch. One tile of it is 16 rows of 32 columns.
pub(super) struct Unpacked<S, F>(PhantomData<(S, F)>);

const VECTOR: usize = 4 * ROWS;
const SCALES: usize = 8 * FOUR;
/// Bytes of such a tile at most; the last of them are high nibbles.
pub(super) const UNPACKED_BYTES: usize = END + 8 * FOUR;
const END: usize = SCALES + 4 * VECTOR;
/// Elements of a tile.
pub(super) const UNPACKED_ELEMENTS: usize = BLOCK;

impl<S: Simd, F: Format> Unpacked<S, F> {
    /// How far quants are brought up in their byte. Their scale is that much smaller, which loses nothing.
    const RAISED: u32 = if S::RAISES && F::OFFSET > 0 { 7 - F::OFFSET } else { 0 };

    /// Unpacks one block of sixteen rows.
    ///
    /// # Safety
    /// The processor has the instructions, the tile is whole, and there is room for a tile at `to`.
    #[inline(always)]
    pub(super) unsafe fn fill<const I: usize>(tile: *const u8, outer: usize, to: *mut u8) {
        // SAFETY: the caller's.
        unsafe {
            for k in 0..8 {
                let mut quants = S::left(F::quants::<S, I>(tile, outer, k), Self::RAISED);
                if Self::HIGH > 0 {
                    S::store_bytes(S::and(S::right(quants, 4), 15), to.add(END + k * FOUR));
                    quants = S::and(quants, 15);
                }
                S::store_bytes(quants, to.add(k * FOUR));
            }
            let scales = F::scales::<S, I>(tile, outer);
            let mins = if F::MINS { F::mins::<S, I>(tile, outer) } else { scales };
            let to = to.add(SCALES).cast::<f32>();
            for half in 0..if F::HALVES { 2 } else { 1 } {
                let scale = S::mul(scales[half], S::splat(1.0 / (1 << Self::RAISED) as f32));
                S::store(scale, to.add(half * ROWS));
                if F::MINS {
                    S::store(mins[half], to.add((2 + half) * ROWS));
                }
            }
        }
    }
}

impl<S: Simd, F: Format> Format for Unpacked<S, F> {
    const STREAMED: bool = false;
    const HIGH: usize = if !S::RAISES && F::BITS == 8 { END } else { 0 };
    const BYTES: usize = if Self::HIGH > 0 { UNPACKED_BYTES } else { END };
    const BITS: u32 = F::BITS + Self::RAISED;
    const OFFSET: u32 = F::OFFSET + Self::RAISED;
    const HALVES: bool = F::HALVES;
    const MINS: bool = F::MINS;

    #[inline(always)]
    unsafe fn quants<V: Simd, const I: usize>(tile: *const u8, _: usize, k: usize) -> V::B {
        // SAFETY: eight fours.
        unsafe { V::bytes(tile.add(k * FOUR)) }
    }

    #[inline(always)]
    unsafe fn scales<V: Simd, const I: usize>(tile: *const u8, _: usize) -> [V::F; 2] {
        // SAFETY: two vectors of scales follow; `fill` writes the second where there are halves.
        unsafe {
            let at = tile.add(SCALES).cast::<f32>();
            [V::load(at), V::load(at.add(if F::HALVES { ROWS } else { 0 }))]
        }
    }

    #[inline(always)]
    unsafe fn mins<V: Simd, const I: usize>(tile: *const u8, _: usize) -> [V::F; 2] {
        // SAFETY: two vectors of minima follow; `fill` writes what is asked for.
        unsafe {
            let at = tile.add(SCALES + 2 * VECTOR).cast::<f32>();
            [V::load(at), V::load(at.add(if F::HALVES { ROWS } else { 0 }))]
        }
    }
}
