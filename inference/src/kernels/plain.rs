//! The functions in plain Rust: the reference for the vector kernels, and what runs where those cannot.
//!
//! Sums run in eight lanes that are added at the end, as a vector unit does it. Functions that are `inline(always)`
//! here are compiled a second time for AVX2 in [`super::avx2`]; Rust never contracts or reorders floating-point
//! operations, so both give the same bits.
use super::bands::Band;
use super::{Inputs, Kernels, QuantBlock, Rows};
use crate::blocks::SUPER_BLOCK;
use crate::encode::{Q8_BYTES, Q8_VALUES, bf16_to_f32, decode, f16_to_f32, quantise_q8};
use crate::gguf::TensorType;

const LANES: usize = 8;

pub(crate) static KERNELS: Kernels =
    Kernels { name: "plain", multiply, scores, weighted_sum, softmax, swiglu, sum_of_squares, quantise };

fn multiply(rows: Rows<'_>, inputs: Inputs<'_>, out: &mut Band<'_, f32>) {
    if !rows.kind.is_direct() {
        return multiply_decoded(rows, inputs, out);
    }
    for token in 0..out.height() {
        for (index, out) in out.row(token).iter_mut().enumerate() {
            *out = multiply_row(rows, index, inputs, token);
        }
    }
}

/// Products with types that have no kernel of their own: each block of weights is decoded once for all tokens.
#[inline(always)]
pub(super) fn multiply_decoded(rows: Rows<'_>, inputs: Inputs<'_>, out: &mut Band<'_, f32>) {
    let (elements, bytes) = (rows.kind.block_elements(), rows.kind.block_bytes());
    let mut values = [0.0; SUPER_BLOCK];
    let values = &mut values[..elements];
    for index in 0..out.columns().len() {
        for (block, data) in rows.row(index).chunks_exact(bytes).enumerate() {
            decode(rows.kind, data, values);
            for token in 0..out.height() {
                let x = &inputs.values(token)[block * elements..][..elements];
                let product = dot(x, values);
                let out = &mut out.row(token)[index];
                *out = if block == 0 { product } else { *out + product };
            }
        }
    }
}

/// The product of one row and one vector, of a type with a kernel.
pub(super) fn multiply_row(rows: Rows<'_>, row: usize, inputs: Inputs<'_>, token: usize) -> f32 {
    let bytes = rows.row(row);
    match rows.kind {
        TensorType::F32 => {
            dot_by(inputs.values(token), bytes.as_chunks().0, |bytes| f32::from_le_bytes(*bytes))
        }
        TensorType::F16 => {
            dot_by(inputs.values(token), bytes.as_chunks().0, |bytes| f16_to_f32(u16::from_le_bytes(*bytes)))
        }
        TensorType::Bf16 => {
            dot_by(inputs.values(token), bytes.as_chunks().0, |bytes| bf16_to_f32(u16::from_le_bytes(*bytes)))
        }
        TensorType::Q8_0 => dot_q8(rows.blocks(row), inputs.quants(token), inputs.scales(token)),
        _ => 0.0,
    }
}

fn dot_by<const N: usize>(x: &[f32], row: &[[u8; N]], value: impl Fn(&[u8; N]) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (row, row_rest) = row.as_chunks::<LANES>();
    for (x, row) in x.iter().zip(row) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * value(&row[lane]);
        }
    }
    let mut sum = add_lanes(lanes);
    for (x, element) in x_rest.iter().zip(row_rest) {
        sum += x * value(element);
    }
    sum
}

/// A block's integer sum is exact; the products with the scales are added block after block.
fn dot_q8(row: &[[u8; Q8_BYTES]], quants: &[QuantBlock], scales: &[f32]) -> f32 {
    let mut sum = 0.0;
    for (([low, high, row @ ..], quants), scale) in row.iter().zip(quants).zip(scales) {
        let products = row
            .iter()
            .zip(quants.as_flattened())
            .map(|(weight, quant)| i32::from(*weight as i8) * i32::from(*quant));
        let products: i32 = products.sum();
        sum += products as f32 * (f16_to_f32(u16::from_le_bytes([*low, *high])) * scale);
    }
    sum
}

/// Adds eight lanes in the order in which halving a vector does.
#[inline(always)]
fn add_lanes([a, b, c, d, e, f, g, h]: [f32; LANES]) -> f32 {
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[inline(always)]
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x.iter().zip(y) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    x_rest.iter().zip(y_rest).fold(add_lanes(lanes), |sum, (x, y)| sum + x * y)
}

fn scores(query: &[f32], keys: &[f32], scale: f32, scores: &mut [f32]) {
    for (score, key) in scores.iter_mut().zip(keys.chunks_exact(query.len())) {
        *score = dot(query, key) * scale;
    }
}

fn weighted_sum(weights: &[f32], vectors: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for (weight, vector) in weights.iter().zip(vectors.chunks_exact(out.len())) {
        for (out, element) in out.iter_mut().zip(vector) {
            *out += weight * element;
        }
    }
}

#[inline(always)]
pub(super) fn softmax(scores: &mut [f32]) {
    let mut largest = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = scores.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            largest[lane] = if chunk[lane] > largest[lane] { chunk[lane] } else { largest[lane] };
        }
    }
    let largest = largest.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| a.max(*b));

    let mut sums = [0.0_f32; LANES];
    let (chunks, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - largest);
            sums[lane] += chunk[lane];
        }
    }
    let mut sum = add_lanes(sums);
    for score in rest {
        *score = exp(*score - largest);
        sum += *score;
    }
    let inverse = 1.0 / sum;
    for score in scores {
        *score *= inverse;
    }
}

#[inline(always)]
pub(super) fn swiglu(gates: &mut [f32], ups: &[f32]) {
    for (gate, up) in gates.iter_mut().zip(ups) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

#[inline(always)]
pub(super) fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += chunk[lane] * chunk[lane];
        }
    }
    rest.iter().fold(add_lanes(lanes), |sum, x| sum + x * x)
}

#[inline(always)]
pub(super) fn quantise(x: &[f32], quants: &mut [i16], scales: &mut [f32]) {
    let blocks = x.as_chunks().0.iter().zip(quants.as_chunks_mut::<Q8_VALUES>().0).zip(scales);
    for ((x, quants), scale) in blocks {
        let mut bytes = [0; Q8_VALUES];
        // Rounding the scale to half precision is what llama.cpp and candle do with theirs.
        *scale = f16_to_f32(quantise_q8(x, &mut bytes));
        *quants = bytes.map(i16::from);
    }
}

/// The exponential function, with a relative error below 2^-22. Arguments beyond the range of normal results give
/// the result at its end; what is not a number counts as the lower end.
///
/// Cody and Waite's reduction to [-ln 2 / 2, ln 2 / 2] and the polynomial of the Cephes library's `expf`
/// (<https://www.netlib.org/cephes/>), in operations that are the same alone and in vectors.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.336;
    const HIGHEST: f32 = 88.02;
    // The two parts of ln 2; the first has so few digits that its product with an exponent is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // See `encode::round_to_i8`.
    const MAGIC: f32 = 12_582_912.0;

    let x = if x > LOWEST { x } else { LOWEST };
    let x = if x < HIGHEST { x } else { HIGHEST };
    let shifted = x * core::f32::consts::LOG2_E + MAGIC;
    let exponent = shifted - MAGIC;
    let r = x - exponent * LN_2_HIGH - exponent * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    // The integer in the low bits of `shifted`, moved to the exponent's place, is added to the exponent of `y`.
    f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23))
}
