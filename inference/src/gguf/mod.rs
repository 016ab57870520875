//! GGUF, the file format of the weights.
//!
//! [`File::parse`] reads a file that may be broken or made by an attacker: every count, length, shape and offset
//! is checked against the bytes that are really there before it is used, and what is wrong is named in the error.
//! Nothing is copied: keys, strings, arrays and tensor data borrow from the file.
//!
//! [`write::Writer`] makes such files; the trainer of the default model and the tests use it.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3 (they differ only in
//! that 3 may also be big-endian, which is refused here).
mod error;
#[cfg(feature = "host")]
pub(crate) mod pack;
mod read;
mod types;
#[cfg(feature = "host")]
pub mod write;

pub use error::{Error, Part};
pub use read::{Array, File, Tensor, Value};
pub use types::{TensorType, ValueType};

/// The first four bytes of a file.
const MAGIC: [u8; 4] = *b"GGUF";
/// The alignment of tensor data when the file does not set `general.alignment`.
const DEFAULT_ALIGNMENT: u64 = 32;
/// The key that sets the alignment of tensor data.
const ALIGNMENT_KEY: &str = "general.alignment";
/// A tensor has at most this many dimensions (`GGML_MAX_DIMS`).
const MAX_DIMENSIONS: usize = 4;
