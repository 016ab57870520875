//! The functions of real numbers that the engine needs and `core` lacks. They are sums of series in double precision, the
//! same on every processor, and right to a few units in the last place; what is kept of them is single precision.

use core::f64::consts::{FRAC_2_PI, LN_2, SQRT_2};

/// Terms of the series for sine and cosine: below 10⁻¹⁷ after these, up to an eighth of a turn.
const TERMS: usize = 9;

/// The square root of a number that is not negative, rounded as IEEE 754 says: Newton's steps in double precision from half of
/// the exponent. No root of a single-precision number is so near to the middle between two that more digits would matter.
pub(crate) fn sqrt(x: f32) -> f32 {
    let x = f64::from(x);
    let start = f64::from_bits((x.to_bits() >> 1) + (1023 << 51));
    (0..5).fold(start, |root, _| 0.5 * (root + x / root)) as f32
}

/// The natural logarithm of a positive, finite, normal number.
pub(crate) fn ln(x: f64) -> f64 {
    // x = m·2ᵉ with m around 1, and ln m = 2 artanh s.
    let bits = x.to_bits() as i64;
    let exponent = (bits - (1.0 / SQRT_2).to_bits() as i64) >> 52;
    let mantissa = f64::from_bits((bits - (exponent << 52)) as u64);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let series = (0..12).rev().fold(0.0, |sum, term| sum * s * s + 1.0 / f64::from(2 * term + 1));
    exponent as f64 * LN_2 + 2.0 * s * series
}

/// A positive, finite, normal number to a power whose result is one.
pub(crate) fn power(base: f64, exponent: f64) -> f64 {
    // e^x = 2ⁿ·e^r with r up to half of ln 2.
    let x = exponent * ln(base);
    let n = nearest(x / LN_2);
    let r = x - n as f64 * LN_2;
    let series = (1..15).rev().fold(1.0, |sum, term| 1.0 + sum * r / f64::from(term));
    series * f64::from_bits(((1023 + n.clamp(-1022, 1023)) << 52) as u64)
}

/// Sine and cosine of an angle below 10⁶.
pub(crate) fn sin_cos(angle: f64) -> (f64, f64) {
    /// The factors between one term and the next: 1/(2·3), 1/(4·5), … for the sine, 1/(1·2), 1/(3·4), … for the cosine.
    const fn factors(first: usize) -> [f64; TERMS] {
        let mut factors = [0.0; TERMS];
        let mut term = 0;
        while term < TERMS {
            let n = first + 2 * term;
            factors[term] = 1.0 / (n * (n + 1)) as f64;
            term += 1;
        }
        factors
    }
    const SINE: [f64; TERMS] = factors(2);
    const COSINE: [f64; TERMS] = factors(1);
    /// A quarter of a turn in two parts. The first has 33 bits, so a million times it is exact.
    const QUARTER: [f64; 2] = [1.570_796_326_734_125_6, 6.077_100_506_506_192e-11];

    let quarters = nearest(angle * FRAC_2_PI);
    let r = angle - quarters as f64 * QUARTER[0] - quarters as f64 * QUARTER[1];
    let series = |factors: [f64; TERMS]| factors.iter().rfold(1.0, |sum, factor| 1.0 - sum * r * r * factor);
    let (sin, cos) = (r * series(SINE), series(COSINE));
    match quarters & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

fn nearest(x: f64) -> i64 {
    (x + 0.5f64.copysign(x)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(found: f64, exact: f64, scale: f64) -> bool {
        (found - exact).abs() <= 4.0 * f64::EPSILON * scale
    }

    proptest! {
        #[test]
        fn square_roots_are_exact(x in 0.0..f32::MAX) {
            prop_assert_eq!(sqrt(x), libm::sqrtf(x));
        }

        #[test]
        fn logarithms(x in prop_oneof![1e-300..1e300f64, 0.5..2.0f64, 1.0..1e7f64]) {
            prop_assert!(close(ln(x), libm::log(x), libm::log(x).abs().max(f64::EPSILON)), "{} {}", ln(x), libm::log(x));
        }

        #[test]
        fn powers(base in 1.0..1e8f64, exponent in -1.0..1.0f64) {
            let exact = libm::pow(base, exponent);
            prop_assert!(close(power(base, exponent), exact, exact * (1.0 + libm::log(base))));
        }

        #[test]
        fn angles(angle in prop_oneof![-10.0..10.0f64, 0.0..1e6f64]) {
            let (sin, cos) = sin_cos(angle);
            prop_assert!(close(sin, libm::sin(angle), 1.0) && close(cos, libm::cos(angle), 1.0), "{sin} {cos}");
        }
    }

    #[test]
    fn nothing_reaches_a_panic() {
        for x in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, 5e-324]
        {
            let _ = (ln(x), sin_cos(x), sqrt(x as f32));
            for y in [0.0, -1.0, 1e300, -1e300, f64::NAN, f64::INFINITY] {
                let _ = power(x, y);
            }
        }
    }
}
