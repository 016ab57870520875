//! Batches: samples laid end to end, dealt out to the threads.

use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use candle_core::Tensor;

use crate::bpe::Vocabulary;
use crate::dataset::{Difficulty, Generator};
use crate::net::decoder::Decoder;
use crate::net::ops::CrossEntropy;
use crate::prompt::{Encoded, encode};

/// Samples that together have at least so many tokens.
pub fn draw(
    generator: &mut Generator<'_>,
    difficulty: Difficulty,
    vocabulary: &Vocabulary,
    tokens: usize,
) -> Vec<Encoded> {
    let mut samples = Vec::new();
    let mut total = 0;
    while total < tokens {
        let sample = encode(&generator.sample(difficulty), vocabulary);
        total += sample.tokens.len();
        samples.push(sample);
    }
    samples
}

/// Sequences end to end, with the positions whose next token counts.
pub struct Shard {
    tokens: Vec<u32>,
    sequences: Arc<[Range<usize>]>,
    wanted: Vec<u32>,
    /// The tokens that should follow the positions that count.
    pub targets: Vec<u32>,
}

impl Shard {
    /// Samples as one shard. Only the answers count: what people write to each other cannot be foretold.
    pub fn new<'a>(samples: impl IntoIterator<Item = &'a Encoded>) -> Self {
        let (mut tokens, mut sequences) = (Vec::new(), Vec::new());
        let (mut wanted, mut targets) = (Vec::new(), Vec::new());
        for sample in samples {
            let start = tokens.len();
            // The last token predicts nothing.
            tokens.extend(&sample.tokens[..sample.tokens.len() - 1]);
            sequences.push(start..tokens.len());
            for position in sample.answer.clone() {
                wanted.push((start + position - 1) as u32);
                targets.push(sample.tokens[position]);
            }
        }
        Self { tokens, sequences: sequences.into(), wanted, targets }
    }

    /// Deals samples out so that every shard has about as many tokens.
    pub fn deal(samples: &[Encoded], count: usize) -> Vec<Self> {
        let mut dealt: Vec<(usize, Vec<&Encoded>)> = vec![(0, Vec::new()); count];
        for sample in samples {
            if let Some((tokens, samples)) = dealt.iter_mut().min_by_key(|(tokens, _)| *tokens) {
                *tokens += sample.tokens.len();
                samples.push(sample);
            }
        }
        dealt.into_iter().map(|(_, samples)| Self::new(samples)).collect()
    }

    /// The logits where they count.
    pub fn logits(&self, decoder: &Decoder) -> candle_core::Result<Tensor> {
        decoder.logits(&self.tokens, self.sequences.clone(), &self.wanted)
    }

    /// The sum of the losses, times `weight`.
    pub fn loss(&self, decoder: &Decoder, weight: f32) -> candle_core::Result<Tensor> {
        self.logits(decoder)?.apply_op1(CrossEntropy { targets: self.targets.clone(), weight })
    }
}

/// The share of answer tokens, and of facts as a whole, that the decoder would have continued rightly.
pub fn accuracy(decoder: &Decoder, samples: &[Encoded]) -> Result<(f64, f64)> {
    let (mut tokens, mut right_tokens, mut slots, mut right_slots) = (0, 0, 0, 0);
    for group in samples.chunks(16) {
        let shard = Shard::new(group);
        let best: Vec<u32> = shard.logits(decoder)?.argmax(1)?.to_vec1()?;
        let right: Vec<bool> = best.iter().zip(&shard.targets).map(|(a, b)| a == b).collect();
        tokens += right.len();
        right_tokens += right.iter().filter(|&&right| right).count();
        let mut answer = right.as_slice();
        for sample in group {
            let (this, rest) = answer.split_at(sample.answer.len());
            for slot in &sample.slots {
                let range = slot.start - sample.answer.start..slot.end - sample.answer.start;
                slots += 1;
                right_slots += usize::from(this[range].iter().all(|&right| right));
            }
            answer = rest;
        }
    }
    Ok((right_tokens as f64 / tokens as f64, right_slots as f64 / slots as f64))
}
