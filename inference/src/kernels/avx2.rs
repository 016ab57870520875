//! The functions for processors with AVX2, FMA and F16C: every processor that has SEV-SNP.
//!
//! Products of quantised matrices give the same bits as their twins. Products of floating-point matrices use fused
//! multiplication and addition, which rounds once where the twin rounds twice.
use super::bands::Band;
use super::plain::{self, multiply_row};
use super::{Inputs, Kernels, QuantBlock, Rows};
use crate::encode::{Q8_BYTES, bf16_to_f32, f16_to_f32};
use crate::gguf::TensorType;
use core::arch::x86_64::*;

/// Rows that are multiplied together, so that sums, scales and results fill a vector.
const ROWS: usize = 8;
/// Vectors that are multiplied together, so that weights are loaded and widened once for all of them.
const TOKENS: usize = 4;
const LANES: usize = 8;

/// Private, so that only [`kernels`] can hand it out.
static KERNELS: Kernels =
    Kernels { name: "avx2", multiply, scores, weighted_sum, softmax, swiglu, sum_of_squares, quantise };

/// The table, if this processor has what it needs and the operating system has switched it on.
pub(super) fn kernels() -> Option<&'static Kernels> {
    // AMD64 Architecture Programmer's Manual, volume 3, appendix E: Fn0000_0001_ECX and Fn0000_0007_EBX_x0.
    const FMA: u32 = 1 << 12;
    const OSXSAVE: u32 = 1 << 27;
    const AVX: u32 = 1 << 28;
    const F16C: u32 = 1 << 29;
    const AVX2: u32 = 1 << 5;
    // XCR0: the state of XMM and YMM registers is enabled.
    const SSE_AND_AVX_STATE: u64 = 0b110;

    let has = |value: u32, bits: u32| value & bits == bits;
    let available = __cpuid(0).eax >= 7
        && has(__cpuid(1).ecx, FMA | OSXSAVE | AVX | F16C)
        && has(__cpuid_count(7, 0).ebx, AVX2)
        // SAFETY: OSXSAVE, tested before, says that XGETBV may be executed.
        && unsafe { _xgetbv(0) } & SSE_AND_AVX_STATE == SSE_AND_AVX_STATE;
    available.then_some(&KERNELS)
}

/// Defines the safe function of the table that calls the one compiled for AVX2.
macro_rules! with_avx2 {
    ($(fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $inner:path;)*) => {
        $(fn $name($($argument: $type),*) $(-> $result)? {
            #[target_feature(enable = "avx2,fma,f16c")]
            fn compiled($($argument: $type),*) $(-> $result)? {
                $inner($($argument),*)
            }
            // SAFETY: this is reachable through `KERNELS` only, which `kernels` hands out only on a processor that
            // has these features.
            unsafe { compiled($($argument),*) }
        })*
    };
}

with_avx2! {
    fn multiply(rows: Rows<'_>, inputs: Inputs<'_>, out: &mut Band<'_, f32>) = multiply_avx2;
    fn scores(query: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]) = scores_avx2;
    fn weighted_sum(weights: &[f32], vectors: &[f32], out: &mut [f32]) = weighted_sum_avx2;
    fn softmax(scores: &mut [f32]) = plain::softmax;
    fn swiglu(gates: &mut [f32], ups: &[f32]) = plain::swiglu;
    fn sum_of_squares(x: &[f32]) -> f32 = plain::sum_of_squares;
    fn quantise(x: &[f32], quants: &mut [i16], scales: &mut [f32]) = plain::quantise;
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_avx2(rows: Rows<'_>, inputs: Inputs<'_>, out: &mut Band<'_, f32>) {
    if !rows.kind.is_direct() {
        return plain::multiply_decoded(rows, inputs, out);
    }
    let tokens = out.height();
    let count = out.columns().len();
    let mut row = 0;
    while row + ROWS <= count {
        let mut token = 0;
        while token + TOKENS <= tokens {
            multiply_tile::<TOKENS>(rows, row, inputs, token, out);
            token += TOKENS;
        }
        while token < tokens {
            multiply_tile::<1>(rows, row, inputs, token, out);
            token += 1;
        }
        row += ROWS;
    }
    for token in 0..tokens {
        for row in row..count {
            out.row(token)[row] = match rows.kind {
                TensorType::Q8_0 => multiply_row(rows, row, inputs, token),
                kind => float_tile::<1, 1>(kind, [rows.row(row)], [inputs.values(token)])[0][0],
            };
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_tile<const T: usize>(
    rows: Rows<'_>,
    row: usize,
    inputs: Inputs<'_>,
    token: usize,
    out: &mut Band<'_, f32>,
) {
    let tile = if rows.kind == TensorType::Q8_0 {
        q8_tile(
            core::array::from_fn(|r| rows.blocks(row + r)),
            core::array::from_fn(|t| inputs.quants(token + t)),
            core::array::from_fn(|t| inputs.scales(token + t)),
        )
    } else {
        let values = core::array::from_fn(|t| inputs.values(token + t));
        let mut tile = [[0.0; ROWS]; T];
        // Two rows at a time: with four tokens their eight sums stay in registers.
        for r in (0..ROWS).step_by(2) {
            let pair = float_tile::<2, T>(rows.kind, [rows.row(row + r), rows.row(row + r + 1)], values);
            for t in 0..T {
                [tile[t][r], tile[t][r + 1]] = pair[t];
            }
        }
        tile
    };
    for (t, tile) in tile.iter().enumerate() {
        out.row(token + t)[row..row + ROWS].copy_from_slice(tile);
    }
}

/// Eight rows of Q8_0 times `T` quantised vectors.
#[target_feature(enable = "avx2,fma,f16c")]
fn q8_tile<const T: usize>(
    rows: [&[[u8; Q8_BYTES]]; ROWS],
    quants: [&[QuantBlock]; T],
    scales: [&[f32]; T],
) -> [[f32; ROWS]; T] {
    let blocks = rows[0].len();
    let rows = rows.map(|row| &row[..blocks]);
    let quants = quants.map(|quants| &quants[..blocks]);
    let scales = scales.map(|scales| &scales[..blocks]);
    let mut sums = [_mm256_setzero_ps(); T];
    for block in 0..blocks {
        let mut row_scales = [0; ROWS];
        let mut products = [[_mm256_setzero_si256(); ROWS]; T];
        for r in 0..ROWS {
            let [low, high, weights @ ..] = &rows[r][block];
            row_scales[r] = u16::from_le_bytes([*low, *high]);
            let (first, second) = (load_weights(&weights[..16]), load_weights(&weights[16..]));
            for t in 0..T {
                let [x_first, x_second] = &quants[t][block];
                products[t][r] = _mm256_add_epi32(
                    _mm256_madd_epi16(first, load_i16(x_first)),
                    _mm256_madd_epi16(second, load_i16(x_second)),
                );
            }
        }
        let row_scales = _mm256_cvtph_ps(load_u16(&row_scales));
        for t in 0..T {
            let products = _mm256_cvtepi32_ps(add_across(products[t]));
            let scale = _mm256_mul_ps(row_scales, _mm256_set1_ps(scales[t][block]));
            sums[t] = _mm256_add_ps(sums[t], _mm256_mul_ps(products, scale));
        }
    }
    sums.map(|sum| lanes(sum))
}

/// The sum of each of eight vectors.
#[target_feature(enable = "avx2")]
fn add_across([a, b, c, d, e, f, g, h]: [__m256i; 8]) -> __m256i {
    // Each addition of neighbours halves what is left of every vector, within its 128-bit halves.
    let first = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let second = _mm256_hadd_epi32(_mm256_hadd_epi32(e, f), _mm256_hadd_epi32(g, h));
    _mm256_add_epi32(
        _mm256_permute2x128_si256::<0x20>(first, second),
        _mm256_permute2x128_si256::<0x31>(first, second),
    )
}

/// `R` rows of a floating-point type times `T` vectors.
#[target_feature(enable = "avx2,fma,f16c")]
fn float_tile<const R: usize, const T: usize>(
    kind: TensorType,
    rows: [&[u8]; R],
    values: [&[f32]; T],
) -> [[f32; R]; T] {
    match kind {
        TensorType::F32 => f32_tile(rows.map(|row| row.as_chunks().0), values),
        TensorType::F16 => f16_tile(rows.map(|row| row.as_chunks().0), values),
        TensorType::Bf16 => bf16_tile(rows.map(|row| row.as_chunks().0), values),
        // Quantised types have tiles of their own, or are decoded.
        _ => [[0.0; R]; T],
    }
}

/// Defines the products of rows of a type with vectors, from the conversion of eight stored elements and of one.
macro_rules! float_tiles {
    ($(fn $name:ident($element:ty, $eight:path, $one:path);)*) => {
        $(#[target_feature(enable = "avx2,fma,f16c")]
        fn $name<const R: usize, const T: usize>(
            rows: [&[$element]; R],
            values: [&[f32]; T],
        ) -> [[f32; R]; T] {
            let chunks = values[0].len() / LANES;
            let row_chunks = rows.map(|row| &row.as_chunks::<LANES>().0[..chunks]);
            let value_chunks = values.map(|values| &values.as_chunks::<LANES>().0[..chunks]);
            let mut sums = [[_mm256_setzero_ps(); R]; T];
            for chunk in 0..chunks {
                let weights: [__m256; R] = core::array::from_fn(|r| $eight(&row_chunks[r][chunk]));
                for t in 0..T {
                    let x = load_f32(&value_chunks[t][chunk]);
                    for r in 0..R {
                        sums[t][r] = _mm256_fmadd_ps(weights[r], x, sums[t][r]);
                    }
                }
            }
            let mut out = sums.map(|sums| sums.map(|sum| add_lanes(sum)));
            let done = chunks * LANES;
            for (values, out) in values.iter().zip(&mut out) {
                for (row, out) in rows.iter().zip(out) {
                    for (x, weight) in values[done..].iter().zip(&row[done..]) {
                        *out += x * $one(*weight);
                    }
                }
            }
            out
        })*
    };
}

float_tiles! {
    fn f32_dots(f32, load_f32, f32::from);
    fn f32_tile([u8; 4], load_f32_bytes, f32::from_le_bytes);
    fn f16_tile([u8; 2], load_f16_bytes, f16_value);
    fn bf16_tile([u8; 2], load_bf16_bytes, bf16_value);
}

fn f16_value(bytes: [u8; 2]) -> f32 {
    f16_to_f32(u16::from_le_bytes(bytes))
}

fn bf16_value(bytes: [u8; 2]) -> f32 {
    bf16_to_f32(u16::from_le_bytes(bytes))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn scores_avx2(query: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]) {
    let length = query.len();
    let (groups, rest) = scores.as_chunks_mut::<ROWS>();
    let grouped = groups.len() * ROWS * length;
    // Side by side, the sums of eight keys hide how long each addition takes.
    for (scores, keys) in groups.iter_mut().zip(keys.chunks_exact(ROWS * length)) {
        [*scores] = f32_dots::<ROWS, 1>(core::array::from_fn(|r| &keys[r * length..][..length]), [query]);
    }
    for (score, key) in rest.iter_mut().zip(keys[grouped..].chunks_exact(length)) {
        [[*score]] = f32_dots([key], [query]);
    }
    scores.iter_mut().for_each(|score| *score *= scale);
}

#[target_feature(enable = "avx2,fma")]
fn weighted_sum_avx2(weights: &[f32], vectors: &[f32], out: &mut [f32]) {
    let length = out.len();
    let (wide, rest) = out.as_chunks_mut::<{ 4 * LANES }>();
    let wide_columns = wide.as_flattened().len();
    for (index, out) in wide.iter_mut().enumerate() {
        let mut sums = [_mm256_setzero_ps(); 4];
        for (weight, vector) in weights.iter().zip(vectors.chunks_exact(length)) {
            let weight = _mm256_set1_ps(*weight);
            let columns = vector[index * 4 * LANES..][..4 * LANES].as_chunks().0;
            for (sum, columns) in sums.iter_mut().zip(columns) {
                *sum = _mm256_fmadd_ps(weight, load_f32(columns), *sum);
            }
        }
        for (out, sum) in out.as_chunks_mut().0.iter_mut().zip(sums) {
            *out = lanes(sum);
        }
    }
    // What is left of the columns is computed together, element by element.
    rest.fill(0.0);
    for (weight, vector) in weights.iter().zip(vectors.chunks_exact(length)) {
        for (out, element) in rest.iter_mut().zip(&vector[wide_columns..]) {
            *out += weight * element;
        }
    }
}

/// Adds eight lanes, halving the vector each time.
#[target_feature(enable = "avx2")]
fn add_lanes(vector: __m256) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes(vector);
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[target_feature(enable = "avx2")]
fn lanes(vector: __m256) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    // SAFETY: the array has room for the 32 bytes of the vector, and the store needs no alignment.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), vector) };
    lanes
}

#[target_feature(enable = "avx2")]
fn load_f32(values: &[f32; LANES]) -> __m256 {
    // SAFETY: the array has the 32 bytes that are read, and the load needs no alignment.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[target_feature(enable = "avx2")]
fn load_f32_bytes(bytes: &[[u8; 4]; LANES]) -> __m256 {
    // SAFETY: the array has the 32 bytes that are read, and the load needs no alignment.
    unsafe { _mm256_loadu_ps(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,f16c")]
fn load_f16_bytes(bytes: &[[u8; 2]; LANES]) -> __m256 {
    _mm256_cvtph_ps(load_128(bytes.as_flattened()))
}

#[target_feature(enable = "avx2")]
fn load_bf16_bytes(bytes: &[[u8; 2]; LANES]) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load_128(bytes.as_flattened()))))
}

/// Loads the first 16 bytes.
#[target_feature(enable = "avx2")]
fn load_128(bytes: &[u8]) -> __m128i {
    let (bytes, _) = bytes.split_at(16);
    // SAFETY: the slice has the 16 bytes that are read, or `split_at` would have panicked, and the load needs no
    // alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Loads and widens 16 weights.
#[target_feature(enable = "avx2")]
fn load_weights(bytes: &[u8]) -> __m256i {
    _mm256_cvtepi8_epi16(load_128(bytes))
}

#[target_feature(enable = "avx2")]
fn load_i16(values: &[i16; 16]) -> __m256i {
    // SAFETY: the array has the 32 bytes that are read, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn load_u16(values: &[u16; 8]) -> __m128i {
    // SAFETY: the array has the 16 bytes that are read, and the load needs no alignment.
    unsafe { _mm_loadu_si128(values.as_ptr().cast()) }
}
