//! The network: its shape, its weights and its forward pass over sequences laid end to end.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::attention::{CausalAttention, HEAD, Rope};
use super::ops::{RmsNorm, SwiGlu};

/// The network's shape.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Elements of the residual stream.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Elements of the feed-forward layer.
    pub feed_forward: usize,
    /// Longest sequence in tokens.
    pub context: usize,
    /// Base of the rotary frequencies.
    pub rope_base: f64,
}

impl Shape {
    /// The shape of the shipped model.
    pub const fn mini(vocabulary: usize) -> Self {
        Self {
            vocabulary,
            width: 192,
            layers: 4,
            heads: 6,
            kv_heads: 2,
            feed_forward: 512,
            context: 1024,
            rope_base: 100_000.0,
        }
    }
}

/// One block's weights. Matrices are stored input-major, so that a product needs no transposition.
pub struct Layer {
    /// Norm before attention.
    pub attention_norm: Var,
    /// Queries, keys and values in one matrix.
    pub qkv: Var,
    /// Attention's output.
    pub output: Var,
    /// Norm before the feed-forward layer.
    pub feed_forward_norm: Var,
    /// Gate and up-projection in one matrix.
    pub gate_up: Var,
    /// Down-projection.
    pub down: Var,
}

/// The decoder. Input and output embeddings are the same matrix.
pub struct Decoder {
    /// The network's shape.
    pub shape: Shape,
    /// Token embeddings.
    pub embedding: Var,
    /// The blocks.
    pub layers: Vec<Layer>,
    /// Norm before the output.
    pub output_norm: Var,
    rope: Arc<Rope>,
}

impl Decoder {
    /// A decoder with random weights.
    pub fn new(shape: Shape, random: &mut ChaCha8Rng) -> Result<Self> {
        let mut matrix = |rows: usize, columns: usize, deviation: f64| {
            let values = (0..rows * columns).map(|_| (normal(random) * deviation) as f32).collect();
            Var::from_vec(values, (rows, columns), &Device::Cpu)
        };
        let ones = || Var::ones(shape.width, candle_core::DType::F32, &Device::Cpu);
        let width = shape.width;
        let into = 1.0 / (width as f64).sqrt();
        // Small, so that the residual stream starts as the tokens themselves.
        let back = 0.2 / (2.0 * shape.layers as f64).sqrt();
        let embedding = matrix(shape.vocabulary, width, into)?;
        let layers = (0..shape.layers)
            .map(|_| {
                Ok(Layer {
                    attention_norm: ones()?,
                    qkv: matrix(width, (shape.heads + 2 * shape.kv_heads) * HEAD, into)?,
                    output: matrix(shape.heads * HEAD, width, into * back)?,
                    feed_forward_norm: ones()?,
                    gate_up: matrix(width, 2 * shape.feed_forward, into)?,
                    down: matrix(shape.feed_forward, width, back / (shape.feed_forward as f64).sqrt())?,
                })
            })
            .collect::<Result<_>>()?;
        let rope = Arc::new(Rope::new(shape.context, shape.rope_base));
        Ok(Self { shape, embedding, layers, output_norm: ones()?, rope })
    }

    /// All weights by name.
    pub fn weights(&self) -> Vec<(String, &Var)> {
        let mut all = vec![("embedding".into(), &self.embedding), ("output_norm".into(), &self.output_norm)];
        for (i, layer) in self.layers.iter().enumerate() {
            for (name, var) in [
                ("attention_norm", &layer.attention_norm),
                ("qkv", &layer.qkv),
                ("output", &layer.output),
                ("feed_forward_norm", &layer.feed_forward_norm),
                ("gate_up", &layer.gate_up),
                ("down", &layer.down),
            ] {
                all.push((format!("{i}.{name}"), var));
            }
        }
        all
    }

    /// How many numbers the weights are.
    pub fn parameters(&self) -> usize {
        self.weights().iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// The logits at the rows `wanted` of sequences that lie end to end in `tokens`.
    pub fn logits(&self, tokens: &[u32], sequences: Arc<[Range<usize>]>, wanted: &[u32]) -> Result<Tensor> {
        let device = &Device::Cpu;
        let tokens = Tensor::from_slice(tokens, tokens.len(), device)?;
        // The embedding's deviation is 1/√width for the output's sake; the residual stream starts from it
        // as it is, because every reader of the stream normalises first.
        let mut x = self.embedding.index_select(&tokens, 0)?;
        for layer in &self.layers {
            let attention = CausalAttention {
                heads: self.shape.heads,
                kv_heads: self.shape.kv_heads,
                sequences: sequences.clone(),
                rope: self.rope.clone(),
            };
            let normed = x.apply_op2(&layer.attention_norm, RmsNorm)?;
            let mixed = normed.matmul(&layer.qkv)?.apply_op1(attention)?;
            x = (x + mixed.matmul(&layer.output)?)?;
            let normed = x.apply_op2(&layer.feed_forward_norm, RmsNorm)?;
            x = (x + normed.matmul(&layer.gate_up)?.apply_op1(SwiGlu)?.matmul(&layer.down)?)?;
        }
        let wanted = Tensor::from_slice(wanted, wanted.len(), device)?;
        let x = x.index_select(&wanted, 0)?.apply_op2(&self.output_norm, RmsNorm)?;
        x.matmul(&self.embedding.t()?)
    }
}

/// A standard normal number (Box and Muller).
fn normal(random: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * random.random_range(f64::MIN_POSITIVE..1.0).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.random_range(0.0..1.0)).cos()
}
