//! The logits of a whole text at once, for tests and evaluation.
use crate::error::LimitsError;
use crate::forward::{Forward, Item};
use crate::model::Model;
use crate::workers::Workers;
use alloc::vec::Vec;
use core::fmt;

/// Tokens that are evaluated together.
const BATCH: usize = 64;

/// Why there are no logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitsError {
    /// A token is not in the vocabulary.
    TokenOutOfRange(u32),
    /// The text is empty or longer than the model's context, or memory is short.
    Limits(LimitsError),
}

impl fmt::Display for LogitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenOutOfRange(token) => write!(f, "token {token} is not in the model's vocabulary"),
            Self::Limits(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LogitsError {}

/// The logits after each token: as many rows as tokens, each as long as the vocabulary.
///
/// # Errors
/// When a token or the length of the text is out of range, or memory is short.
pub fn logits(model: &Model<'_>, tokens: &[u32], workers: &impl Workers) -> Result<Vec<f32>, LogitsError> {
    let mut logits = Vec::new();
    logits_by_row(model, tokens, workers, |row| logits.extend_from_slice(row))?;
    Ok(logits)
}

/// The same, handed over row by row, so that they do not have to fit in memory together.
///
/// # Errors
/// Those of [`logits`].
pub fn logits_by_row(
    model: &Model<'_>,
    tokens: &[u32],
    workers: &impl Workers,
    mut take: impl FnMut(&[f32]),
) -> Result<(), LogitsError> {
    let config = model.config();
    if let Some(token) = tokens.iter().find(|token| **token as usize >= config.vocabulary_length) {
        return Err(LogitsError::TokenOutOfRange(*token));
    }
    let (asked, most) = (tokens.len(), config.context_length);
    if !(1..=most).contains(&asked) {
        return Err(LogitsError::Limits(LimitsError::Context { asked, most }));
    }
    let batch = BATCH.min(asked);
    let mut forward = Forward::new(model, 1, asked, batch, batch, workers).map_err(LogitsError::Limits)?;
    for (index, tokens) in tokens.chunks(BATCH).enumerate() {
        let items = tokens.iter().enumerate().map(|(offset, token)| Item {
            session: 0,
            position: index * BATCH + offset,
            token: *token,
            wants_logits: true,
        });
        let items: Vec<Item> = items.collect();
        forward.run(&items, workers).chunks_exact(config.vocabulary_length).for_each(&mut take);
    }
    Ok(())
}
