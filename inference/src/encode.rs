//! The number formats of weights: conversions of single numbers, and of stored rows to values.
use crate::blocks;
use crate::gguf::TensorType;

/// Values in a Q8_0 block.
#[cfg(feature = "host")]
pub(crate) const Q8_VALUES: usize = blocks::BLOCK;

/// The single-precision value of a half-precision number.
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    if magnitude >= 0x7c00 {
        return f32::from_bits(sign | 0x7f80_0000 | (magnitude & 0x3ff) << 13);
    }
    // Exponent and mantissa in their single-precision places have a bias that is too small by 112; the
    // multiplication corrects it and normalises subnormal numbers.
    const SCALE: f32 = f32::from_bits((127 + 112) << 23);
    let value = f32::from_bits(magnitude << 13) * SCALE;
    f32::from_bits(sign | value.to_bits())
}

/// The half-precision number nearest to a value; ties go to the even one.
pub(crate) fn f32_to_f16(value: f32) -> u16 {
    let sign = (value.to_bits() >> 16) as u16 & 0x8000;
    let magnitude = value.to_bits() & 0x7fff_ffff;
    let half = if magnitude > 0x7f80_0000 {
        0x7e00
    } else if magnitude >= 0x477f_f000 {
        // 65520 and more round to infinity.
        0x7c00
    } else if magnitude < 0x3880_0000 {
        // Below 2^-14 the result is subnormal: beside 0.5 the unit in the last place is 2^-24, the one of
        // subnormal halves, so the addition rounds as needed.
        (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5_f32.to_bits()
    } else {
        let odd = (magnitude >> 13) & 1;
        (magnitude - (112 << 23) + 0xfff + odd) >> 13
    };
    sign | half as u16
}

/// The nearest integer of a value of at most 2^22 in magnitude; ties go to the even one.
///
/// At 1.5 · 2^23 the unit in the last place is 1, so the addition rounds and the low bits are the integer.
#[cfg(any(feature = "plain", feature = "host"))]
pub(crate) fn round_to_i8(value: f32) -> i8 {
    const MAGIC: f32 = 12_582_912.0;
    (value + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()) as i8
}

/// Quantises a block of Q8_0: the scale as a half-precision number, and the values in units of the scale before it
/// was rounded to half precision, as `ggml` does.
#[cfg(feature = "host")]
pub(crate) fn quantise_q8(values: &[f32; Q8_VALUES], quants: &mut [i8; Q8_VALUES]) -> u16 {
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    for (quant, value) in quants.iter_mut().zip(values) {
        *quant = round_to_i8(value * inverse);
    }
    f32_to_f16(scale)
}

/// The values of stored bytes; as many as `out` has room for.
pub(crate) fn decode(kind: TensorType, data: &[u8], out: &mut [f32]) {
    match kind {
        TensorType::F32 => {
            for (value, bytes) in out.iter_mut().zip(data.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        TensorType::F16 => {
            for (value, bytes) in out.iter_mut().zip(data.as_chunks().0) {
                *value = f16_to_f32(u16::from_le_bytes(*bytes));
            }
        }
        TensorType::Bf16 => {
            for (value, bytes) in out.iter_mut().zip(data.as_chunks().0) {
                *value = bf16_to_f32(u16::from_le_bytes(*bytes));
            }
        }
        TensorType::Q8_0 => decode_blocks(data, out, blocks::q8_0),
        TensorType::Q4_0 => decode_blocks(data, out, blocks::q4_0),
        TensorType::Q4_1 => decode_blocks(data, out, blocks::q4_1),
        TensorType::Q5_0 => decode_blocks(data, out, blocks::q5_0),
        TensorType::Q5_1 => decode_blocks(data, out, blocks::q5_1),
        TensorType::Q2K => decode_blocks(data, out, blocks::q2_k),
        TensorType::Q3K => decode_blocks(data, out, blocks::q3_k),
        TensorType::Q4K => decode_blocks(data, out, blocks::q4_k),
        TensorType::Q5K => decode_blocks(data, out, blocks::q5_k),
        TensorType::Q6K => decode_blocks(data, out, blocks::q6_k),
    }
}

fn decode_blocks<const B: usize, const V: usize>(
    data: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; B], &mut [f32; V]),
) {
    for (values, block) in out.as_chunks_mut().0.iter_mut().zip(data.as_chunks().0) {
        decode(block, values);
    }
}

/// The single-precision value of a bfloat16 number.
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The bfloat16 number nearest to a value; ties go to the even one.
#[cfg(feature = "host")]
pub(crate) fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    let odd = (bits >> 16) & 1;
    // The largest finite values may carry into the exponent of infinity, never past the sign.
    ((bits + 0x7fff + odd) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::pack::encode;

    #[test]
    fn every_half_survives_the_way_there_and_back() {
        for bits in 0..=u16::MAX {
            let value = f16_to_f32(bits);
            if value.is_nan() {
                assert!(f16_to_f32(f32_to_f16(value)).is_nan());
            } else {
                assert_eq!(f32_to_f16(value), bits, "{value}");
            }
        }
    }

    #[test]
    fn halves_round_to_the_nearest_and_ties_to_even() {
        // Between each pair of neighbours: the midpoint goes to the even one, and a hair more or less to the nearer.
        for bits in 0..0x7bff_u16 {
            let (low, high) = (f16_to_f32(bits), f16_to_f32(bits + 1));
            let middle = low + (high - low) / 2.0;
            assert_eq!(f32_to_f16(middle), bits + (bits & 1));
            assert_eq!(f32_to_f16(middle.next_up()), bits + 1);
            assert_eq!(f32_to_f16(middle.next_down()), bits);
        }
        assert_eq!(f32_to_f16(65519.99), 0x7bff);
        assert_eq!(f32_to_f16(65520.0), 0x7c00);
        assert_eq!(f32_to_f16(-1e30), 0xfc00);
    }

    #[test]
    fn bf16_rounds_to_the_nearest() {
        for bits in 0..0x7f80_u16 {
            let (low, high) = (bf16_to_f32(bits), bf16_to_f32(bits + 1));
            assert_eq!(f32_to_bf16(low), bits);
            if bits < 0x7f7f {
                assert_eq!(f32_to_bf16(low + (high - low) * 0.25), bits);
                assert_eq!(f32_to_bf16(low + (high - low) * 0.75), bits + 1);
            }
        }
        assert_eq!(f32_to_bf16(f32::MAX), 0x7f80);
        assert!(bf16_to_f32(f32_to_bf16(f32::NAN)).is_nan());
    }

    #[test]
    fn q8_is_within_half_a_step() {
        let values: [f32; 64] = core::array::from_fn(|i| ((i * 37 % 64) as f32 - 30.0) * 0.173);
        let mut back = [0.0; 64];
        decode(TensorType::Q8_0, &encode(TensorType::Q8_0, &values), &mut back);
        for (values, back) in values.chunks(32).zip(back.chunks(32)) {
            let step = values.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / 127.0;
            for (value, back) in values.iter().zip(back) {
                assert!((value - back).abs() <= step * 0.57, "{value} {back}");
            }
        }
    }
}
