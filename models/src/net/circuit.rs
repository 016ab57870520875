//! A start that can already copy.
//!
//! A summary is mostly copied: names, times, places. Transformers learn to copy by forming *induction heads*
//! (Olsson et al. 2022, "In-context Learning and Induction Heads"): one layer tells every position which
//! tokens came before it, the next looks for an earlier place with the same predecessors and repeats what
//! followed there. Found by gradient descent alone this takes most of a short training run; here the first two
//! layers start as such a circuit, made of identity blocks, and training is free to change it.
//!
//! The residual stream starts out divided: element 0 is a constant, [`TOKEN`] says which token stands here, and
//! three slots from [`BEFORE`] on say which tokens stand one, two and three places before.

use candle_core::{Device, Result, Tensor, Var};

use super::attention::HEAD;
use super::decoder::{Decoder, Layer, Shape};

/// The first element of the token's own part of the stream.
const TOKEN: usize = 1;
/// The first element of the slots for the tokens before.
const BEFORE: usize = 96;
/// The stream's constant element; the token's part has a norm of about one.
const CONSTANT: f32 = 0.5;

/// A matrix, input-major, that is edited by blocks.
struct Matrix {
    values: Vec<f32>,
    columns: usize,
}

impl Matrix {
    fn of(var: &Var) -> Result<Self> {
        Ok(Self { values: var.flatten_all()?.to_vec1()?, columns: var.dim(1)? })
    }

    fn save(self, var: &Var) -> Result<()> {
        var.set(&Tensor::from_vec(self.values, var.shape(), &Device::Cpu)?)
    }

    fn scale_column(&mut self, column: usize, factor: f32) {
        self.values.iter_mut().skip(column).step_by(self.columns).for_each(|value| *value *= factor);
    }

    /// Makes the columns from `to` on read the rows from `from` on, and nothing else.
    fn identity(&mut self, from: usize, to: usize, count: usize, gain: f32) {
        for i in 0..count {
            self.scale_column(to + i, 0.05);
            self.values[(from + i) * self.columns + to + i] = gain;
        }
    }
}

/// Rewrites a fresh decoder's embedding and its first two layers.
pub fn install(decoder: &Decoder) -> Result<()> {
    divide_stream(&decoder.embedding)?;
    if let [first, second, ..] = &decoder.layers[..] {
        look_back(&decoder.shape, first)?;
        continue_match(&decoder.shape, second)?;
    }
    Ok(())
}

fn divide_stream(embedding: &Var) -> Result<()> {
    let mut matrix = Matrix::of(embedding)?;
    let gain = (matrix.columns as f32 / (BEFORE - TOKEN) as f32).sqrt();
    for row in matrix.values.chunks_exact_mut(matrix.columns) {
        row[..TOKEN].fill(CONSTANT);
        row[TOKEN..BEFORE].iter_mut().for_each(|value| *value *= gain);
        row[BEFORE..].iter_mut().for_each(|value| *value *= 0.05);
    }
    matrix.save(embedding)
}

/// What normalisation multiplies the stream with, from the squares of its parts' norms.
fn norm_gain(shape: &Shape, square: f32) -> f32 {
    (shape.width as f32 / square).sqrt()
}

/// Layer 0: the first three heads look one, two and three places back and write what they find to the slots.
fn look_back(shape: &Shape, layer: &Layer) -> Result<()> {
    const FAST_PAIRS: usize = 5;
    const STRENGTH: f32 = 9.0;
    let gain = norm_gain(shape, 1.0 + CONSTANT * CONSTANT);
    let (mut qkv, mut output) = (Matrix::of(&layer.qkv)?, Matrix::of(&layer.output)?);
    let key = shape.heads * HEAD;
    let value = key + shape.kv_heads * HEAD;
    // A constant query against a constant key leaves only the rotation between their positions; a query that is
    // turned back by `distance` makes it greatest there.
    let weight = STRENGTH / (gain * CONSTANT);
    (0..HEAD).for_each(|column| qkv.scale_column(key + column, 0.05));
    for pair in 0..FAST_PAIRS {
        qkv.values[key + 2 * pair] = weight;
    }
    for head in 0..shape.heads / shape.kv_heads {
        let distance = (head + 1) as f64;
        (0..HEAD).for_each(|column| qkv.scale_column(head * HEAD + column, 0.05));
        for pair in 0..FAST_PAIRS {
            let angle = distance / shape.rope_base.powf(2.0 * pair as f64 / HEAD as f64);
            qkv.values[head * HEAD + 2 * pair] = weight * angle.cos() as f32;
            qkv.values[head * HEAD + 2 * pair + 1] = -weight * angle.sin() as f32;
        }
        output.identity(head * HEAD, BEFORE + head * HEAD, HEAD, 1.0 / gain);
    }
    qkv.identity(TOKEN, value, HEAD, 1.0);
    qkv.save(&layer.qkv)?;
    output.save(&layer.output)
}

/// Layer 1: the first head of each group looks for a place whose two predecessors are the two tokens that
/// stand here, and adds the token there to the prediction.
fn continue_match(shape: &Shape, layer: &Layer) -> Result<()> {
    // The slow pairs of the rotary embedding hardly turn over the length of a chat.
    const SLOW: usize = 14;
    const HALF: usize = (HEAD - SLOW) / 2;
    const MATCH: f32 = 3.0;
    const CONFIDENCE: f32 = 5.0;
    let slots = 3.0 * HEAD as f32 / (BEFORE - TOKEN) as f32;
    let gain = norm_gain(shape, 1.0 + CONSTANT * CONSTANT + slots);
    let (mut qkv, mut output) = (Matrix::of(&layer.qkv)?, Matrix::of(&layer.output)?);
    for group in 0..shape.kv_heads {
        let head = group * shape.heads / shape.kv_heads * HEAD;
        let key = (shape.heads + group) * HEAD;
        let value = (shape.heads + shape.kv_heads + group) * HEAD;
        // Each group compares other elements of the tokens.
        let (last, before_last) = (group * HALF, (2 - group) * HALF / 2);
        (0..HEAD).for_each(|column| qkv.scale_column(head + column, 0.05));
        (0..HEAD).for_each(|column| qkv.scale_column(key + column, 0.05));
        qkv.identity(TOKEN + last, head + SLOW, HALF, MATCH);
        qkv.identity(BEFORE + last, key + SLOW, HALF, MATCH);
        qkv.identity(BEFORE + before_last, head + SLOW + HALF, HALF, MATCH);
        qkv.identity(BEFORE + HEAD + before_last, key + SLOW + HALF, HALF, MATCH);
        qkv.identity(TOKEN + group * HEAD, value, HEAD, 1.0);
        output.identity(head, TOKEN + group * HEAD, HEAD, CONFIDENCE / gain);
    }
    qkv.save(&layer.qkv)?;
    output.save(&layer.output)
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// How often a sequence of random tokens, said twice, is continued rightly the second time.
    fn repeats(decoder: &Decoder) -> f64 {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let once: Vec<u32> = (0..60).map(|_| random.random_range(3..512)).collect();
        let twice = [once.clone(), once].concat();
        let wanted: Vec<u32> = (62..119).collect();
        let span = 0..twice.len();
        let logits = decoder.logits(&twice, [span].into(), &wanted).unwrap();
        let best: Vec<u32> = logits.argmax(1).unwrap().to_vec1().unwrap();
        let right = best.iter().zip(&wanted).filter(|&(&token, &at)| token == twice[at as usize + 1]).count();
        right as f64 / wanted.len() as f64
    }

    #[test]
    fn an_untrained_decoder_repeats_what_it_has_seen() {
        let shape = Shape::mini(512);
        let decoder = Decoder::new(shape, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        let before = repeats(&decoder);
        install(&decoder).unwrap();
        let after = repeats(&decoder);
        assert!(before < 0.1, "{before}");
        assert!(after > 0.6, "{after}");
    }
}
