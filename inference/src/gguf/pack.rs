//! Values as stored blocks, for the writer. The simple types give the bytes of `quantize_row_*_ref` in
//! `ggml-quants.c`; the K types take each group's range, without ggml's search for the scale of least error.
use super::TensorType;
use crate::blocks::{SUPER_BLOCK, k4_scale, q3_k_scale};
use crate::encode::{f16_to_f32, f32_to_bf16, f32_to_f16, quantise_q8, round_to_i8};
use alloc::vec::Vec;

/// Stores values as `kind`. The values fill whole blocks; a rest that does not is dropped.
pub(crate) fn encode(kind: TensorType, values: &[f32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len() / kind.block_elements() * kind.block_bytes());
    match kind {
        TensorType::F32 => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        TensorType::F16 => out.extend(values.iter().flat_map(|value| f32_to_f16(*value).to_le_bytes())),
        TensorType::Bf16 => out.extend(values.iter().flat_map(|value| f32_to_bf16(*value).to_le_bytes())),
        TensorType::Q8_0 => {
            for block in values.as_chunks().0 {
                let mut quants = [0; 32];
                out.extend_from_slice(&quantise_q8(block, &mut quants).to_le_bytes());
                out.extend(quants.map(|quant| quant as u8));
            }
        }
        TensorType::Q4_0 | TensorType::Q5_0 => {
            values.as_chunks().0.iter().for_each(|block| signed(kind == TensorType::Q5_0, block, &mut out));
        }
        TensorType::Q4_1 | TensorType::Q5_1 => {
            values.as_chunks().0.iter().for_each(|block| ranged(kind == TensorType::Q5_1, block, &mut out));
        }
        TensorType::Q2K => values.as_chunks().0.iter().for_each(|block| q2_k(block, &mut out)),
        TensorType::Q4K | TensorType::Q5K => {
            values.as_chunks().0.iter().for_each(|block| k4(kind == TensorType::Q5K, block, &mut out));
        }
        TensorType::Q3K => values.as_chunks().0.iter().for_each(|block| q3_k(block, &mut out)),
        TensorType::Q6K => values.as_chunks().0.iter().for_each(|block| q6_k(block, &mut out)),
    }
    out
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The value that is farthest from zero, with its sign.
fn farthest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most: f32, value| if value.abs() > most.abs() { *value } else { most })
}

fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::MAX, f32::MIN), |(least, most), value| (least.min(*value), most.max(*value)))
}

/// The fifth bits, if there are any, and then the nibbles: the first half of the block in the low ones.
fn put_quants(five: bool, quants: [u8; 32], out: &mut Vec<u8>) {
    if five {
        let bits =
            quants.iter().enumerate().fold(0_u32, |bits, (j, quant)| bits | u32::from(quant >> 4) << j);
        out.extend_from_slice(&bits.to_le_bytes());
    }
    out.extend((0..16).map(|j| quants[j] & 15 | quants[j + 16] << 4));
}

/// Q4_0 and Q5_0.
fn signed(five: bool, values: &[f32; 32], out: &mut Vec<u8>) {
    let half = if five { 16.0 } else { 8.0 };
    let scale = farthest(values) / -half;
    let id = inverse(scale);
    out.extend_from_slice(&f32_to_f16(scale).to_le_bytes());
    // The conversion to an integer cuts off, and limits to the range of the type.
    put_quants(five, values.map(|value| ((value * id + half + 0.5) as u8).min(half as u8 * 2 - 1)), out);
}

/// Q4_1 and Q5_1.
fn ranged(five: bool, values: &[f32; 32], out: &mut Vec<u8>) {
    let most = if five { 31 } else { 15 };
    let (low, high) = range(values);
    let scale = (high - low) / f32::from(most);
    let id = inverse(scale);
    out.extend_from_slice(&f32_to_f16(scale).to_le_bytes());
    out.extend_from_slice(&f32_to_f16(low).to_le_bytes());
    put_quants(five, values.map(|value| (((value - low) * id + 0.5) as u8).min(most)), out);
}

/// Scales and minima of groups, as small integers in units of `d` and `dmin`.
struct Groups {
    d: u16,
    dmin: u16,
    scales: Vec<(u8, u8)>,
}

impl Groups {
    fn new(values: &[f32; SUPER_BLOCK], group: usize, quant_most: f32, scale_most: f32) -> Self {
        let ranges = values.chunks(group).map(|values| {
            let (low, high) = range(values);
            let low = low.min(0.0);
            ((high - low).max(0.0) / quant_most, -low)
        });
        let ranges: Vec<(f32, f32)> = ranges.collect();
        let most = |get: fn(&(f32, f32)) -> f32| ranges.iter().map(get).fold(0.0, f32::max) / scale_most;
        let (d, dmin) = (most(|range| range.0), most(|range| range.1));
        let (id, idmin) = (inverse(d), inverse(dmin));
        let scales =
            ranges.iter().map(|(scale, min)| (round_to_i8(scale * id) as u8, round_to_i8(min * idmin) as u8));
        Self { d: f32_to_f16(d), dmin: f32_to_f16(dmin), scales: scales.collect() }
    }

    /// The quant of a value of a group, given what scale and minimum have become.
    fn quant(&self, group: usize, value: f32, most: f32) -> u8 {
        let (scale, min) = self.scales[group];
        let (d, dmin) = (f16_to_f32(self.d), f16_to_f32(self.dmin));
        let quant = (value + dmin * f32::from(min)) * inverse(d * f32::from(scale));
        (quant + 0.5).clamp(0.0, most) as u8
    }
}

/// Places quants of two bits; see `blocks::pair_place`.
fn put_pairs(quants: impl Fn(usize) -> u8, out: &mut Vec<u8>) {
    out.extend((0..64).map(|byte| {
        (0..4)
            .fold(0, |bits, pair| bits | (quants(byte / 32 * 128 + pair * 32 + byte % 32) & 3) << (pair * 2))
    }));
}

fn q2_k(values: &[f32; SUPER_BLOCK], out: &mut Vec<u8>) {
    let groups = Groups::new(values, 16, 3.0, 15.0);
    out.extend(groups.scales.iter().map(|(scale, min)| scale | min << 4));
    put_pairs(|i| groups.quant(i / 16, values[i], 3.0), out);
    out.extend([groups.d, groups.dmin].iter().flat_map(|half| half.to_le_bytes()));
}

fn k4(five: bool, values: &[f32; SUPER_BLOCK], out: &mut Vec<u8>) {
    let most = if five { 31.0 } else { 15.0 };
    let groups = Groups::new(values, 32, most, 63.0);
    out.extend([groups.d, groups.dmin].iter().flat_map(|half| half.to_le_bytes()));
    let mut scales = [0; 12];
    for (j, (scale, min)) in groups.scales.iter().enumerate() {
        if j < 4 {
            scales[j] |= scale;
            scales[j + 4] |= min;
        } else {
            scales[j + 4] = scale & 15 | min << 4;
            scales[j - 4] |= scale >> 4 << 6;
            scales[j] |= min >> 4 << 6;
        }
    }
    debug_assert!((0..8).all(|j| k4_scale(&scales, j) == groups.scales[j]));
    out.extend_from_slice(&scales);
    let quant = |i: usize| groups.quant(i / 32, values[i], most);
    if five {
        out.extend(
            (0..32).map(|byte| (0..8).fold(0, |bits, bit| bits | (quant(bit * 32 + byte) >> 4) << bit)),
        );
    }
    out.extend((0..128).map(|byte| {
        let i = byte / 32 * 64 + byte % 32;
        quant(i) & 15 | quant(i + 32) << 4
    }));
}

/// Signed scales of groups of 16 in units of a half-precision `d`, and the quants from `-half` to `half - 1`, moved up
/// by `half`.
fn symmetric(values: &[f32; SUPER_BLOCK], half: f32, scale_most: f32) -> (u16, [i8; 16], [u8; SUPER_BLOCK]) {
    let mut scales = [0.0; 16];
    for (scale, values) in scales.iter_mut().zip(values.chunks(16)) {
        *scale = farthest(values) / -half;
    }
    let d = f32_to_f16(farthest(&scales) / -scale_most);
    let id = inverse(f16_to_f32(d));
    let scales = scales.map(|scale| round_to_i8((scale * id).clamp(-scale_most, scale_most - 1.0)));
    let quants = core::array::from_fn(|i| {
        let scale = f16_to_f32(d) * f32::from(scales[i / 16]);
        (values[i] * inverse(scale) + half + 0.5).clamp(0.0, half * 2.0 - 1.0) as u8
    });
    (d, scales, quants)
}

fn q3_k(values: &[f32; SUPER_BLOCK], out: &mut Vec<u8>) {
    let (d, scales, quants) = symmetric(values, 4.0, 32.0);
    out.extend((0..32).map(|byte| (0..8).fold(0, |bits, bit| bits | (quants[bit * 32 + byte] >> 2) << bit)));
    put_pairs(|i| quants[i], out);
    let mut packed = [0; 12];
    for (j, scale) in scales.iter().enumerate() {
        let scale = (scale + 32) as u8;
        packed[j % 8] |= (scale & 15) << (j / 8 * 4);
        packed[8 + j % 4] |= (scale >> 4) << (j / 4 * 2);
    }
    debug_assert!((0..16).all(|j| q3_k_scale(&packed, j) == scales[j]));
    out.extend_from_slice(&packed);
    out.extend_from_slice(&d.to_le_bytes());
}

fn q6_k(values: &[f32; SUPER_BLOCK], out: &mut Vec<u8>) {
    let (d, scales, quants) = symmetric(values, 32.0, 128.0);
    out.extend((0..128).map(|byte| {
        let i = byte / 64 * 128 + byte % 64;
        quants[i] & 15 | quants[i + 64] << 4
    }));
    put_pairs(|i| quants[i] >> 4, out);
    out.extend(scales.map(|scale| scale as u8));
    out.extend_from_slice(&d.to_le_bytes());
}
