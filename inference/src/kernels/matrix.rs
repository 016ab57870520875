//! Products of packed matrices with vectors.
//!
//! An element of a product is a sum over its row's blocks, in their order, and each term is computed by the same
//! operations whatever is computed beside it. So it depends neither on the batch nor on the division among workers.
use super::bands::Band;
use super::format::{self, Format, UNPACKED_BYTES, UNPACKED_ELEMENTS, Unpacked};
use super::pack::Packed;
use super::simd::{BLOCK, Block, ROWS, Simd, array};
use crate::gguf::TensorType;
use core::marker::PhantomData;

/// Bytes of working memory that a worker needs: two groups of sixteen rows of so many columns, unpacked.
pub(crate) const PANEL_BYTES: usize = 2 * PANEL_COLUMNS / UNPACKED_ELEMENTS * UNPACKED_BYTES + 64;
/// A panel stays in the first-level cache. It holds at least a block of every type.
const PANEL_COLUMNS: usize = 576;
/// How far ahead of a product memory is fetched: the groups that come next, or where these are far away, what comes
/// next in the same ones.
const AHEAD: usize = 4096;
const FARTHEST: usize = 1 << 15;

/// The vectors that a matrix is multiplied with, one for each token of the batch.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// Elements of a vector.
    pub(crate) width: usize,
    /// Vectors, for matrices of floating-point types.
    pub(crate) values: &'a [f32],
    /// The same vectors quantised, for matrices of quantised types.
    pub(crate) blocks: &'a [Block],
}

/// A product as the loops see it: groups of sixteen rows, tokens, and where each is.
pub(super) struct Job<'a> {
    tiles: *const u8,
    /// Bytes from a group's tiles to the next group's.
    group_bytes: usize,
    /// Tiles to multiply in each group.
    tiles_in_group: usize,
    blocks: *const Block,
    /// Blocks from a token to the next.
    block_stride: usize,
    values: *const f32,
    width: usize,
    out: *mut f32,
    out_stride: usize,
    /// Whether the output holds the sums of earlier columns.
    resume: bool,
    groups: usize,
    tokens: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

/// Multiplies the rows that the band has as columns. Row `t` of the output is the product with vector `t`.
pub(super) fn multiply<S: Simd>(
    matrix: Packed<'_>,
    inputs: Inputs<'_>,
    out: &mut Band<'_, f32>,
    panel: &mut [u8],
) {
    let tokens = out.height();
    let columns = out.columns();
    assert!(
        columns.start.is_multiple_of(ROWS) && columns.end <= matrix.height && inputs.width == matrix.width
    );
    assert!(panel.len() >= PANEL_BYTES);
    match matrix.kind {
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 => {
            assert!(inputs.values.len() >= tokens * matrix.width);
        }
        _ => assert!(inputs.blocks.len() >= tokens * (matrix.width / BLOCK)),
    }
    let group_bytes = matrix.group_bytes();
    let (first, whole) = (columns.start / ROWS, columns.end / ROWS);
    assert!(matrix.tiles.len() >= whole.min(matrix.height / ROWS) * group_bytes);
    let (start, stride) = out.raw();
    let job = |tiles: *const u8, out: *mut f32, out_stride: usize| Job {
        tiles,
        group_bytes,
        tiles_in_group: matrix.tiles_in_group(),
        blocks: inputs.blocks.as_ptr(),
        block_stride: matrix.width / BLOCK,
        values: inputs.values.as_ptr(),
        width: matrix.width,
        out,
        out_stride,
        resume: false,
        groups: whole - first,
        tokens,
        borrow: PhantomData,
    };
    // SAFETY: the tiles are those of whole groups, of which `matrix` has as many as were asserted; vectors for all
    // tokens were asserted to be there, and the output is the band's: rows of `stride` elements, of which those from
    // `start` on to the band's width are its own. `S` is what the processor has, because its table was handed out.
    unsafe {
        if whole > first {
            let job = job(matrix.tiles.as_ptr().add(first * group_bytes), start, stride);
            dispatch::<S>(matrix.kind, job, panel);
        }
        let rest = columns.end - whole * ROWS;
        if rest > 0 {
            assert!(columns.end == matrix.height && matrix.tail.len() == group_bytes);
            // The last rows have a group of their own, filled up with zeros.
            let mut sums = [0.0; 8 * ROWS];
            for token in (0..tokens).step_by(8) {
                let count = (tokens - token).min(8);
                let mut job = job(matrix.tail.as_ptr(), sums.as_mut_ptr(), ROWS);
                job.blocks = job.blocks.wrapping_add(token * job.block_stride);
                job.values = job.values.wrapping_add(token * job.width);
                (job.groups, job.tokens) = (1, count);
                dispatch::<S>(matrix.kind, job, panel);
                for (offset, sums) in sums.as_chunks::<ROWS>().0.iter().take(count).enumerate() {
                    let start = whole * ROWS - columns.start;
                    out.row(token + offset)[start..start + rest].copy_from_slice(&sums[..rest]);
                }
            }
        }
    }
}

unsafe fn dispatch<S: Simd>(kind: TensorType, job: Job<'_>, panel: &mut [u8]) {
    // SAFETY: the caller's; the format is the matrix's.
    unsafe {
        match kind {
            TensorType::F32 => all_floats::<S, 0>(&job),
            TensorType::F16 => all_floats::<S, 1>(&job),
            TensorType::Bf16 => all_floats::<S, 2>(&job),
            TensorType::Q8_0 => all_quantised::<S, format::Q8_0>(job, panel),
            TensorType::Q4_0 => all_quantised::<S, format::Q4_0>(job, panel),
            TensorType::Q4_1 => all_quantised::<S, format::Q4_1>(job, panel),
            TensorType::Q5_0 => all_quantised::<S, format::Q5_0>(job, panel),
            TensorType::Q5_1 => all_quantised::<S, format::Q5_1>(job, panel),
            TensorType::Q2K => all_quantised::<S, format::Q2K>(job, panel),
            TensorType::Q3K => all_quantised::<S, format::Q3K>(job, panel),
            TensorType::Q4K => all_quantised::<S, format::Q4K>(job, panel),
            TensorType::Q5K => all_quantised::<S, format::Q5K>(job, panel),
            TensorType::Q6K => all_quantised::<S, format::Q6K>(job, panel),
        }
    }
}

unsafe fn all_quantised<S: Simd, F: Format>(job: Job<'_>, panel: &mut [u8]) {
    // SAFETY: the caller's: groups and tokens below those of the job.
    unsafe {
        if job.tokens > 2 * S::FEW {
            return by_panels::<S, F>(job, panel);
        }
        for group in (0..job.groups).step_by(S::TILE_GROUPS) {
            if job.tokens > 2 {
                (0..job.tokens).step_by(S::FEW).for_each(|token| S::few::<F>(&job, group, token));
                continue;
            }
            // One stream of memory is read faster than two.
            for group in group..job.groups.min(group + S::TILE_GROUPS) {
                (0..job.tokens).for_each(|token| S::one::<F>(&job, group, token));
            }
        }
    }
}

/// Unpacks two groups at a time, as many columns as the cache holds, and multiplies them with all tokens. Columns
/// are the outer loop, so that the vectors' part that is multiplied stays in a cache, too.
unsafe fn by_panels<S: Simd, F: Format>(job: Job<'_>, panel: &mut [u8]) {
    let blocks_in_tile = F::OUTER * F::INNER;
    let panels = job.tiles_in_group.div_ceil(PANEL_COLUMNS / BLOCK / blocks_in_tile);
    let step = job.tiles_in_group.div_ceil(panels.max(1)).max(1);
    let skipped = panel.as_ptr().align_offset(64);
    let panel = &mut panel[skipped..];
    // SAFETY: the caller's; the panel has room for two groups of `PANEL_COLUMNS`, which `step` tiles fill.
    unsafe {
        for tile in (0..job.tiles_in_group).step_by(step) {
            let tiles = (job.tiles_in_group - tile).min(step);
            let panel_bytes = tiles * blocks_in_tile * Unpacked::<S, F>::BYTES;
            for group in (0..job.groups).step_by(2) {
                let groups = (job.groups - group).min(2);
                for index in 0..groups {
                    let from = job.tiles.add((group + index) * job.group_bytes + tile * F::BYTES);
                    S::unpack::<F>(from, tiles, panel.as_mut_ptr().add(index * panel_bytes));
                }
                let job = Job {
                    tiles: panel.as_ptr(),
                    group_bytes: panel_bytes,
                    tiles_in_group: tiles * blocks_in_tile,
                    blocks: job.blocks.add(tile * blocks_in_tile),
                    out: job.out.add(group * ROWS),
                    resume: tile > 0,
                    groups,
                    ..job
                };
                for group in (0..groups).step_by(S::TILE_GROUPS) {
                    for token in (0..job.tokens).step_by(S::MANY) {
                        S::many::<Unpacked<S, F>>(&job, group, token);
                    }
                }
            }
        }
    }
}

/// Unpacks so many tiles of one group.
///
/// # Safety
/// The processor has the instructions, the tiles are there, and the panel has room for all their blocks.
#[inline(always)]
pub(super) unsafe fn unpack<S: Simd, F: Format>(tiles: *const u8, count: usize, panel: *mut u8) {
    let mut to = panel;
    for tile in 0..count {
        // SAFETY: the caller's.
        unsafe {
            let tile = tiles.add(tile * F::BYTES);
            for outer in 0..F::OUTER {
                macro_rules! inner {
                    ($($index:literal)*) => {$(
                        if $index < F::INNER {
                            Unpacked::<S, F>::fill::<$index>(tile, outer, to);
                            to = to.add(Unpacked::<S, F>::BYTES);
                        }
                    )*};
                }
                inner!(0 1 2 3);
            }
        }
    }
}

/// `G` groups of sixteen rows times `T` tokens. Where the job ends before, its last ones are computed again, to the
/// same sums.
///
/// # Safety
/// The processor has the instructions, and the job has this group and token.
#[inline(always)]
pub(super) unsafe fn quantised<S: Simd, F: Format, const G: usize, const T: usize>(
    job: &Job<'_>,
    group: usize,
    token: usize,
) {
    // SAFETY: the caller's. Fetching ahead may leave the matrix; it does not access memory.
    unsafe {
        let groups = array!(G, group, g => (group + g).min(job.groups - 1));
        let tokens = array!(T, token, t => (token + t).min(job.tokens - 1));
        let mut sums = [[S::splat(0.0); T]; G];
        if job.resume {
            for g in 0..G {
                for t in 0..T {
                    sums[g][t] = S::load(job.out.add(tokens[t] * job.out_stride + groups[g] * ROWS));
                }
            }
        }
        let mut tiles = array!(G, job.tiles, g => job.tiles.add(groups[g] * job.group_bytes));
        let mut blocks = array!(T, job.blocks, t => job.blocks.add(tokens[t] * job.block_stride));
        let next = G * job.group_bytes;
        let ahead = if next <= FARTHEST { next } else { AHEAD };
        // A tile's lines are fetched block by block, as only so many can be under way.
        let lines = if F::STREAMED { F::BYTES.div_ceil(64 * F::OUTER * F::INNER) } else { 0 };
        for _ in 0..job.tiles_in_group {
            for outer in 0..F::OUTER {
                macro_rules! inner {
                    ($($index:literal)*) => {$(
                        if $index < F::INNER {
                            for line in 0..G * lines {
                                let (g, line) = (line / lines, (outer * F::INNER + $index) * lines + line % lines);
                                S::prefetch(tiles[g].wrapping_add(ahead + line * 64));
                            }
                            sums = block::<S, F, $index, G, T>(tiles, outer, blocks, sums);
                            for t in 0..T {
                                blocks[t] = blocks[t].add(1);
                            }
                        }
                    )*};
                }
                inner!(0 1 2 3);
            }
            for g in 0..G {
                tiles[g] = tiles[g].add(F::BYTES);
            }
        }
        for g in 0..G {
            for t in 0..T {
                S::store(sums[g][t], job.out.add(tokens[t] * job.out_stride + groups[g] * ROWS));
            }
        }
    }
}

/// Adds the products of one block of 32 columns.
#[inline(always)]
unsafe fn block<S: Simd, F: Format, const I: usize, const G: usize, const T: usize>(
    tiles: [*const u8; G],
    outer: usize,
    blocks: [*const Block; T],
    mut sums: [[S::F; T]; G],
) -> [[S::F; T]; G] {
    // SAFETY: the caller's.
    unsafe {
        let fours = if F::HALVES { 4 } else { 8 };
        let dots = S::dots::<F, I, G, T>(tiles, outer, (0, fours), blocks, usize::from(F::HALVES));
        if F::HALVES {
            let second = S::dots::<F, I, G, T>(tiles, outer, (4, 8), blocks, 2);
            for g in 0..G {
                let scales = F::scales::<S, I>(tiles[g], outer);
                for t in 0..T {
                    let dot = S::fma(second[g][t], scales[1], S::mul(dots[g][t], scales[0]));
                    sums[g][t] = S::fma(dot, S::splat((*blocks[t]).scale), sums[g][t]);
                }
            }
        } else {
            for g in 0..G {
                let [scale, _] = F::scales::<S, I>(tiles[g], outer);
                for t in 0..T {
                    let scale = S::mul(scale, S::splat((*blocks[t]).scale));
                    sums[g][t] = S::fma(dots[g][t], scale, sums[g][t]);
                }
            }
        }
        if F::MINS {
            for g in 0..G {
                let mins = F::mins::<S, I>(tiles[g], outer);
                for t in 0..T {
                    let shifts = &(*blocks[t]).shifts;
                    if F::HALVES {
                        sums[g][t] = S::fma(mins[0], S::splat(shifts[1]), sums[g][t]);
                        sums[g][t] = S::fma(mins[1], S::splat(shifts[2]), sums[g][t]);
                    } else {
                        sums[g][t] = S::fma(mins[0], S::splat(shifts[0]), sums[g][t]);
                    }
                }
            }
        }
        sums
    }
}

unsafe fn all_floats<S: Simd, const K: u32>(job: &Job<'_>) {
    let (groups, tokens) = (job.groups, job.tokens);
    // SAFETY: the caller's: groups and tokens below those of the job.
    unsafe {
        let mut group = 0;
        while group + S::TILE_GROUPS <= groups {
            let mut token = 0;
            while token + S::MANY <= tokens {
                S::many_float::<K>(job, group, token);
                token += S::MANY;
            }
            while token < tokens {
                S::tile_float::<K>(job, group, token);
                token += 1;
            }
            group += S::TILE_GROUPS;
        }
        for group in group..groups {
            (0..tokens).for_each(|token| S::one_float::<K>(job, group, token));
        }
    }
}

/// `G` groups of sixteen rows of F32 (`K` is 0), F16 (1) or bfloat16 (2) times `T` tokens.
///
/// # Safety
/// The processor has the instructions, and the job has these groups and tokens.
#[inline(always)]
pub(super) unsafe fn floats<S: Simd, const K: u32, const G: usize, const T: usize>(
    job: &Job<'_>,
    group: usize,
    token: usize,
) {
    let bytes = if K == 0 { 4 * ROWS } else { 2 * ROWS };
    // SAFETY: the caller's. Fetching ahead may leave the matrix; it does not access memory.
    unsafe {
        let mut sums = [[S::splat(0.0); T]; G];
        let tiles = array!(G, job.tiles, g => job.tiles.add((group + g) * job.group_bytes));
        let values = array!(T, job.values, t => job.values.add((token + t) * job.width));
        for column in 0..job.width {
            for g in 0..G {
                let at = tiles[g].add(column * bytes);
                S::prefetch(at.wrapping_add(AHEAD));
                let weights = match K {
                    0 => S::load(at.cast()),
                    1 => S::from_f16(at),
                    _ => S::from_bf16(at),
                };
                for t in 0..T {
                    sums[g][t] = S::fma(weights, S::splat(*values[t].add(column)), sums[g][t]);
                }
            }
        }
        for g in 0..G {
            for t in 0..T {
                S::store(sums[g][t], job.out.add((token + t) * job.out_stride + (group + g) * ROWS));
            }
        }
    }
}
