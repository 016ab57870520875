//! Rotary position embedding: pairs of elements of queries and keys are turned by angles that grow with the position.
//!
//! Llama-family GGUF files store query and key weights so that neighbours are pairs (`LLAMA_ROPE_TYPE_NORM`).
use crate::config::Config;
use crate::error::LimitsError;
use crate::memory::reserve;
use alloc::vec::Vec;

/// Cosine and sine of every angle, computed once in double precision.
pub(crate) struct Rope {
    /// Pairs in a head.
    pairs: usize,
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
        let frequencies = (0..pairs).map(|pair| {
            let exponent = -2.0 * pair as f64 / config.rope_length as f64;
            let factor = factors.and_then(|factors| factors.get(pair)).copied().unwrap_or(1.0);
            libm::pow(config.rope_base.into(), exponent) / f64::from(factor)
        });
        let frequencies: Vec<f64> = frequencies.collect();
        for position in 0..positions {
            turns.extend(frequencies.iter().map(|frequency| {
                let angle = position as f64 * frequency;
                (libm::cos(angle) as f32, libm::sin(angle) as f32)
            }));
        }
        Ok(Self { pairs, turns })
    }

    /// Turns each head of a vector of heads.
    pub(crate) fn apply(&self, position: usize, heads: &mut [f32], head_length: usize) {
        let turns = &self.turns[position * self.pairs..][..self.pairs];
        for head in heads.chunks_exact_mut(head_length) {
            for ([x, y], (cos, sin)) in head.as_chunks_mut().0.iter_mut().zip(turns) {
                (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
            }
        }
    }
}
