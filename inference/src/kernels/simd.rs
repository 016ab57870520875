//! What every kernel is written in: vectors of sixteen single-precision numbers, and of sixty-four bytes.
//!
//! Kernels are generic over [`Simd`] and compiled once for each set of instructions. An operation gives the same bits
//! in all of them, so a kernel does too: the vector units fuse multiplication and addition, and the plain twin does
//! what they do with `fmaf`.
use super::format::Format;
use super::matrix::Job;

/// Elements that share a scale in a quantised vector, and the most that do in a row of weights.
pub(crate) const BLOCK: usize = 32;
/// Rows whose weights lie interleaved, so that each lane computes one of them.
pub(crate) const ROWS: usize = 16;

/// Thirty-two elements of a vector that a matrix of quantised weights is multiplied with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Block {
    /// The elements in units of `scale`, at most 127 in magnitude, in fours as the dot product instructions take them.
    pub(crate) quants: [[i8; 4]; 8],
    pub(crate) scale: f32,
    /// The sum of all quants and that of each half of them, times −128: what is left to add where unsigned bytes took
    /// the place of signed ones.
    pub(crate) sums: [i32; 3],
    /// `scale` times the negated sums.
    pub(crate) shifts: [f32; 3],
}

impl zeroize::DefaultIsZeroes for Block {}

/// A set of vector instructions. The functions are unsafe because the processor must have the instructions; pointers
/// must be valid for as many bytes as the result holds.
pub(super) trait Simd: Copy + 'static {
    /// Sixteen single-precision numbers.
    type F: Copy;
    /// Sixty-four bytes: four for each of sixteen rows.
    type B: Copy;

    /// Groups of rows that a product takes together, 1 or 2, and tokens: few, and many.
    const TILE_GROUPS: usize;
    const FEW: usize;
    const MANY: usize;
    /// Whether unpacking brings quants to the top of their byte, so that what is subtracted of them is always 128; if not,
    /// it divides those of eight bits into nibbles.
    const RAISES: bool;

    unsafe fn splat(value: f32) -> Self::F;
    unsafe fn load(at: *const f32) -> Self::F;
    unsafe fn store(vector: Self::F, at: *mut f32);
    /// From half precision, from bfloat16, and from bytes.
    unsafe fn from_f16(at: *const u8) -> Self::F;
    unsafe fn from_bf16(at: *const u8) -> Self::F;
    unsafe fn from_u8(values: [u8; 16]) -> Self::F;
    unsafe fn from_i8(at: *const u8) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger of two; the second where one is not a number.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn abs(a: Self::F) -> Self::F;
    /// Adds the integer in the low bits of `shifted` to the exponent of `value`.
    unsafe fn add_exponent(value: Self::F, shifted: Self::F) -> Self::F;

    /// The sum of all lanes, and the largest of them, halving the vector each time.
    unsafe fn sum(a: Self::F) -> f32;
    unsafe fn largest(a: Self::F) -> f32;
    /// Makes a block of the integers nearest, ties to even, to values of at most 127 in magnitude.
    unsafe fn block(halves: [Self::F; 2], scale: f32, out: &mut Block);

    unsafe fn bytes(at: *const u8) -> Self::B;
    unsafe fn store_bytes(bytes: Self::B, at: *mut u8);
    unsafe fn and(a: Self::B, mask: u8) -> Self::B;
    unsafe fn or(a: Self::B, b: Self::B) -> Self::B;
    /// Shifts in lanes of 16 bits; whoever calls masks what came over from the neighbour.
    unsafe fn right(a: Self::B, bits: u32) -> Self::B;
    unsafe fn left(a: Self::B, bits: u32) -> Self::B;

    /// Fetches memory ahead. Any address will do.
    unsafe fn prefetch(at: *const u8);

    /// The inner products of `G` times sixteen rows with each of `T` blocks over the fours from `first` to `last` of
    /// one block, less the format's offset times the sum of the quants, which is the block's of this number.
    unsafe fn dots<F: Format, const I: usize, const G: usize, const T: usize>(
        tiles: [*const u8; G],
        outer: usize,
        fours: (usize, usize),
        blocks: [*const Block; T],
        sum: usize,
    ) -> [[Self::F; T]; G];

    /// [`super::matrix::quantised`], compiled for these instructions: one group and token, `TILE_GROUPS` groups and
    /// `FEW` tokens, and as many groups and `MANY` tokens.
    unsafe fn one<F: Format>(job: &Job<'_>, group: usize, token: usize);
    unsafe fn few<F: Format>(job: &Job<'_>, group: usize, token: usize);
    unsafe fn many<F: Format>(job: &Job<'_>, group: usize, token: usize);
    /// [`super::matrix::floats`], compiled for these instructions: one group and token, `TILE_GROUPS` groups and one
    /// token, and as many groups and `MANY` tokens.
    unsafe fn one_float<const K: u32>(job: &Job<'_>, group: usize, token: usize);
    unsafe fn tile_float<const K: u32>(job: &Job<'_>, group: usize, token: usize);
    unsafe fn many_float<const K: u32>(job: &Job<'_>, group: usize, token: usize);
    /// [`super::matrix::unpack`], compiled for these instructions.
    unsafe fn unpack<F: Format>(tiles: *const u8, count: usize, panel: *mut u8);
    /// [`super::attention::attend`], compiled for these instructions.
    unsafe fn attend(job: &super::attention::Job<'_>);
    /// [`super::elementwise::run`], compiled for these instructions.
    unsafe fn elementwise(task: super::elementwise::Task<'_>);
}

/// An array whose element `index` is `value`. Unlike the functions of arrays this takes no closure, which could be
/// compiled without the instructions of the function around it.
macro_rules! array {
    ($len:expr, $first:expr, $index:ident => $value:expr) => {{
        let mut array = [$first; $len];
        for $index in 0..$len {
            array[$index] = $value;
        }
        array
    }};
}
pub(super) use array;

/// A function of [`Simd`] that is one expression.
#[cfg(target_arch = "x86_64")]
macro_rules! operation {
    ($name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)? { $value:expr }) => {
        #[inline(always)]
        unsafe fn $name($($argument: $kind),*) $(-> $result)? {
            // SAFETY: the caller vouches for the pointer, if there is one, which needs no alignment, and for the
            // instructions.
            unsafe { $value }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(super) use operation;
