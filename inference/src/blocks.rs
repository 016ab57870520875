//! The block formats of quantised weights, and the scalar way from stored bytes to values: the truth that every
//! kernel is held to.
//!
//! Fields, their order and the order of operations are those of `ggml-common.h` and `dequantize_row_*` in
//! `ggml-quants.c` of <https://github.com/ggml-org/llama.cpp>; values come out bit for bit the same. Blocks of 32 have
//! a half-precision scale `d`, and a minimum `m` in the `_1` types. Super-blocks of 256 (the K types) have `d`, for some
//! `dmin`, and small integer scales for each 16 or 32 values.
use crate::encode::f16_to_f32;

/// Values in a block of the simple types.
pub(crate) const BLOCK: usize = 32;
/// Values in a super-block of the K types (`QK_K`).
pub(crate) const SUPER_BLOCK: usize = 256;

pub(crate) const Q4_0_BYTES: usize = 2 + BLOCK / 2;
pub(crate) const Q4_1_BYTES: usize = 4 + BLOCK / 2;
pub(crate) const Q5_0_BYTES: usize = 2 + 4 + BLOCK / 2;
pub(crate) const Q5_1_BYTES: usize = 4 + 4 + BLOCK / 2;
pub(crate) const Q8_0_BYTES: usize = 2 + BLOCK;
pub(crate) const Q2_K_BYTES: usize = 16 + 64 + 4;
pub(crate) const Q3_K_BYTES: usize = 32 + 64 + 12 + 2;
pub(crate) const Q4_K_BYTES: usize = 4 + 12 + 128;
pub(crate) const Q5_K_BYTES: usize = 4 + 12 + 32 + 128;
pub(crate) const Q6_K_BYTES: usize = 128 + 64 + 16 + 2;

fn half(bytes: &[u8]) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// The two halves of a block of nibbles: the low ones are its first half.
fn nibbles(quants: &[u8], out: &mut [f32], value: impl Fn(usize, u8) -> f32) {
    let (low, high) = out.split_at_mut(quants.len());
    for (j, ((low, high), quant)) in low.iter_mut().zip(high).zip(quants).enumerate() {
        *low = value(j, quant & 15);
        *high = value(j + quants.len(), quant >> 4);
    }
}

pub(crate) fn q4_0(block: &[u8; Q4_0_BYTES], out: &mut [f32; BLOCK]) {
    let d = half(block);
    nibbles(&block[2..], out, |_, quant| (f32::from(quant) - 8.0) * d);
}

pub(crate) fn q4_1(block: &[u8; Q4_1_BYTES], out: &mut [f32; BLOCK]) {
    let (d, m) = (half(block), half(&block[2..]));
    nibbles(&block[4..], out, |_, quant| f32::from(quant) * d + m);
}

/// The fifth bits of a block, value `j`'s in bit `j`.
fn fifth(bits: &[u8], j: usize) -> u8 {
    (bits[j / 8] >> (j % 8) & 1) << 4
}

pub(crate) fn q5_0(block: &[u8; Q5_0_BYTES], out: &mut [f32; BLOCK]) {
    let d = half(block);
    nibbles(&block[6..], out, |j, quant| (f32::from(quant | fifth(&block[2..], j)) - 16.0) * d);
}

pub(crate) fn q5_1(block: &[u8; Q5_1_BYTES], out: &mut [f32; BLOCK]) {
    let (d, m) = (half(block), half(&block[2..]));
    nibbles(&block[8..], out, |j, quant| f32::from(quant | fifth(&block[4..], j)) * d + m);
}

pub(crate) fn q8_0(block: &[u8; Q8_0_BYTES], out: &mut [f32; BLOCK]) {
    let d = half(block);
    for (value, quant) in out.iter_mut().zip(&block[2..]) {
        *value = f32::from(*quant as i8) * d;
    }
}

/// Byte and shift of value `i` where each run of 32 bytes holds 128 values, 2 bits each: the lowest bits are the first
/// 32 values.
fn pair_place(i: usize) -> (usize, usize) {
    (i / 128 * 32 + i % 32, i % 128 / 32 * 2)
}

/// Scales and minima of 16 values each in a nibble; quants of 2 bits; `d`; `dmin`.
pub(crate) fn q2_k(block: &[u8; Q2_K_BYTES], out: &mut [f32; SUPER_BLOCK]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half(&block[80..]), half(&block[82..]));
    for (i, value) in out.iter_mut().enumerate() {
        let scale = scales[i / 16];
        let (byte, shift) = pair_place(i);
        let quant = f32::from(quants[byte] >> shift & 3);
        *value = d * f32::from(scale & 15) * quant - dmin * f32::from(scale >> 4);
    }
}

/// The sixteen 6-bit scales of a Q3_K block: nibbles in the first eight bytes, the two upper bits in the last four.
pub(crate) fn q3_k_scale(scales: &[u8], j: usize) -> i8 {
    let low = scales[j % 8] >> (j / 8 * 4) & 15;
    let high = scales[8 + j % 4] >> (j / 4 * 2) & 3;
    (low | high << 4) as i8 - 32
}

/// The third bit of each quant, value `i`'s in bit `i / 32` of byte `i % 32`; the two lower bits; scales; `d`.
pub(crate) fn q3_k(block: &[u8; Q3_K_BYTES], out: &mut [f32; SUPER_BLOCK]) {
    let (mask, quants, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half(&block[108..]);
    for (i, value) in out.iter_mut().enumerate() {
        let (byte, shift) = pair_place(i);
        let quant = quants[byte] >> shift & 3 | (mask[i % 32] >> (i / 32) & 1) << 2;
        *value = d * f32::from(q3_k_scale(scales, i / 16)) * (f32::from(quant) - 4.0);
    }
}

/// The 6-bit scale and minimum of 32 values of a Q4_K or Q5_K block (`get_scale_min_k4`).
pub(crate) fn k4_scale(scales: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (scales[j] & 63, scales[j + 4] & 63)
    } else {
        (scales[j + 4] & 15 | scales[j - 4] >> 6 << 4, scales[j + 4] >> 4 | scales[j] >> 6 << 4)
    }
}

/// The nibble of value `i` where each run of 32 bytes holds 64 values, the low nibbles first.
fn nibble(quants: &[u8], i: usize) -> u8 {
    quants[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15
}

fn k4(block: &[u8], out: &mut [f32; SUPER_BLOCK], quant: impl Fn(usize) -> u8) {
    let (d, dmin) = (half(block), half(&block[2..]));
    for (j, values) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = k4_scale(&block[4..16], j);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        for (l, value) in values.iter_mut().enumerate() {
            *value = scale * f32::from(quant(j * 32 + l)) - min;
        }
    }
}

/// `d`; `dmin`; scales and minima; nibbles.
pub(crate) fn q4_k(block: &[u8; Q4_K_BYTES], out: &mut [f32; SUPER_BLOCK]) {
    k4(block, out, |i| nibble(&block[16..], i));
}

/// As Q4_K, with the fifth bit of value `i` in bit `i / 32` of byte `i % 32` before the nibbles.
pub(crate) fn q5_k(block: &[u8; Q5_K_BYTES], out: &mut [f32; SUPER_BLOCK]) {
    k4(block, out, |i| nibble(&block[48..], i) | (block[16 + i % 32] >> (i / 32) & 1) << 4);
}

/// Nibbles; upper pairs of bits; signed scales of 16 values each; `d`.
pub(crate) fn q6_k(block: &[u8; Q6_K_BYTES], out: &mut [f32; SUPER_BLOCK]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half(&block[208..]);
    for (i, value) in out.iter_mut().enumerate() {
        let nibble = low[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15;
        let (byte, shift) = pair_place(i);
        let quant = nibble | (high[byte] >> shift & 3) << 4;
        *value = d * f32::from(scales[i / 16] as i8) * (f32::from(quant) - 32.0);
    }
}

#[cfg(test)]
mod tests {
    use crate::encode::decode;
    use crate::gguf::TensorType;
    use crate::gguf::pack::encode;
    use alloc::vec;
    use alloc::vec::Vec;

    /// What `tests/data/blocks.py` wrote: type, stored bytes, values.
    fn vectors() -> Vec<(TensorType, &'static [u8], Vec<f32>)> {
        let mut rest: &[u8] = include_bytes!("../tests/data/blocks.bin");
        let mut vectors = Vec::new();
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        while !rest.is_empty() {
            let kind = TensorType::from_id(word(&rest[..4])).expect("a supported type");
            let count = word(&rest[4..8]) as usize;
            let (stored, after) = rest[8..].split_at(kind.bytes(count).expect("whole blocks"));
            let (values, after) = after.split_at(count * 4);
            let values = values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            vectors.push((kind, stored, values.collect()));
            rest = after;
        }
        vectors
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn every_type_has_the_values_that_the_gguf_package_gives() {
        let vectors = vectors();
        assert_eq!(vectors.len(), 15);
        for (kind, stored, expected) in &vectors[..10] {
            let mut values = vec![0.0; expected.len()];
            decode(*kind, stored, &mut values);
            assert_eq!(bits(&values), bits(expected), "{kind:?}");
        }
    }

    #[test]
    fn the_simple_types_are_made_as_the_gguf_package_makes_them() {
        for (kind, stored, values) in &vectors()[10..] {
            assert_eq!(encode(*kind, values), *stored, "{kind:?}");
        }
    }

    #[test]
    fn what_is_stored_is_near_what_was_given() {
        let values: Vec<f32> = (0..1024).map(|i| ((i * 37 % 64) as f32 - 30.0) * 0.173).collect();
        for kind in TensorType::ALL {
            let mut back = vec![0.0; values.len()];
            decode(kind, &encode(kind, &values), &mut back);
            let squares = values.iter().zip(&back).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
            let error = (squares / values.iter().map(|value| value * value).sum::<f32>()).sqrt();
            let limit = match kind {
                TensorType::F32 => 0.0,
                TensorType::Q2K => 0.35,
                TensorType::Q3K => 0.2,
                TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q4K => 0.08,
                TensorType::Q5_0 | TensorType::Q5_1 | TensorType::Q5K => 0.04,
                _ => 0.02,
            };
            assert!(error <= limit, "{kind:?}: {error}");
        }
    }
}
