//! Rotary position embedding: pairs of elements of queries and keys are turned by angles that grow with the position.
use crate::config::Config;
use crate::error::LimitsError;
use crate::math::{ln, power, sin_cos};
use crate::memory::reserve;
use alloc::vec::Vec;
use core::f64::consts::TAU;

/// Cosine and sine of every angle, computed once in double precision.
pub(crate) struct Rope {
    /// Pairs in a head.
    pairs: usize,
    /// Whether a pair is elements `i` and `i + pairs`, and not neighbours.
    halves: bool,
    /// For each position, for each pair.
    turns: Vec<(f32, f32)>,
}

impl Rope {
    pub(crate) fn new(
        config: &Config,
        factors: Option<&[f32]>,
        positions: usize,
    ) -> Result<Self, LimitsError> {
        let pairs = config.rope_length / 2;
        let mut turns = reserve(positions.checked_mul(pairs).ok_or(LimitsError::Memory)?)?;
        let frequencies: Vec<f64> = (0..pairs)
            .map(|pair| {
                let factor = factors.and_then(|factors| factors.get(pair)).copied().unwrap_or(1.0);
                frequency(config, pair) / f64::from(factor)
            })
            .collect();
        let magnitude = f64::from(config.rope_scaling.magnitude);
        for position in 0..positions {
            turns.extend(frequencies.iter().map(|frequency| {
                let (sin, cos) = sin_cos(position as f64 * frequency);
                ((cos * magnitude) as f32, (sin * magnitude) as f32)
            }));
        }
        Ok(Self { pairs, halves: config.architecture.rotates_halves(), turns })
    }

    /// Turns each head of a vector of heads.
    pub(crate) fn apply(&self, position: usize, heads: &mut [f32], head_length: usize) {
        let turns = &self.turns[position * self.pairs..][..self.pairs];
        let turn = |x: &mut f32, y: &mut f32, (cos, sin): &(f32, f32)| {
            (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
        };
        for head in heads.chunks_exact_mut(head_length) {
            if self.halves {
                let (first, second) = head.split_at_mut(self.pairs);
                first.iter_mut().zip(second).zip(turns).for_each(|((x, y), angle)| turn(x, y, angle));
            } else {
                head.as_chunks_mut().0.iter_mut().zip(turns).for_each(|([x, y], angle)| turn(x, y, angle));
            }
        }
    }
}

/// The angle of a pair at position 1, before what `rope_freqs.weight` may divide it by (`rope_yarn` in ggml).
fn frequency(config: &Config, pair: usize) -> f64 {
    let (base, length) = (f64::from(config.rope_base), config.rope_length as f64);
    let original = power(base, -2.0 * pair as f64 / length);
    let scaled = original / f64::from(config.rope_scaling.factor);
    let Some(yarn) = config.rope_scaling.yarn else { return scaled };
    // The dimension whose wavelength fits so many times into the original context.
    let dimension = |rotations: f32| {
        let wavelength = yarn.original_context as f64 / (f64::from(rotations) * TAU);
        length * ln(wavelength) / (2.0 * ln(base))
    };
    // Rounded down and up; a conversion to an unsigned number leaves out fractions and what is below 0.
    let (fast, slow) = (dimension(yarn.beta_fast), dimension(yarn.beta_slow));
    let low = fast as u32 as f64;
    let high = (slow as u32 as f64 + f64::from(slow > slow as u32 as f64)).min(length - 1.0);
    let ramp = (pair as f64 - low) / (high - low).max(0.001);
    let kept = 1.0 - ramp.clamp(0.0, 1.0);
    scaled * (1.0 - kept) + original * kept
}
