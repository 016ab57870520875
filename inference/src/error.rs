//! Why a model cannot be loaded, or be given room to run.
#[cfg(feature = "host")]
use crate::config::Architecture;
use crate::{gguf, tokenizer};
use alloc::string::String;
use alloc::vec::Vec;
#[cfg(feature = "host")]
use core::fmt;

/// Why a model file was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// It is not a sound GGUF file.
    Gguf(gguf::Error),
    /// Its tokenizer cannot be used.
    Tokenizer(tokenizer::Error),
    /// It is of another architecture.
    UnsupportedArchitecture(String),
    /// A metadata key asks for something that is not supported.
    UnsupportedFeature {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// This metadata key is missing.
    MissingValue(String),
    /// This metadata key has a value that makes no sense.
    BadValue(String),
    /// This tensor is missing.
    MissingTensor(String),
    /// A tensor has another shape than the metadata say.
    Shape {
        /// The tensor.
        tensor: String,
        /// The shape it must have, rows last.
        expected: Vec<usize>,
        /// The shape it has.
        found: Vec<usize>,
    },
    /// A tensor that this architecture does not have: ignoring it would give wrong results.
    UnknownTensor(String),
    /// There is not enough memory.
    Memory,
    /// The processor lacks AVX2, and this program was built without the feature `plain`.
    Processor,
}

#[cfg(feature = "host")]
impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gguf(error) => error.fmt(f),
            Self::Tokenizer(error) => error.fmt(f),
            Self::UnsupportedArchitecture(name) => {
                write!(f, "the model's architecture '{name}' is not supported; supported are")?;
                for (index, known) in Architecture::ALL.into_iter().enumerate() {
                    write!(f, "{}{}", if index == 0 { " " } else { ", " }, known.name())?;
                }
                Ok(())
            }
            Self::UnsupportedFeature { key, value } => {
                write!(f, "the model's '{key}' is '{value}', which is not supported")
            }
            Self::MissingValue(key) => write!(f, "the model file lacks '{key}'"),
            Self::BadValue(key) => write!(f, "'{key}' in the model file has a value that makes no sense"),
            Self::MissingTensor(name) => write!(f, "the model file lacks tensor '{name}'"),
            Self::Shape { tensor, expected, found } => {
                write!(
                    f,
                    "tensor '{tensor}' has shape {found:?}, but the model's metadata ask for {expected:?}"
                )
            }
            Self::UnknownTensor(name) => {
                write!(f, "the model file has tensor '{name}', which this architecture does not use")
            }
            Self::Memory => write!(f, "there is not enough memory to load the model"),
            Self::Processor => {
                write!(f, "the processor lacks AVX2 with FMA and F16C, which the engine needs")
            }
        }
    }
}

#[cfg(feature = "host")]
impl core::error::Error for LoadError {}

impl From<gguf::Error> for LoadError {
    fn from(error: gguf::Error) -> Self {
        Self::Gguf(error)
    }
}

impl From<tokenizer::Error> for LoadError {
    fn from(error: tokenizer::Error) -> Self {
        Self::Tokenizer(error)
    }
}

/// Why limits cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitsError {
    /// The context is empty, or longer than the model was trained for.
    Context {
        /// Tokens asked for.
        asked: usize,
        /// The model's limit.
        most: usize,
    },
    /// No session, or more than could ever be served.
    Sessions(usize),
    /// No token, or more than a context in one step.
    PrefillChunk(usize),
    /// There is not enough memory.
    Memory,
}

#[cfg(feature = "host")]
impl fmt::Display for LimitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Context { asked, most } => {
                write!(f, "a context of {asked} tokens was asked for; this model has from 1 to {most}")
            }
            Self::Sessions(count) => {
                write!(f, "{count} sessions were asked for; there can be from 1 to 4096")
            }
            Self::PrefillChunk(tokens) => {
                write!(
                    f,
                    "a prefill chunk of {tokens} tokens was asked for; it must be from 1 to the context"
                )
            }
            Self::Memory => {
                write!(f, "there is not enough memory for these limits; lower the context or the sessions")
            }
        }
    }
}

#[cfg(feature = "host")]
impl core::error::Error for LimitsError {}
