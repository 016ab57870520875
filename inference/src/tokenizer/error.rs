//! What can be wrong with a model's tokenizer.
#[cfg(feature = "host")]
use super::PreTokenizer;
use alloc::string::String;
#[cfg(feature = "host")]
use core::fmt;

/// Why a tokenizer was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The file does not have this key.
    Missing(&'static str),
    /// The value of this key has another type than it should.
    WrongType(&'static str),
    /// `tokenizer.ggml.model` is neither byte-level BPE nor SentencePiece.
    UnsupportedModel(String),
    /// `tokenizer.ggml.pre` names rules that are not known.
    UnsupportedPreTokenizer(String),
    /// The vocabulary is empty, or larger than token numbers are.
    VocabularySize(usize),
    /// `tokenizer.ggml.scores` has another length than the vocabulary.
    ScoreCount {
        /// Tokens.
        tokens: usize,
        /// Scores.
        scores: usize,
    },
    /// `tokenizer.ggml.token_type` has another length than the vocabulary.
    TypeCount {
        /// Tokens.
        tokens: usize,
        /// Types.
        types: usize,
    },
    /// The token with this number has a type that is not defined.
    BadTokenType(usize),
    /// The merge with this index is not two tokens that make a third.
    BadMerge(usize),
}

#[cfg(feature = "host")]
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(key) => write!(f, "the model file lacks '{key}', so text cannot be tokenised"),
            Self::WrongType(key) => write!(f, "'{key}' in the model file has the wrong type"),
            Self::UnsupportedModel(model) => {
                write!(
                    f,
                    "the model's tokenizer is of kind '{model}', which is not supported; supported are gpt2 (byte-level BPE) \
                     and llama (SentencePiece)"
                )
            }
            Self::UnsupportedPreTokenizer(pre) => {
                write!(f, "the model's pre-tokenizer '{pre}' is not supported; supported are")?;
                for (index, known) in PreTokenizer::ALL.into_iter().enumerate() {
                    write!(f, "{}{}", if index == 0 { " " } else { ", " }, known.name())?;
                }
                Ok(())
            }
            Self::VocabularySize(len) => write!(f, "a vocabulary of {len} tokens cannot be used"),
            Self::TypeCount { tokens, types } => {
                write!(f, "the model file has {tokens} tokens and {types} token types")
            }
            Self::ScoreCount { tokens, scores } => {
                write!(f, "the model file has {tokens} tokens and {scores} scores")
            }
            Self::BadTokenType(token) => {
                write!(f, "token {token} has a type that a tokenizer of its kind does not have")
            }
            Self::BadMerge(index) => {
                write!(
                    f,
                    "entry {index} of tokenizer.ggml.merges is not two ordinary tokens that make a third"
                )
            }
        }
    }
}

#[cfg(feature = "host")]
impl core::error::Error for Error {}
