//! The scheduler: many generations at once, by continuous batching.
//!
//! Each step evaluates one batch: the newest token of every generation that has begun to answer, and a chunk of the
//! prompts of those that have not. So the weights are read once for all, and a long prompt delays an answer that is
//! under way by one chunk a token, never by the whole prompt. Prompts take turns at the head of the chunk.
//!
//! Three things save work and change no token: drafts are guessed from repetitions and verified in the same batch
//! ([`lookup`]); the start of a prompt that was given to [`Scheduler::share_prefix`] is evaluated once for all; and
//! whatever a session's batch holds, each of its tokens is computed as if it were alone.
mod lookup;
mod request;

pub use request::{FinishReason, Generation, GenerationId, Output, OutputKind, SubmitError};

use crate::cache::Saved;
use crate::error::LimitsError;
use crate::forward::{Forward, Item};
use crate::memory::{Buffer, reserve};
use crate::model::Model;
use crate::sampling::{Candidates, Sampler};
use crate::workers::Workers;
use alloc::vec::Vec;
use lookup::Lookup;
use zeroize::{Zeroize, Zeroizing};

/// More sessions than this would not be served in any useful time.
const MAX_SESSIONS: usize = 4096;

/// What a scheduler has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of prompt and answer together, for each generation.
    pub context_tokens: usize,
    /// Generations at once.
    pub sessions: usize,
    /// Prompt tokens in one step.
    pub prefill_chunk: usize,
    /// Guessed tokens in one step, of all sessions together; 0 switches guessing off. It changes the speed only.
    pub speculation: usize,
}

impl Limits {
    /// Guesses that pay: as many as a processor multiplies while it waits for the weights. With more sessions than
    /// that there is nothing to gain, and none are made.
    pub const SPECULATION: usize = 16;
}

/// Serves many generations with one model. It owns every buffer that holds what is derived from their text, allocates
/// them when it is made, and overwrites them when a generation ends.
pub struct Scheduler<'m, W> {
    workers: W,
    limits: Limits,
    vocabulary: usize,
    forward: Forward<'m>,
    candidates: Candidates,
    slots: Vec<Slot>,
    batch: Vec<Item>,
    prefixes: Vec<Prefix>,
    next_id: u64,
    /// The slot whose prompt is first in the next chunk.
    turn: usize,
}

/// The start of prompts that everybody may know, evaluated.
struct Prefix {
    tokens: Vec<u32>,
    cache: Saved,
}

/// A session's place: the arena of its tokens, and the generation that uses it.
struct Slot {
    tokens: Buffer<u32>,
    generation: Option<Active>,
}

/// A generation in progress.
struct Active {
    id: GenerationId,
    /// Tokens known so far, prompt and answer. In the arena, guesses may follow them.
    len: usize,
    /// Tokens evaluated so far; what they left is in the cache.
    evaluated: usize,
    /// Positions that hold anything, in the arena or the cache, rejected guesses too.
    used: usize,
    /// Guesses that follow the known tokens in this step's batch.
    guesses: usize,
    /// Tokens that the answer may still have.
    left: u32,
    stop: Vec<u32>,
    sampler: Sampler,
    lookup: Lookup,
}

impl Active {
    /// Whether only the newest token of the answer, or the last of the prompt, is left to evaluate.
    fn is_decoding(&self) -> bool {
        self.len - self.evaluated == 1
    }
}

impl<'m, W: Workers> Scheduler<'m, W> {
    /// Allocates for these limits.
    ///
    /// # Errors
    /// When a limit makes no sense for this model, or memory is short.
    pub fn new(model: &'m Model<'m>, limits: Limits, workers: W) -> Result<Self, LimitsError> {
        let most = model.config().context_length;
        if !(1..=most).contains(&limits.context_tokens) {
            return Err(LimitsError::Context { asked: limits.context_tokens, most });
        }
        if !(1..=MAX_SESSIONS).contains(&limits.sessions) {
            return Err(LimitsError::Sessions(limits.sessions));
        }
        if !(1..=limits.context_tokens).contains(&limits.prefill_chunk) {
            return Err(LimitsError::PrefillChunk(limits.prefill_chunk));
        }
        let Limits { context_tokens, sessions, prefill_chunk, speculation } = limits;
        // More could never be used, and each has a row of logits.
        let speculation = speculation.min(sessions.saturating_mul(lookup::MOST)).min(Limits::SPECULATION);
        let limits = Limits { speculation, ..limits };
        let rows = sessions + speculation;
        let batch = rows + prefill_chunk;
        let forward = Forward::new(model, sessions, context_tokens, batch, rows, &workers)?;
        let mut slots = reserve(sessions)?;
        for _ in 0..sessions {
            slots.push(Slot { tokens: Buffer::zeros(&[context_tokens])?, generation: None });
        }
        let vocabulary = model.config().vocabulary_length;
        let (candidates, batch) = (Candidates::new(vocabulary)?, reserve(batch)?);
        let (prefixes, next_id, turn) = (Vec::new(), 0, 0);
        Ok(Self { workers, limits, vocabulary, forward, candidates, slots, batch, prefixes, next_id, turn })
    }

    /// What this scheduler has room for; `speculation` is what it makes of the value that was asked for.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Evaluates the start of prompts to come, once for all: a generation whose prompt begins with these tokens, or
    /// with some of them, copies what they left in the cache. For measured text only: how fast a prompt is taken up
    /// then tells that it begins so. What users send is never shared (REQUIREMENTS E4).
    ///
    /// # Errors
    /// When a generation is in progress, or the tokens could not be a prompt, or memory is short.
    pub fn share_prefix(&mut self, tokens: &[u32]) -> Result<(), SubmitError> {
        self.check(tokens)?;
        if !self.is_idle() {
            return Err(SubmitError::Busy);
        }
        for (chunk, start) in
            tokens.chunks(self.limits.prefill_chunk).zip((0..).step_by(self.limits.prefill_chunk))
        {
            let items = chunk.iter().zip(start..);
            let item = |(token, position): (&u32, usize)| Item {
                session: 0,
                position,
                token: *token,
                wants_logits: false,
            };
            self.batch.extend(items.map(item));
            self.forward.run(&self.batch, &self.workers);
            self.batch.clear();
        }
        let saved = self.forward.cache.save(0, tokens.len());
        self.forward.cache.wipe(0, tokens.len());
        self.forward.wipe_scratch();
        let cache = saved.map_err(|_| SubmitError::Memory)?;
        self.prefixes.push(Prefix { tokens: tokens.to_vec(), cache });
        Ok(())
    }

    /// Takes up a generation. Its prompt is copied and wiped, also when it is refused.
    ///
    /// # Errors
    /// When there is no room for it now, or it can never be served.
    pub fn submit(&mut self, generation: Generation) -> Result<GenerationId, SubmitError> {
        let Generation { prompt, max_tokens, stop, sampling } = generation;
        let prompt = Zeroizing::new(prompt);
        self.check(&prompt)?;
        let slot = self.slots.iter().position(|slot| slot.generation.is_none()).ok_or(SubmitError::Busy)?;
        let len = prompt.len();
        self.slots[slot].tokens[..len].copy_from_slice(&prompt);
        // The last token is evaluated again, for its logits.
        let shared = |prefix: &Prefix| {
            prefix.tokens.iter().zip(&prompt[..len - 1]).take_while(|(a, b)| a == b).count()
        };
        let prefix =
            self.prefixes.iter().map(|prefix| (shared(prefix), prefix)).max_by_key(|(shared, _)| *shared);
        let evaluated = prefix.map_or(0, |(shared, prefix)| {
            self.forward.cache.restore(&prefix.cache, slot, shared);
            shared
        });
        let id = GenerationId(self.next_id);
        self.next_id += 1;
        self.slots[slot].generation = Some(Active {
            id,
            len,
            evaluated,
            used: len,
            guesses: 0,
            left: max_tokens,
            stop,
            sampler: Sampler::new(sampling),
            lookup: Lookup::new(),
        });
        Ok(id)
    }

    /// Whether these tokens can be a prompt.
    fn check(&self, prompt: &[u32]) -> Result<(), SubmitError> {
        let (tokens, limit) = (prompt.len(), self.limits.context_tokens);
        if tokens == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        if tokens > limit {
            return Err(SubmitError::PromptTooLong { tokens, limit });
        }
        match prompt.iter().find(|token| **token as usize >= self.vocabulary) {
            Some(token) => Err(SubmitError::TokenOutOfRange(*token)),
            None => Ok(()),
        }
    }

    /// Evaluates one batch and appends what came of it. Does nothing when idle.
    pub fn step(&mut self, output: &mut Vec<Output>) {
        self.finish_empty(output);
        self.plan();
        if self.batch.is_empty() {
            return;
        }
        let logits = self.forward.run(&self.batch, &self.workers);
        let mut rows = logits.chunks_exact_mut(self.vocabulary);
        let mut finished = Vec::new();
        for items in self.batch.chunk_by(|a, b| a.session == b.session) {
            let session = items[0].session;
            let Slot { tokens, generation: Some(active) } = &mut self.slots[session] else { continue };
            let mut wanted = rows.by_ref().take(items.iter().filter(|item| item.wants_logits).count());
            active.evaluated += items.len() - active.guesses;
            let mut right = 0;
            let end = loop {
                let Some(row) = wanted.next() else { break None };
                let token = active.sampler.choose(row, &tokens[..active.len], &mut self.candidates);
                if active.stop.contains(&token) {
                    break Some(FinishReason::Stop);
                }
                output.push(Output { id: active.id, kind: OutputKind::Token(token) });
                active.left -= 1;
                if active.left == 0 || active.len == tokens.len() {
                    break Some(FinishReason::Length);
                }
                let was_guessed = right < active.guesses && tokens[active.len] == token;
                tokens[active.len] = token;
                active.len += 1;
                active.used = active.used.max(active.len);
                if !was_guessed {
                    break None;
                }
                right += 1;
                active.evaluated += 1;
            };
            // The rows of guesses after a wrong one say nothing.
            wanted.for_each(drop);
            active.lookup.learn(&tokens[..active.len]);
            active.guesses = 0;
            finished.extend(end.map(|reason| (session, reason)));
        }
        self.batch.clear();
        for (slot, reason) in finished {
            self.finish(slot, reason, output);
        }
    }

    /// Ends a generation at once, without output. One that has ended already is ignored.
    pub fn cancel(&mut self, id: GenerationId) {
        let of = |slot: &Slot| slot.generation.as_ref().is_some_and(|active| active.id == id);
        if let Some(slot) = self.slots.iter().position(of) {
            self.release(slot);
        }
    }

    /// Whether no generation is in progress.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.slots.iter().all(|slot| slot.generation.is_none())
    }

    /// Ends generations that may not give a single token.
    fn finish_empty(&mut self, output: &mut Vec<Output>) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].generation.as_ref().is_some_and(|active| active.left == 0) {
                self.finish(slot, FinishReason::Length, output);
            }
        }
    }

    /// Fills the batch: the newest token of each generation that decodes, with guesses, and a chunk of prompts.
    fn plan(&mut self) {
        self.batch.clear();
        let sessions = self.slots.len();
        let mut budget = self.limits.prefill_chunk;
        let decoding = self
            .slots
            .iter()
            .filter_map(|slot| slot.generation.as_ref())
            .filter(|active| active.is_decoding());
        // What guesses use of the processor is shared; the sessions' own tokens come first.
        let decoding = decoding.count().max(1);
        let guesses = self.limits.speculation.saturating_sub(decoding - 1) / decoding;
        let first = self.turn;
        let mut served = false;
        for offset in 0..sessions {
            let session = (first + offset) % sessions;
            let Slot { tokens, generation: Some(active) } = &mut self.slots[session] else { continue };
            let count = if active.is_decoding() {
                // Each guess needs a place, and the token after the last one is given as well.
                let most = guesses.min(tokens.len() - active.len).min(active.left as usize - 1);
                let price = |guesses| self.forward.price.of(decoding * (1 + guesses));
                let found = active.lookup.guess(&tokens[..active.len], most.min(lookup::MOST), price);
                active.guesses = found.len();
                tokens.copy_within(found, active.len);
                active.used = active.used.max(active.len + active.guesses);
                1 + active.guesses
            } else {
                let count = budget.min(active.len - active.evaluated);
                budget -= count;
                if !core::mem::replace(&mut served, true) {
                    // Whoever comes after the one that is first now is first next time.
                    self.turn = (session + 1) % sessions;
                }
                count
            };
            for position in active.evaluated..active.evaluated + count {
                let wants_logits = position + 1 >= active.len;
                self.batch.push(Item { session, position, token: tokens[position], wants_logits });
            }
        }
    }

    fn finish(&mut self, slot: usize, reason: FinishReason, output: &mut Vec<Output>) {
        if let Some(active) = &self.slots[slot].generation {
            output.push(Output { id: active.id, kind: OutputKind::Finished(reason) });
        }
        self.release(slot);
    }

    /// Frees a slot and overwrites everything that its generation left behind, here and in the shared scratch.
    fn release(&mut self, slot: usize) {
        let Slot { tokens, generation } = &mut self.slots[slot];
        if let Some(active) = generation.take() {
            tokens[..active.used].zeroize();
            self.forward.cache.wipe(slot, active.used);
        }
        self.forward.wipe_scratch();
        self.candidates.wipe();
        // Its tokens were in the last batch.
        self.batch.zeroize();
    }
}

#[cfg(test)]
mod tests;
