//! The forward pass over a batch of tokens from any number of sessions.
use crate::cache::Cache;
use crate::error::LimitsError;
use crate::gguf::TensorType;
use crate::kernels::bands::{Bands, MAX_PARTS};
use crate::kernels::{Inputs, Kernels};
use crate::memory::Buffer;
use crate::model::{Layer, Matrix, Model};
use crate::rope::Rope;
use crate::workers::Workers;

/// Rows are divided among workers in multiples of what a kernel multiplies together.
const ROW_GRANULE: usize = 8;
/// Elements that a quantised vector has one scale for.
const BLOCK: usize = 32;

/// A token to evaluate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Item {
    /// Whose cache it belongs to.
    pub(crate) session: usize,
    /// Where in the session it stands. All earlier positions have been evaluated, or are earlier in the batch. What
    /// the session had stored there is replaced.
    pub(crate) position: usize,
    /// Within the vocabulary.
    pub(crate) token: u32,
    /// Whether logits for the token after it are wanted.
    pub(crate) wants_logits: bool,
}

impl zeroize::DefaultIsZeroes for Item {}

/// Everything that the pass needs beside the weights, for a fixed largest batch.
pub(crate) struct Forward<'m> {
    model: &'m Model<'m>,
    rope: Rope,
    pub(crate) cache: Cache,
    scratch: Scratch,
}

/// The intermediate results, each one vector for each token of the batch.
struct Scratch {
    state: Buffer<f32>,
    normed: Buffer<f32>,
    query: Buffer<f32>,
    key: Buffer<f32>,
    value: Buffer<f32>,
    attended: Buffer<f32>,
    gate: Buffer<f32>,
    up: Buffer<f32>,
    product: Buffer<f32>,
    /// The quantised form of whichever vectors are multiplied next.
    quants: Buffer<i16>,
    scales: Buffer<f32>,
    /// Attention scores, for each worker those of one head.
    scores: Buffer<f32>,
    logits: Buffer<f32>,
}

impl<'m> Forward<'m> {
    /// Allocates for so many sessions of so many positions, batches of so many tokens, of which so many want logits.
    pub(crate) fn new(
        model: &'m Model<'m>,
        sessions: usize,
        positions: usize,
        batch: usize,
        logits: usize,
        workers: &impl Workers,
    ) -> Result<Self, LimitsError> {
        let config = model.config();
        let embedding = config.embedding_length;
        let (query, key_value) = (config.query_length(), config.key_value_length());
        let widest = embedding.max(query).max(config.feed_forward_length);
        let scratch = Scratch {
            state: Buffer::zeros(&[batch, embedding])?,
            normed: Buffer::zeros(&[batch, embedding])?,
            query: Buffer::zeros(&[batch, query])?,
            key: Buffer::zeros(&[batch, key_value])?,
            value: Buffer::zeros(&[batch, key_value])?,
            attended: Buffer::zeros(&[batch, query])?,
            gate: Buffer::zeros(&[batch, config.feed_forward_length])?,
            up: Buffer::zeros(&[batch, config.feed_forward_length])?,
            product: Buffer::zeros(&[batch, embedding])?,
            quants: Buffer::zeros(&[batch, widest])?,
            scales: Buffer::zeros(&[batch, widest.div_ceil(BLOCK)])?,
            scores: Buffer::zeros(&[workers.count().clamp(1, MAX_PARTS), positions])?,
            logits: Buffer::zeros(&[logits, config.vocabulary_length])?,
        };
        let rope = Rope::new(config, model.rope_factors.as_deref(), positions)?;
        let cache = Cache::new(config, sessions, positions)?;
        Ok(Self { model, rope, cache, scratch })
    }

    /// Evaluates a batch and returns the logits that were wanted, in the order of their tokens.
    pub(crate) fn run(&mut self, batch: &[Item], workers: &impl Workers) -> &mut [f32] {
        let Self { model, rope, cache, scratch } = self;
        let config = model.config();
        let kernels = model.kernels;
        let width = config.embedding_length;
        let count = batch.len();

        for (item, state) in batch.iter().zip(scratch.state.chunks_exact_mut(width)) {
            model.embedding.decode_row(item.token as usize, state);
        }
        for (index, layer) in model.layers.iter().enumerate() {
            scratch.attend(model, index, layer, batch, rope, cache, workers);
            scratch.feed_forward(model, layer, count, workers);
        }

        // The last product is the largest, so only the tokens whose logits are wanted take part in it.
        let mut wanted = 0;
        for (index, _) in batch.iter().enumerate().filter(|(_, item)| item.wants_logits) {
            scratch.state.copy_within(index * width..(index + 1) * width, wanted * width);
            wanted += 1;
        }
        let Scratch { state, normed, quants, scales, logits, .. } = scratch;
        let (state, normed) = (&state[..wanted * width], &mut normed[..wanted * width]);
        normalise(kernels, state, &model.output_norm, config.rms_epsilon, normed);
        let logits = &mut logits[..wanted * config.vocabulary_length];
        let mut multiplier = Multiplier::new(kernels, workers, normed, width, quants, scales);
        multiplier.multiply(&model.output, logits);
        logits
    }

    /// Overwrites all intermediate results.
    pub(crate) fn wipe_scratch(&mut self) {
        self.scratch.quants.wipe();
        self.scratch.floats().into_iter().for_each(Buffer::wipe);
    }

    #[cfg(test)]
    pub(crate) fn is_wiped(&mut self) -> bool {
        self.scratch.quants.iter().all(|value| *value == 0)
            && self.scratch.floats().iter().all(|buffer| buffer.iter().all(|value| *value == 0.0))
            && self.cache.is_wiped()
    }
}

impl Scratch {
    /// All buffers but the one of integers.
    fn floats(&mut self) -> [&mut Buffer<f32>; 12] {
        [
            &mut self.state,
            &mut self.normed,
            &mut self.query,
            &mut self.key,
            &mut self.value,
            &mut self.attended,
            &mut self.gate,
            &mut self.up,
            &mut self.product,
            &mut self.scales,
            &mut self.scores,
            &mut self.logits,
        ]
    }

    /// The attention half of a layer.
    #[expect(clippy::too_many_arguments, reason = "one layer's share of everything the pass has")]
    fn attend(
        &mut self,
        model: &Model<'_>,
        index: usize,
        layer: &Layer<'_>,
        batch: &[Item],
        rope: &Rope,
        cache: &mut Cache,
        workers: &impl Workers,
    ) {
        let config = model.config();
        let (width, head_length) = (config.embedding_length, config.head_length);
        let (query_length, key_value_length) = (config.query_length(), config.key_value_length());
        let count = batch.len();
        let state = &mut self.state[..count * width];
        let normed = &mut self.normed[..count * width];
        let query = &mut self.query[..count * query_length];
        let key = &mut self.key[..count * key_value_length];
        let value = &mut self.value[..count * key_value_length];
        let attended = &mut self.attended[..count * query_length];
        let product = &mut self.product[..count * width];

        normalise(model.kernels, state, &layer.attention_norm, config.rms_epsilon, normed);
        let mut multiplier =
            Multiplier::new(model.kernels, workers, normed, width, &mut self.quants, &mut self.scales);
        multiplier.multiply(&layer.query, query);
        multiplier.multiply(&layer.key, key);
        multiplier.multiply(&layer.value, value);

        let vectors = query
            .chunks_exact_mut(query_length)
            .zip(key.chunks_exact_mut(key_value_length))
            .zip(value.chunks_exact(key_value_length));
        for (item, ((query, key), value)) in batch.iter().zip(vectors) {
            for (heads, norm) in [(&mut *query, &layer.query_norm), (&mut *key, &layer.key_norm)] {
                if let Some(weights) = norm {
                    normalise_in_place(model.kernels, heads, weights, config.rms_epsilon);
                }
            }
            rope.apply(item.position, query, head_length);
            rope.apply(item.position, key, head_length);
            cache.store(item.session, index, item.position, key, value);
        }

        let attention = Attention { model, layer: index, batch, cache, query };
        attention.run(attended, &mut self.scores, workers);

        let mut multiplier = Multiplier::new(
            model.kernels,
            workers,
            attended,
            query_length,
            &mut self.quants,
            &mut self.scales,
        );
        multiplier.multiply(&layer.attention_output, product);
        add(state, product);
    }

    /// The feed-forward half of a layer.
    fn feed_forward(&mut self, model: &Model<'_>, layer: &Layer<'_>, count: usize, workers: &impl Workers) {
        let config = model.config();
        let (width, hidden) = (config.embedding_length, config.feed_forward_length);
        let state = &mut self.state[..count * width];
        let normed = &mut self.normed[..count * width];
        let gate = &mut self.gate[..count * hidden];
        let up = &mut self.up[..count * hidden];
        let product = &mut self.product[..count * width];

        normalise(model.kernels, state, &layer.feed_forward_norm, config.rms_epsilon, normed);
        let mut multiplier =
            Multiplier::new(model.kernels, workers, normed, width, &mut self.quants, &mut self.scales);
        multiplier.multiply(&layer.gate, gate);
        multiplier.multiply(&layer.up, up);
        (model.kernels.swiglu)(gate, up);
        let mut multiplier =
            Multiplier::new(model.kernels, workers, gate, hidden, &mut self.quants, &mut self.scales);
        multiplier.multiply(&layer.down, product);
        add(state, product);
    }
}

/// Multiplies matrices with one set of vectors, which are quantised when the first matrix needs it.
struct Multiplier<'a, W> {
    kernels: &'static Kernels,
    workers: &'a W,
    values: &'a [f32],
    width: usize,
    quants: &'a mut [i16],
    scales: &'a mut [f32],
    quantised: bool,
}

impl<'a, W: Workers> Multiplier<'a, W> {
    fn new(
        kernels: &'static Kernels,
        workers: &'a W,
        values: &'a [f32],
        width: usize,
        quants: &'a mut [i16],
        scales: &'a mut [f32],
    ) -> Self {
        let quants = &mut quants[..values.len()];
        Self { kernels, workers, values, width, quants, scales, quantised: false }
    }

    fn multiply(&mut self, matrix: &Matrix<'_>, out: &mut [f32]) {
        if matrix.kind == TensorType::Q8_0 && !self.quantised {
            // The rows of a quantised matrix are whole blocks, and so are the vectors then.
            (self.kernels.quantise)(self.values, self.quants, self.scales);
            self.quantised = true;
        }
        let inputs =
            Inputs { width: self.width, values: self.values, quants: self.quants, scales: self.scales };
        let bands = Bands::new(out, matrix.height, self.workers.count(), ROW_GRANULE);
        self.workers.run(&|worker| {
            if let Some(mut band) = bands.take(worker) {
                (self.kernels.multiply)(matrix.rows(band.columns()), inputs, &mut band);
                if let Some(bias) = matrix.bias.get(band.columns()) {
                    (0..band.height()).for_each(|row| add(band.row(row), bias));
                }
            }
        });
    }
}

/// The attention of a batch to what its sessions have cached.
struct Attention<'a> {
    model: &'a Model<'a>,
    layer: usize,
    batch: &'a [Item],
    cache: &'a Cache,
    query: &'a [f32],
}

impl Attention<'_> {
    /// Divides the pairs of token and key-value head among the workers.
    fn run(&self, out: &mut [f32], scores: &mut [f32], workers: &impl Workers) {
        let config = self.model.config();
        let group = config.query_length() / config.head_count_kv;
        let count = workers.count();
        let positions = scores.len() / count.clamp(1, MAX_PARTS);
        let len = out.len();
        let outs = Bands::new(out, len, count, group);
        let len = scores.len();
        let scores = Bands::new(scores, len, count, positions);
        workers.run(&|worker| {
            let (Some(mut out), Some(mut scores)) = (outs.take(worker), scores.take(worker)) else { return };
            let first = out.columns().start / group;
            for (unit, out) in out.row(0).chunks_exact_mut(group).enumerate() {
                let (token, head) =
                    ((first + unit) / config.head_count_kv, (first + unit) % config.head_count_kv);
                self.attend(token, head, out, scores.row(0));
            }
        });
    }

    /// The attention of one token's query heads that share a key-value head.
    fn attend(&self, token: usize, head: usize, out: &mut [f32], scores: &mut [f32]) {
        let config = self.model.config();
        let kernels = self.model.kernels;
        let length = config.head_length;
        let item = self.batch[token];
        let scale = config.temperature_at(item.position) / libm::sqrtf(length as f32);
        let (keys, values) = self.cache.head(item.session, self.layer, head, item.position + 1);
        let first = (item.position + 1).saturating_sub(config.sliding_window.unwrap_or(usize::MAX));
        let (keys, values) = (&keys[first * length..], &values[first * length..]);
        let scores = &mut scores[..item.position + 1 - first];
        let queries = &self.query[token * config.query_length() + head * out.len()..][..out.len()];
        for (query, out) in queries.chunks_exact(length).zip(out.chunks_exact_mut(length)) {
            (kernels.scores)(query, keys, scale, scores);
            (kernels.softmax)(scores);
            (kernels.weighted_sum)(scores, values, out);
        }
    }
}

/// Scales each vector to a mean square of one, and each of its elements by its weight.
fn normalise(kernels: &Kernels, state: &[f32], weights: &[f32], epsilon: f32, out: &mut [f32]) {
    let width = weights.len();
    for (state, out) in state.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mean = (kernels.sum_of_squares)(state) / width as f32;
        let scale = 1.0 / libm::sqrtf(mean + epsilon);
        for ((out, state), weight) in out.iter_mut().zip(state).zip(weights) {
            *out = state * scale * weight;
        }
    }
}

/// The same, of the vectors themselves.
fn normalise_in_place(kernels: &Kernels, vectors: &mut [f32], weights: &[f32], epsilon: f32) {
    let width = weights.len();
    for vector in vectors.chunks_exact_mut(width) {
        let mean = (kernels.sum_of_squares)(vector) / width as f32;
        let scale = 1.0 / libm::sqrtf(mean + epsilon);
        for (element, weight) in vector.iter_mut().zip(weights) {
            *element = *element * scale * weight;
        }
    }
}

fn add(state: &mut [f32], product: &[f32]) {
    for (state, product) in state.iter_mut().zip(product) {
        *state += product;
    }
}
