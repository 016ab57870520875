//! The scheduler: many generations at once, by continuous batching.
//!
//! Each step evaluates one batch: the newest token of every generation that has begun to answer, and a chunk of the
//! prompts of those that have not. So the weights are read once for all, and a long prompt delays an answer that is
//! under way by one chunk a token, never by the whole prompt. Prompts take turns at the head of the chunk.
use crate::error::LimitsError;
use crate::forward::{Forward, Item};
use crate::memory::{Buffer, reserve};
use crate::model::Model;
use crate::sampling::{Candidates, Sampler, Sampling};
use crate::workers::Workers;
use alloc::vec::Vec;
use core::fmt;
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
}

/// A request for text.
pub struct Generation {
    /// The tokens to continue.
    pub prompt: Vec<u32>,
    /// The most tokens to generate. The context sets a limit as well.
    pub max_tokens: u32,
    /// Tokens that end the answer and are not part of it.
    pub stop: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: Sampling,
}

/// A prompt is a user's text, so it is not printed.
impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation").field("max_tokens", &self.max_tokens).finish_non_exhaustive()
    }
}

/// The name of a generation; never given twice by one scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId(u64);

/// Why a generation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// The prompt does not fit the context.
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// The most it may have.
        limit: usize,
    },
    /// All sessions are in use.
    Busy,
    /// There is nothing to continue.
    EmptyPrompt,
    /// A token of the prompt is not in the vocabulary.
    TokenOutOfRange(u32),
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PromptTooLong { tokens, limit } => {
                write!(f, "the prompt has {tokens} tokens and the context {limit}; send less text")
            }
            Self::Busy => write!(f, "all sessions are in use; try again later"),
            Self::EmptyPrompt => write!(f, "the prompt is empty"),
            Self::TokenOutOfRange(token) => write!(f, "token {token} is not in the vocabulary"),
        }
    }
}

impl core::error::Error for SubmitError {}

/// Something that a generation gave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// Which generation.
    pub id: GenerationId,
    /// What it gave.
    pub kind: OutputKind,
}

/// What a generation gave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// The next token of the answer.
    Token(u32),
    /// The end; nothing of the generation is left in the scheduler.
    Finished(FinishReason),
}

/// An answer is a user's text, so its tokens are not printed.
impl fmt::Debug for OutputKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => write!(f, "Token(..)"),
            Self::Finished(reason) => write!(f, "Finished({reason:?})"),
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.id, self.kind)
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model gave a stop token.
    Stop,
    /// The answer reached its longest length, or the end of the context.
    Length,
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
    next_id: u64,
    /// The slot whose prompt is first in the next chunk.
    turn: usize,
}

/// A session's place: the arena of its tokens, and the generation that uses it.
struct Slot {
    tokens: Buffer<u32>,
    generation: Option<Active>,
}

/// A generation in progress.
struct Active {
    id: GenerationId,
    /// Tokens known so far, prompt and answer.
    len: usize,
    /// Tokens evaluated so far; what they left is in the cache.
    evaluated: usize,
    /// Tokens that the answer may still have.
    left: u32,
    stop: Vec<u32>,
    sampler: Sampler,
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
        let Limits { context_tokens, sessions, prefill_chunk } = limits;
        let batch = sessions + prefill_chunk;
        let forward = Forward::new(model, sessions, context_tokens, batch, sessions, &workers)?;
        let mut slots = reserve(sessions)?;
        for _ in 0..sessions {
            slots.push(Slot { tokens: Buffer::zeros(&[context_tokens])?, generation: None });
        }
        let vocabulary = model.config().vocabulary_length;
        let (candidates, batch) = (Candidates::new(vocabulary)?, reserve(batch)?);
        Ok(Self { workers, limits, vocabulary, forward, candidates, slots, batch, next_id: 0, turn: 0 })
    }

    /// What this scheduler has room for.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Takes up a generation. Its prompt is copied and wiped, also when it is refused.
    ///
    /// # Errors
    /// When there is no room for it now, or it can never be served.
    pub fn submit(&mut self, generation: Generation) -> Result<GenerationId, SubmitError> {
        let Generation { prompt, max_tokens, stop, sampling } = generation;
        let prompt = Zeroizing::new(prompt);
        let (tokens, limit) = (prompt.len(), self.limits.context_tokens);
        if tokens == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        if tokens > limit {
            return Err(SubmitError::PromptTooLong { tokens, limit });
        }
        if let Some(token) = prompt.iter().find(|token| **token as usize >= self.vocabulary) {
            return Err(SubmitError::TokenOutOfRange(*token));
        }
        let slot = self.slots.iter_mut().find(|slot| slot.generation.is_none()).ok_or(SubmitError::Busy)?;
        slot.tokens[..tokens].copy_from_slice(&prompt);
        let id = GenerationId(self.next_id);
        self.next_id += 1;
        let sampler = Sampler::new(sampling);
        slot.generation = Some(Active { id, len: tokens, evaluated: 0, left: max_tokens, stop, sampler });
        Ok(id)
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
        for item in &self.batch {
            let Slot { tokens, generation } = &mut self.slots[item.session];
            let Some(active) = generation else { continue };
            active.evaluated += 1;
            let Some(row) = (if item.wants_logits { rows.next() } else { None }) else { continue };
            let token = active.sampler.choose(row, &tokens[..active.len], &mut self.candidates);
            if active.stop.contains(&token) {
                finished.push((item.session, FinishReason::Stop));
                continue;
            }
            output.push(Output { id: active.id, kind: OutputKind::Token(token) });
            active.left -= 1;
            if active.left == 0 || active.len == tokens.len() {
                finished.push((item.session, FinishReason::Length));
                continue;
            }
            tokens[active.len] = token;
            active.len += 1;
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

    /// Fills the batch: one token of each generation that decodes, and a chunk of prompts.
    fn plan(&mut self) {
        self.batch.clear();
        let sessions = self.slots.len();
        let mut budget = self.limits.prefill_chunk;
        self.turn = (self.turn + 1) % sessions;
        for offset in 0..sessions {
            let session = (self.turn + offset) % sessions;
            let Slot { tokens, generation: Some(active) } = &self.slots[session] else { continue };
            let count = if active.is_decoding() {
                1
            } else {
                let count = budget.min(active.len - active.evaluated);
                budget -= count;
                count
            };
            for position in active.evaluated..active.evaluated + count {
                let wants_logits = position + 1 == active.len;
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
            tokens[..active.len].zeroize();
            self.forward.cache.wipe(slot, active.evaluated);
        }
        self.forward.wipe_scratch();
        self.candidates.wipe();
    }
}

#[cfg(test)]
mod tests;
