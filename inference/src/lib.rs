//! The engine: reads a decoder of the Llama, Mistral and Qwen families from a GGUF file and generates text with it.
//!
//! Principles:
//! * A model file is input like any other. It is checked completely before anything is sized by it, and what is
//!   wrong with it is said by name. No input, neither file nor token nor limit, reaches a panic: in the guest a
//!   panic ends the service for everybody.
//! * Text never becomes a control token. [`Tokenizer::encode`] knows only ordinary tokens; whoever builds a prompt
//!   frames it with [`Tokenizer::control`].
//! * What is derived from a user's text lives in buffers that the [`Scheduler`] owns, sized once at construction,
//!   and is overwritten when the generation ends. Nothing of it is cached across generations.
//! * The same request gives the same tokens, whoever else is served beside it and on however many CPUs: each
//!   number is computed by the same operations in the same order in every batch.
//! * `unsafe` lives in one folder, `kernels/`: vector instructions, each kernel with a plain twin that the tests
//!   hold it to, and the division of one output among several workers.
#![no_std]
#![deny(unsafe_code)]
extern crate alloc;

mod blocks;
mod cache;
mod config;
mod encode;
mod error;
#[cfg(all(unix, feature = "cli"))]
mod file;
mod forward;
pub mod gguf;
mod kernels;
#[cfg(feature = "host")]
mod logits;
mod math;
mod memory;
mod model;
mod random;
mod rope;
mod sampling;
mod scheduler;
pub mod tokenizer;
mod workers;

pub use config::{Architecture, Config, RopeScaling, Temperature, Yarn};
pub use error::{LimitsError, LoadError};
#[cfg(all(unix, feature = "cli"))]
pub use file::{FileError, ModelFile};
pub use kernels::Isa;
#[cfg(all(feature = "cli", target_arch = "x86_64"))]
pub use kernels::probe::{int8_operations_per_second, read_bytes_per_second};
#[cfg(feature = "cli")]
pub use kernels::threads::Threads;
#[cfg(feature = "host")]
pub use logits::{LogitsError, logits, logits_by_row};
pub use model::{Model, Weights};
pub use sampling::{Sampling, SamplingError};
pub use scheduler::{
    FinishReason, Generation, GenerationId, Limits, Output, OutputKind, Scheduler, SubmitError,
};
pub use tokenizer::Tokenizer;
pub use workers::{SingleThread, Workers};

// The test models are shared with the integration tests, which know this crate by its name.
#[cfg(test)]
extern crate self as inference;
#[cfg(any(test, feature = "cli"))]
extern crate std;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
