//! The vectors in plain Rust: the reference for the vector units, and what runs where there are none.
use super::format::Format;
use super::matrix::{self, Job};
use super::simd::{Block, Simd};
use crate::encode::{bf16_to_f32, f16_to_f32};
use core::array::from_fn;

/// No vector instructions.
#[derive(Clone, Copy)]
pub(super) struct Plain;

#[inline(always)]
unsafe fn halves(at: *const u8) -> [u16; 16] {
    // SAFETY: the caller's; arrays of bytes need no alignment.
    let bytes = unsafe { at.cast::<[[u8; 2]; 16]>().read() };
    bytes.map(u16::from_le_bytes)
}

#[inline(always)]
fn both(a: [f32; 16], b: [f32; 16], apply: impl Fn(f32, f32) -> f32) -> [f32; 16] {
    from_fn(|lane| apply(a[lane], b[lane]))
}

fn halving(mut lanes: [f32; 16], apply: impl Fn(f32, f32) -> f32) -> f32 {
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] = apply(lanes[lane], lanes[lane + width]);
        }
    }
    lanes[0]
}

/// Shifts in lanes of 16 bits.
fn shift(a: [u8; 64], apply: impl Fn(u16) -> u16) -> [u8; 64] {
    from_fn(|i| apply(u16::from_le_bytes([a[i / 2 * 2], a[i / 2 * 2 + 1]])).to_le_bytes()[i % 2])
}

impl Simd for Plain {
    type F = [f32; 16];
    type B = [u8; 64];

    const TILE_GROUPS: usize = 1;
    const RAISES: bool = true;
    const FEW: usize = 1;
    const MANY: usize = 1;

    unsafe fn splat(value: f32) -> [f32; 16] {
        [value; 16]
    }

    unsafe fn load(at: *const f32) -> [f32; 16] {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe { at.cast::<[f32; 16]>().read_unaligned() }
    }

    unsafe fn store(vector: [f32; 16], at: *mut f32) {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe { at.cast::<[f32; 16]>().write_unaligned(vector) }
    }

    unsafe fn from_f16(at: *const u8) -> [f32; 16] {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe { halves(at) }.map(f16_to_f32)
    }

    unsafe fn from_bf16(at: *const u8) -> [f32; 16] {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe { halves(at) }.map(bf16_to_f32)
    }

    unsafe fn from_u8(values: [u8; 16]) -> [f32; 16] {
        values.map(f32::from)
    }

    unsafe fn from_i8(at: *const u8) -> [f32; 16] {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe { at.cast::<[i8; 16]>().read() }.map(f32::from)
    }

    unsafe fn add(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        both(a, b, |a, b| a + b)
    }

    unsafe fn sub(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        both(a, b, |a, b| a - b)
    }

    unsafe fn mul(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        both(a, b, |a, b| a * b)
    }

    unsafe fn div(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        both(a, b, |a, b| a / b)
    }

    unsafe fn fma(a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        from_fn(|lane| libm::fmaf(a[lane], b[lane], c[lane]))
    }

    unsafe fn max(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        both(a, b, |a, b| if a > b { a } else { b })
    }

    unsafe fn min(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        both(a, b, |a, b| if a < b { a } else { b })
    }

    unsafe fn abs(a: [f32; 16]) -> [f32; 16] {
        a.map(f32::abs)
    }

    unsafe fn add_exponent(value: [f32; 16], shifted: [f32; 16]) -> [f32; 16] {
        both(value, shifted, |value, shifted| {
            f32::from_bits(value.to_bits().wrapping_add(shifted.to_bits() << 23))
        })
    }

    unsafe fn sum(a: [f32; 16]) -> f32 {
        halving(a, |a, b| a + b)
    }

    unsafe fn largest(a: [f32; 16]) -> f32 {
        halving(a, |a, b| if a > b { a } else { b })
    }

    unsafe fn block(halves: [[f32; 16]; 2], scale: f32, out: &mut Block) {
        let quants = halves.map(|half| half.map(crate::encode::round_to_i8));
        out.quants.as_flattened_mut().copy_from_slice(quants.as_flattened());
        let [first, second] = quants.map(|half| -half.into_iter().map(i32::from).sum::<i32>());
        let sums = [first + second, first, second];
        (out.scale, out.sums) = (scale, sums.map(|sum| 128 * sum));
        out.shifts = sums.map(|sum| scale * sum as f32);
    }

    unsafe fn bytes(at: *const u8) -> [u8; 64] {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe { at.cast::<[u8; 64]>().read() }
    }

    unsafe fn store_bytes(bytes: [u8; 64], at: *mut u8) {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe { at.cast::<[u8; 64]>().write(bytes) }
    }

    unsafe fn and(a: [u8; 64], mask: u8) -> [u8; 64] {
        a.map(|a| a & mask)
    }

    unsafe fn or(a: [u8; 64], b: [u8; 64]) -> [u8; 64] {
        from_fn(|i| a[i] | b[i])
    }

    unsafe fn right(a: [u8; 64], bits: u32) -> [u8; 64] {
        shift(a, |a| a >> bits)
    }

    unsafe fn left(a: [u8; 64], bits: u32) -> [u8; 64] {
        shift(a, |a| a << bits)
    }

    unsafe fn prefetch(_: *const u8) {}

    unsafe fn dots<F: Format, const I: usize, const G: usize, const T: usize>(
        tiles: [*const u8; G],
        outer: usize,
        (first, last): (usize, usize),
        blocks: [*const Block; T],
        sum: usize,
    ) -> [[[f32; 16]; T]; G] {
        tiles.map(|tile| {
            blocks.map(|block| {
                // SAFETY: the caller vouches for the pointers and for the instructions; no alignment is needed.
                let block = unsafe { &*block };
                let offset = if F::OFFSET > 0 { block.sums[sum] >> (7 - F::OFFSET) } else { 0 };
                let mut dots = [offset; 16];
                for k in first..last {
                    // SAFETY: as above.
                    let weights = unsafe { F::quants::<Self, I>(tile, outer, k) };
                    for (i, weight) in weights.iter().enumerate() {
                        dots[i / 4] += i32::from(*weight) * i32::from(block.quants[k][i % 4]);
                    }
                }
                dots.map(|dot| dot as f32)
            })
        })
    }

    unsafe fn one<F: Format>(job: &Job<'_>, group: usize, token: usize) {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { matrix::quantised::<Self, F, 1, 1>(job, group, token) }
    }

    unsafe fn few<F: Format>(job: &Job<'_>, group: usize, token: usize) {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { Self::one::<F>(job, group, token) }
    }

    unsafe fn many<F: Format>(job: &Job<'_>, group: usize, token: usize) {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { Self::one::<F>(job, group, token) }
    }

    unsafe fn one_float<const K: u32>(job: &Job<'_>, group: usize, token: usize) {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { matrix::floats::<Self, K, 1, 1>(job, group, token) }
    }

    unsafe fn tile_float<const K: u32>(job: &Job<'_>, group: usize, token: usize) {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { Self::one_float::<K>(job, group, token) }
    }

    unsafe fn many_float<const K: u32>(job: &Job<'_>, group: usize, token: usize) {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { Self::one_float::<K>(job, group, token) }
    }

    unsafe fn unpack<F: Format>(tiles: *const u8, count: usize, panel: *mut u8) {
        // SAFETY: the caller vouches for the pointer and for the instructions; no alignment is needed.
        unsafe { matrix::unpack::<Self, F>(tiles, count, panel) }
    }

    unsafe fn attend(job: &super::attention::Job<'_>) {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { super::attention::attend::<Self>(job) }
    }

    unsafe fn elementwise(task: super::elementwise::Task<'_>) {
        // SAFETY: arithmetic on values; the caller has the instructions.
        unsafe { super::elementwise::run::<Self>(task) }
    }
}
