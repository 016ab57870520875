//! The message types that the guest shares with its clients and with the operator's launcher.
//!
//! Principles:
//! * Types only: nothing here opens a socket, reads a clock or allocates more than it was handed.
//! * What leaves the VM towards the operator is [`event::Event`], a closed enum of numbers. No variant takes a
//!   string, so no text of a request can be formatted into one.
//! * What is hashed and compared, in evidence and in the log, is encoded by [`canonical`].
//! * What the client sends and receives is in [`task`] and [`chat`]: plain JSON shapes, read strictly. Their bodies are types
//!   for the host, with feature `serde`; the guest reads and writes them by itself.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

#[cfg(feature = "serde")]
mod bodies;
pub mod canonical;
pub mod chat;
pub mod event;
pub mod path;
pub mod task;
pub mod termination;
