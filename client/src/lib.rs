//! The client: reads a chat, checks the guest, and only then sends anything.
//!
//! Principles:
//! * Evidence first. [`session::Session`] cannot be had without evidence that satisfied the policy: once in the
//!   certificate, and once fresh, bound to a nonce and to this TLS connection. There is no way to send around it.
//! * Only what was chosen. [`export`] reads a whole chat, the caller picks messages, nothing else leaves the device.
//! * Sizes say little: requests are padded to a few sizes, and an answer is read to the end of its padding.
//! * Whatever fails says what happened, why, and what to do next; message text is in no error and no log.
#![forbid(unsafe_code)]

pub mod export;
pub mod policy;
pub mod session;
mod shape;
pub mod task;
pub mod text;
pub mod way;
