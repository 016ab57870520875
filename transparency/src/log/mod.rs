//! A log: its files, its one writer, its readers.
//!
//! The order of writes is what makes it safe. A batch's tiles and entries are durable before its checkpoint is signed; a
//! signed checkpoint is durable before anyone else sees it; and a checkpoint is published when enough witnesses have
//! cosigned it. Whatever happens between two writes, what is read afterwards is a checkpoint with all that it covers.

mod append;
pub mod config;
mod publish;
pub mod reader;
pub mod store;

pub use append::{AppendError, REVOCATIONS, Signed, Writer, unix_now};
pub use publish::{PublishError, prove, with_witnesses};
pub(crate) use publish::{request, signature_lines};
