//! The exponential function, with a relative error below 2^-22. Arguments beyond the range of normal results give the
//! result at its end; what is not a number counts as the lower end.
//!
//! Cody and Waite's reduction to [-ln 2 / 2, ln 2 / 2] and the polynomial of the Cephes library's `expf`
//! (<https://www.netlib.org/cephes/>).
use super::simd::Simd;

const LOWEST: f32 = -87.336;
const HIGHEST: f32 = 88.02;
// The two parts of ln 2; the first has so few digits that its product with an exponent is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
// At 1.5 · 2^23 the unit in the last place is 1, so an addition rounds and the low bits are the integer.
const MAGIC: f32 = 12_582_912.0;
const FIRST: f32 = 1.987_569_1e-4;
const OTHERS: [f32; 5] = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// Of one number. It rounds more often than the function of vectors does, so their last bits may differ.
pub(crate) fn exp(x: f32) -> f32 {
    let x = if x > LOWEST { x } else { LOWEST };
    let x = if x < HIGHEST { x } else { HIGHEST };
    let shifted = x * core::f32::consts::LOG2_E + MAGIC;
    let exponent = shifted - MAGIC;
    let r = x - exponent * LN_2_HIGH - exponent * LN_2_LOW;
    let p = OTHERS.iter().fold(FIRST, |p, coefficient| p * r + coefficient);
    let y = p * r * r + r + 1.0;
    // The integer in the low bits of `shifted`, moved to the exponent's place, is added to the exponent of `y`.
    f32::from_bits(y.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// The exponential function of sixteen numbers.
#[inline(always)]
pub(super) unsafe fn exps<S: Simd>(x: S::F) -> S::F {
    // SAFETY: arithmetic only; the caller runs with the instructions of `S`.
    unsafe {
        let x = S::min(S::max(x, S::splat(LOWEST)), S::splat(HIGHEST));
        let shifted = S::fma(x, S::splat(core::f32::consts::LOG2_E), S::splat(MAGIC));
        let exponent = S::sub(shifted, S::splat(MAGIC));
        let r = S::fma(exponent, S::splat(-LN_2_HIGH), x);
        let r = S::fma(exponent, S::splat(-LN_2_LOW), r);
        let mut p = S::splat(FIRST);
        for coefficient in OTHERS {
            p = S::fma(p, r, S::splat(coefficient));
        }
        let y = S::add(S::fma(S::mul(p, r), r, r), S::splat(1.0));
        S::add_exponent(y, shifted)
    }
}
