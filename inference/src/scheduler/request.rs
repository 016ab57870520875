//! What a scheduler is asked, and what it answers.
use crate::sampling::Sampling;
use alloc::vec::Vec;
use core::fmt;

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
pub struct GenerationId(pub(super) u64);

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
    /// There is not enough memory.
    Memory,
}

#[cfg(feature = "host")]
impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PromptTooLong { tokens, limit } => {
                write!(f, "the prompt has {tokens} tokens and the context {limit}; send less text")
            }
            Self::Busy => write!(f, "all sessions are in use; try again later"),
            Self::EmptyPrompt => write!(f, "the prompt is empty"),
            Self::TokenOutOfRange(token) => write!(f, "token {token} is not in the vocabulary"),
            Self::Memory => write!(f, "there is not enough memory; try again later"),
        }
    }
}

#[cfg(feature = "host")]
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
