//! The log: which images, models and keys exist, for everyone to see.
//!
//! Attestation says "this digest runs". The log says which thing the digest is, that everyone is told the same, and that
//! it was not taken back. It follows the C2SP specifications signed-note, tlog-checkpoint, tlog-tiles, tlog-cosignature,
//! tlog-witness and tlog-proof.
//!
//! Principles:
//! * **Two halves.** The core checks proofs: no I/O, no clock of its own; clients need only it. Feature `tools` is the log
//!   itself, its witnesses and its monitors.
//! * **One encoding for each entry, one kind for each use** ([`entry`]).
//! * **Everything read is an allegation** until signatures, proofs and policy were checked ([`verify`]), and each way to
//!   fail has an error of its own.
//! * **Durable before signed, signed before published** ([`log`]).
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod entry;
pub mod key;
pub mod merkle;
pub mod note;
pub mod proof;
mod text;
#[cfg(feature = "tools")]
pub mod tile;
pub mod trust;
pub mod verify;

#[cfg(feature = "tools")]
pub mod log;
#[cfg(feature = "tools")]
pub mod monitor;
#[cfg(feature = "tools")]
pub mod serve;
#[cfg(feature = "tools")]
pub mod tree;
#[cfg(feature = "tools")]
pub mod witness;
