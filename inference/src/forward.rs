//! The forward pass over a batch of tokens from any number of sessions.
use crate::cache::Cache;
use crate::error::LimitsError;
use crate::gguf::TensorType;
use crate::kernels::attention::{self, Queries};
use crate::kernels::bands::{Band, Bands, Shares};
use crate::kernels::elementwise::Task;
use crate::kernels::matrix::{Inputs, PANEL_BYTES};
use crate::kernels::pack::Packed;
use crate::kernels::simd::{BLOCK, Block};
use crate::kernels::{Kernels, Price};
use crate::math::sqrt;
use crate::memory::{Buffer, reserve};
use crate::model::{Layer, Matrix, Model};
use crate::rope::Rope;
use crate::workers::Workers;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Rows are divided among workers in multiples of what a kernel multiplies together.
const ROW_GRANULE: usize = 32;
/// More workers than this are not used.
const MAX_WORKERS: usize = 64;
/// Parts that work is divided into, for each worker: whoever is done first takes the next.
const PARTS: usize = 4;
/// Tokens whose attention is one part of the work.
const ATTENTION_TOKENS: usize = 16;
/// From so many tokens on, the work on single tokens is divided among workers too.
const MANY_TOKENS: usize = 8;
/// Bytes of the next matrix that a worker fetches while it waits for the others.
const FETCHED: usize = 1 << 15;
/// Elements of a hidden state that a worker holds before they are quantised.
const STRIP: usize = 1 << 14;

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
    /// What batches of a few tokens cost.
    pub(crate) price: Price,
    scratch: Scratch,
}

/// The intermediate results, each one vector for each token of the batch, and working memory of the workers.
struct Scratch {
    state: Buffer<f32>,
    normed: Buffer<f32>,
    query: Buffer<f32>,
    key: Buffer<f32>,
    value: Buffer<f32>,
    /// By key-value head, and then by token.
    attended: Buffer<f32>,
    /// The hidden state of the feed-forward part: as it is where a layer's next matrix is of a floating-point type,
    /// and quantised where one's is not.
    hidden: Buffer<f32>,
    hidden_blocks: Buffer<Block>,
    product: Buffer<f32>,
    /// The quantised form of whichever vectors are multiplied next.
    blocks: Buffer<Block>,
    logits: Buffer<f32>,
    /// For each worker, unpacked weights.
    panels: Buffer<u8>,
    /// For each worker, the scores and sums of attention, and gates and ups of some rows.
    floats: Buffer<f32>,
    floats_each: usize,
    /// Neighbouring tokens of one session: the first's index and how many they are.
    runs: Vec<(usize, usize)>,
    /// Where the parts of the attention's result end.
    ends: Vec<usize>,
}

fn is_float(matrix: &Matrix) -> bool {
    matches!(matrix.kind, TensorType::F32 | TensorType::F16 | TensorType::Bf16)
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
        let (width, hidden) = (config.embedding_length, config.feed_forward_length);
        let (query, key_value) = (config.query_length(), config.key_value_length());
        let has_hidden =
            |float: bool| usize::from(model.layers.iter().any(|layer| is_float(&layer.down) == float));
        let workers = workers.count().clamp(1, MAX_WORKERS);
        let strips = 2 * STRIP.max(ROW_GRANULE * batch);
        let floats_each = attention::scratch_len(config.head_length).max(strips);
        let scratch = Scratch {
            state: Buffer::zeros(&[batch, width])?,
            normed: Buffer::zeros(&[batch, width])?,
            query: Buffer::zeros(&[batch, query])?,
            key: Buffer::zeros(&[batch, key_value])?,
            value: Buffer::zeros(&[batch, key_value])?,
            attended: Buffer::zeros(&[batch, query])?,
            hidden: Buffer::zeros(&[batch, hidden, has_hidden(true)])?,
            hidden_blocks: Buffer::zeros(&[batch, hidden / BLOCK, has_hidden(false)])?,
            product: Buffer::zeros(&[batch, width])?,
            blocks: Buffer::zeros(&[batch, width.max(query) / BLOCK])?,
            logits: Buffer::zeros(&[logits, config.vocabulary_length])?,
            panels: Buffer::zeros(&[workers, PANEL_BYTES])?,
            floats: Buffer::zeros(&[workers, floats_each])?,
            floats_each,
            runs: reserve(batch)?,
            ends: reserve(batch.checked_mul(config.head_count_kv).ok_or(LimitsError::Memory)?)?,
        };
        let rope = Rope::new(config, model.rope_factors.as_deref(), positions)?;
        let cache = Cache::new(config, sessions, positions)?;
        // Floating-point weights are multiplied with one token after the other.
        let price = if has_hidden(true) > 0 { Price { tokens: 1, cost: 1.0 } } else { model.kernels.price };
        Ok(Self { model, rope, cache, price, scratch })
    }

    /// Evaluates a batch and returns the logits that were wanted, in the order of their tokens.
    pub(crate) fn run(&mut self, batch: &[Item], workers: &impl Workers) -> &mut [f32] {
        let Self { model, rope, cache, scratch, .. } = self;
        let config = model.config();
        let width = config.embedding_length;
        let count = batch.len();
        let pass = Pass { model, kernels: model.kernels, workers, batch };

        scratch.plan(batch, config.head_count_kv, config.query_length() / config.head_count_kv);
        let states = pass.by_tokens(&mut scratch.state[..count * width], width);
        pass.for_tokens(|part| {
            let Some(mut states) = states.take(part) else { return };
            let first = states.columns().start / width;
            for (item, state) in batch[first..].iter().zip(states.row(0).chunks_exact_mut(width)) {
                model.packed(&model.embedding).decode_row(item.token as usize, state);
            }
        });
        for (index, layer) in model.layers.iter().enumerate() {
            scratch.attend(&pass, index, layer, rope, cache);
            let next = model.layers.get(index + 1).map_or(model.output(), |next| &next.query);
            scratch.feed_forward(&pass, layer, next);
        }

        // The last product is the largest, so only the tokens whose logits are wanted take part in it.
        let mut wanted = 0;
        for (index, _) in batch.iter().enumerate().filter(|(_, item)| item.wants_logits) {
            scratch.state.copy_within(index * width..(index + 1) * width, wanted * width);
            wanted += 1;
        }
        let Scratch { state, normed, blocks, logits, panels, .. } = scratch;
        let (state, normed) = (&state[..wanted * width], &mut normed[..wanted * width]);
        let logits = &mut logits[..wanted * config.vocabulary_length];
        let pass = Pass { batch: &batch[..wanted], ..pass };
        let output = model.output();
        let inputs = pass.normalise(state, &model.output_norm, normed, blocks, !is_float(output));
        let first = model.layers.first().map_or(output, |layer| &layer.query);
        pass.multiply(&mut [(output, logits)], inputs, panels, first);
        logits
    }

    /// Overwrites all intermediate results.
    pub(crate) fn wipe_scratch(&mut self) {
        self.scratch.blocks.wipe();
        self.scratch.hidden_blocks.wipe();
        self.scratch.all_floats().into_iter().for_each(Buffer::wipe);
    }

    #[cfg(test)]
    pub(crate) fn is_wiped(&mut self) -> bool {
        let blocks = [&self.scratch.blocks, &self.scratch.hidden_blocks];
        blocks.iter().all(|blocks| blocks.iter().all(|block| *block == Block::default()))
            && self.scratch.all_floats().iter().all(|buffer| buffer.iter().all(|value| *value == 0.0))
            && self.cache.is_wiped()
    }
}

impl Scratch {
    /// All buffers of floats.
    fn all_floats(&mut self) -> [&mut Buffer<f32>; 10] {
        [
            &mut self.state,
            &mut self.normed,
            &mut self.query,
            &mut self.key,
            &mut self.value,
            &mut self.attended,
            &mut self.hidden,
            &mut self.product,
            &mut self.logits,
            &mut self.floats,
        ]
    }

    /// Divides the attention of a batch into parts of neighbouring tokens and one key-value head each.
    fn plan(&mut self, batch: &[Item], heads: usize, group_length: usize) {
        self.runs.clear();
        for (index, item) in batch.iter().enumerate() {
            let continues = |(first, count): &(usize, usize)| {
                let start: &Item = &batch[*first];
                *count < ATTENTION_TOKENS
                    && start.session == item.session
                    && start.position + count == item.position
            };
            match self.runs.last_mut().filter(|run| continues(run)) {
                Some((_, count)) => *count += 1,
                None => self.runs.push((index, 1)),
            }
        }
        self.ends.clear();
        let mut end = 0;
        for _ in 0..heads {
            for (_, count) in &self.runs {
                end += count * group_length;
                self.ends.push(end);
            }
        }
    }

    /// The attention half of a layer.
    fn attend<W: Workers>(
        &mut self,
        pass: &Pass<'_, W>,
        index: usize,
        layer: &Layer,
        rope: &Rope,
        cache: &mut Cache,
    ) {
        let (config, batch) = (pass.model.config(), pass.batch);
        let (width, head_length, heads) = (config.embedding_length, config.head_length, config.head_count_kv);
        let (query_length, key_value_length) = (config.query_length(), config.key_value_length());
        let count = batch.len();
        let state = &mut self.state[..count * width];
        let normed = &mut self.normed[..count * width];
        let query = &mut self.query[..count * query_length];
        let key = &mut self.key[..count * key_value_length];
        let value = &mut self.value[..count * key_value_length];
        let attended = &mut self.attended[..count * query_length];
        let product = &mut self.product[..count * width];

        let quantise = ![&layer.query, &layer.key, &layer.value].into_iter().all(is_float);
        let inputs = pass.normalise(state, &layer.attention_norm, normed, &mut self.blocks, quantise);
        let matrices =
            &mut [(&layer.query, &mut *query), (&layer.key, &mut *key), (&layer.value, &mut *value)];
        pass.multiply(matrices, inputs, &mut self.panels, &layer.attention_output);

        let queries = pass.by_tokens(query, query_length);
        let keys = pass.by_tokens(key, key_value_length);
        pass.for_tokens(|part| {
            let (Some(mut queries), Some(mut keys)) = (queries.take(part), keys.take(part)) else { return };
            let first = queries.columns().start / query_length;
            let vectors = queries.row(0).chunks_exact_mut(query_length);
            let vectors = vectors.zip(keys.row(0).chunks_exact_mut(key_value_length));
            for (item, (query, key)) in batch[first..].iter().zip(vectors) {
                for (heads, norm) in [(&mut *query, &layer.query_norm), (&mut *key, &layer.key_norm)] {
                    if let Some(weights) = norm {
                        let epsilon = config.rms_epsilon;
                        for x in heads.chunks_exact_mut(head_length) {
                            (pass.kernels.elementwise)(Task::Normalise { x, weights, epsilon });
                        }
                    }
                }
                rope.apply(item.position, query, head_length);
                rope.apply(item.position, key, head_length);
                let temperature = config.temperature_at(item.position);
                if temperature != 1.0 {
                    query.iter_mut().for_each(|element| *element *= temperature);
                }
            }
        });
        let vectors = key.chunks_exact(key_value_length).zip(value.chunks_exact(key_value_length));
        for (item, (key, value)) in batch.iter().zip(vectors) {
            cache.store(item.session, index, item.position, key, value);
        }

        let shares = Shares::new(attended, &self.ends);
        let group_length = query_length / heads;
        let (runs, cache, queries) = (&self.runs, &*cache, &*query);
        pass.with_floats(&mut self.floats, self.floats_each, |scratch| {
            while let Some((part, out)) = shares.next() {
                let (head, (first, tokens)) = (part / runs.len(), runs[part % runs.len()]);
                let queries = Queries {
                    values: &queries[first * query_length + head * group_length..],
                    stride: query_length,
                    group: group_length / head_length,
                    position: batch[first].position,
                    tokens,
                    window: config.sliding_window.unwrap_or(usize::MAX),
                    scale: 1.0 / sqrt(head_length as f32),
                };
                let head = cache.head(batch[first].session, index, head);
                (pass.kernels.attend)(head, &queries, out, group_length, scratch);
            }
        });

        // The queries have been used; their place takes the result, token by token.
        let by_head = attended.chunks_exact(count * group_length);
        let quantise = !is_float(&layer.attention_output);
        let joined = pass.by_tokens(query, query_length);
        let blocks_length = query_length / BLOCK;
        let blocks = &mut self.blocks[..count * blocks_length];
        let quantised = pass.by_tokens(blocks, blocks_length);
        pass.for_tokens(|part| {
            let Some(mut joined) = joined.take(part) else { return };
            let first = joined.columns().start / query_length;
            for (offset, out) in joined.row(0).chunks_exact_mut(query_length).enumerate() {
                for (out, attended) in out.chunks_exact_mut(group_length).zip(by_head.clone()) {
                    out.copy_from_slice(&attended[(first + offset) * group_length..][..group_length]);
                }
            }
            if let Some(mut out) = quantised.take(part).filter(|_| quantise) {
                (pass.kernels.elementwise)(Task::Quantise { x: joined.row(0), out: out.row(0) });
            }
        });
        let inputs = Inputs { width: query_length, values: query, blocks };
        pass.multiply(&mut [(&layer.attention_output, &mut *product)], inputs, &mut self.panels, &layer.gate);
        pass.add(state, product);
    }

    /// The feed-forward half of a layer; then comes the next matrix.
    fn feed_forward<W: Workers>(&mut self, pass: &Pass<'_, W>, layer: &Layer, next: &Matrix) {
        let config = pass.model.config();
        let (width, hidden) = (config.embedding_length, config.feed_forward_length);
        let count = pass.batch.len();
        let state = &mut self.state[..count * width];
        let normed = &mut self.normed[..count * width];
        let product = &mut self.product[..count * width];

        let quantise = !(is_float(&layer.gate) && is_float(&layer.up));
        let inputs = pass.normalise(state, &layer.feed_forward_norm, normed, &mut self.blocks, quantise);
        let hidden_state = if is_float(&layer.down) {
            let values = &mut self.hidden[..count * hidden];
            let out = Bands::new(values, hidden, pass.parts(), ROW_GRANULE);
            pass.gate(
                layer,
                inputs,
                &mut self.panels,
                &mut self.floats,
                self.floats_each,
                &out,
                1,
                |out, x| {
                    out.copy_from_slice(x);
                },
            );
            Inputs { width: hidden, values, blocks: &[] }
        } else {
            let blocks = &mut self.hidden_blocks[..count * (hidden / BLOCK)];
            let out = Bands::new(blocks, hidden / BLOCK, pass.parts(), ROW_GRANULE / BLOCK);
            pass.gate(
                layer,
                inputs,
                &mut self.panels,
                &mut self.floats,
                self.floats_each,
                &out,
                BLOCK,
                |out, x| {
                    (pass.kernels.elementwise)(Task::Quantise { x, out });
                },
            );
            Inputs { width: hidden, values: &[], blocks }
        };
        pass.multiply(&mut [(&layer.down, &mut *product)], hidden_state, &mut self.panels, next);
        pass.add(state, product);
    }
}

/// A batch, and who evaluates it with what.
struct Pass<'a, W> {
    model: &'a Model<'a>,
    kernels: &'static Kernels,
    workers: &'a W,
    batch: &'a [Item],
}

impl<W: Workers> Pass<'_, W> {
    fn worker_count(&self) -> usize {
        self.workers.count().clamp(1, MAX_WORKERS)
    }

    /// Whether workers wait for memory, and for one another.
    fn fetches(&self) -> bool {
        self.batch.len() < MANY_TOKENS && self.worker_count() > 1
    }

    /// How many parts the rows of a matrix are divided into.
    fn parts(&self) -> usize {
        match self.worker_count() {
            1 => 1,
            workers => workers * PARTS,
        }
    }

    /// How many parts the tokens of the batch are divided into.
    fn token_parts(&self) -> usize {
        if self.batch.len() < MANY_TOKENS { 1 } else { self.parts().min(self.batch.len()) }
    }

    /// Divides vectors of one length, one for each token.
    fn by_tokens<'d, T>(&self, data: &'d mut [T], length: usize) -> Bands<'d, T> {
        let (len, parts) = (data.len(), self.token_parts());
        Bands::new(data, len, parts, length * self.batch.len().div_ceil(parts))
    }

    /// Calls for each part of what [`Self::by_tokens`] divided.
    fn for_tokens(&self, task: impl Fn(usize) + Sync) {
        let parts = self.token_parts();
        if parts == 1 {
            return task(0);
        }
        let next = AtomicUsize::new(0);
        self.workers.run(&|_| {
            loop {
                match next.fetch_add(1, Ordering::Relaxed) {
                    part if part < parts => task(part),
                    _ => break,
                }
            }
        });
    }

    /// Calls once for each worker, with its own floats.
    fn with_floats(&self, floats: &mut [f32], each: usize, task: impl Fn(&mut [f32]) + Sync) {
        let len = floats.len();
        let floats = Bands::new(floats, len, self.worker_count(), each);
        self.workers.run(&|worker| {
            if let Some(mut floats) = floats.take(worker) {
                task(floats.row(0));
            }
        });
    }

    /// Normalises each state, and quantises the result if that is wanted.
    fn normalise<'i>(
        &self,
        states: &[f32],
        weights: &[f32],
        normed: &'i mut [f32],
        blocks: &'i mut [Block],
        quantise: bool,
    ) -> Inputs<'i> {
        let width = weights.len();
        let blocks_length = width / BLOCK;
        let blocks = &mut blocks[..self.batch.len() * blocks_length];
        let (out, quantised) = (self.by_tokens(normed, width), self.by_tokens(blocks, blocks_length));
        let epsilon = self.model.config().rms_epsilon;
        self.for_tokens(|part| {
            let Some(mut out) = out.take(part) else { return };
            let columns = out.columns();
            out.row(0).copy_from_slice(&states[columns]);
            for x in out.row(0).chunks_exact_mut(width) {
                (self.kernels.elementwise)(Task::Normalise { x, weights, epsilon });
            }
            if let Some(mut quantised) = quantised.take(part).filter(|_| quantise) {
                (self.kernels.elementwise)(Task::Quantise { x: out.row(0), out: quantised.row(0) });
            }
        });
        Inputs { width, values: normed, blocks }
    }

    fn add(&self, states: &mut [f32], products: &[f32]) {
        let width = self.model.config().embedding_length;
        let states = self.by_tokens(states, width);
        self.for_tokens(|part| {
            let Some(mut states) = states.take(part) else { return };
            let x = &products[states.columns()];
            (self.kernels.elementwise)(Task::Add { to: states.row(0), x });
        });
    }

    /// Multiplies matrices with one set of vectors, before the next matrix is multiplied with others.
    fn multiply(
        &self,
        products: &mut [(&Matrix, &mut [f32])],
        inputs: Inputs<'_>,
        panels: &mut [u8],
        next: &Matrix,
    ) {
        /// The most matrices that take the same vectors.
        const MOST: usize = 3;
        let mut divided: [Option<(&Matrix, Bands<'_, f32>)>; MOST] = [const { None }; MOST];
        for (place, (matrix, out)) in divided.iter_mut().zip(products) {
            *place = Some((matrix, Bands::new(out, matrix.height, self.parts(), ROW_GRANULE)));
        }
        let len = panels.len();
        let panels = Bands::new(panels, len, self.worker_count(), PANEL_BYTES);
        let (of, fetches) = (self.worker_count(), self.fetches());
        self.workers.run(&|worker| {
            let Some(mut panel) = panels.take(worker) else { return };
            let share = Share { worker, of };
            for own in [true, false] {
                for (matrix, bands) in divided.iter().flatten() {
                    for part in share.turns(bands.parts(), own) {
                        let Some(mut band) = bands.take(part) else { continue };
                        (self.kernels.multiply)(self.model.packed(matrix), inputs, &mut band, panel.row(0));
                        if let Some(bias) = matrix.bias.get(band.columns()) {
                            for row in 0..band.height() {
                                (self.kernels.elementwise)(Task::Add { to: band.row(row), x: bias });
                            }
                        }
                    }
                }
            }
            if fetches {
                (self.kernels.elementwise)(Task::Fetch(share.begin(self.model.packed(next))));
            }
        });
    }

    /// Computes hidden states, some rows at a time, and hands them to `finish` for their place in the output, which
    /// has one element for `each` of theirs.
    #[expect(clippy::too_many_arguments, reason = "two kinds of output, and what working memory there is")]
    fn gate<T: Send>(
        &self,
        layer: &Layer,
        inputs: Inputs<'_>,
        panels: &mut [u8],
        floats: &mut [f32],
        floats_each: usize,
        out: &Bands<'_, T>,
        each: usize,
        finish: impl Fn(&mut [T], &[f32]) + Sync,
    ) {
        let count = self.batch.len();
        let (panels_len, floats_len) = (panels.len(), floats.len());
        let panels = Bands::new(panels, panels_len, self.worker_count(), PANEL_BYTES);
        let floats = Bands::new(floats, floats_len, self.worker_count(), floats_each);
        let most = (STRIP / count / ROW_GRANULE).max(1) * ROW_GRANULE;
        let (of, fetches) = (self.worker_count(), self.fetches());
        self.workers.run(&|worker| {
            let (Some(mut panel), Some(mut floats)) = (panels.take(worker), floats.take(worker)) else {
                return;
            };
            let (gates, ups) = floats.row(0).split_at_mut(floats_each / 2);
            let share = Share { worker, of };
            for part in share.turns(out.parts(), true).chain(share.turns(out.parts(), false)) {
                let Some(mut band) = out.take(part) else { continue };
                let (start, end) = (band.columns().start * each, band.columns().end * each);
                for first in (start..end).step_by(most) {
                    let rows = most.min(end - first);
                    let strip = |floats: &mut [f32], matrix: &Matrix, panel: &mut Band<'_, u8>| {
                        let bands = Bands::new(&mut floats[..rows * count], rows, 1, rows);
                        let Some(mut band) = bands.take(0) else { return };
                        let packed = self.model.packed(matrix).rows(first, first + rows);
                        (self.kernels.multiply)(packed, inputs, &mut band, panel.row(0));
                        if let Some(bias) = matrix.bias.get(first..first + rows) {
                            for row in 0..count {
                                (self.kernels.elementwise)(Task::Add { to: band.row(row), x: bias });
                            }
                        }
                    };
                    strip(gates, &layer.gate, &mut panel);
                    strip(ups, &layer.up, &mut panel);
                    let (gates, ups) = (&mut gates[..rows * count], &ups[..rows * count]);
                    (self.kernels.elementwise)(Task::Swiglu { gates, ups });
                    for (token, x) in gates.chunks_exact(rows).enumerate() {
                        let place = (first - start) / each;
                        finish(&mut band.row(token)[place..place + rows / each], x);
                    }
                }
            }
            if fetches {
                (self.kernels.elementwise)(Task::Fetch(share.begin(self.model.packed(&layer.down))));
            }
        });
    }
}

/// One of so many workers.
#[derive(Clone, Copy)]
struct Share {
    worker: usize,
    of: usize,
}

impl Share {
    /// Its own parts, which lie together so that memory is read on and on; or those of the others, of which what is
    /// left is taken from the end.
    fn turns(self, parts: usize, own: bool) -> impl Iterator<Item = usize> {
        let range = self.worker * parts / self.of..(self.worker + 1) * parts / self.of;
        let order = move |part| if own { part } else { parts - 1 - part };
        (0..parts).map(order).filter(move |part| range.contains(part) == own)
    }

    /// The start of its own rows of what is multiplied next, to be fetched while it waits for the others.
    fn begin(self, matrix: Packed<'_>) -> &'_ [u8] {
        let first = self.worker * matrix.height / self.of / ROW_GRANULE * ROW_GRANULE;
        let tiles = matrix.rows(first, matrix.height).tiles;
        &tiles[..tiles.len().min(FETCHED)]
    }
}
