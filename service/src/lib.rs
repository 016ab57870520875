//! What the guest does for a client: an attested TLS endpoint, HTTP, sessions and tasks.
//!
//! Principles:
//! * The same code runs in the guest and on a host in tests. All it knows of the machine is [`Platform`]; bytes come
//!   and go through [`Service::receive`] and [`Service::pending`], whatever carries them.
//! * Evidence first. A connection is served only after the AMD-SP has signed a report over the client's nonce, the
//!   certificate's key, this very TLS connection and the measured manifest.
//! * What a client sends is data. It is never parsed for control tokens, it can trigger nothing, and no error, event
//!   or `Debug` output can hold a piece of it.
//! * Memory that held plaintext is wiped when it is no longer needed, and all of it when the session ends. TLS secrets
//!   need the help of the program around: rustls moves them between boxes, so its allocator must wipe what is freed.
//! * Every buffer has a bound that the manifest or a constant gives. Whoever exceeds one loses its own connection and
//!   nobody else's.
//! * No clock decides anything but timeouts, and a clock that jumps cannot make many of them at once.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(all(feature = "unshaped", target_os = "none"))]
compile_error!("`unshaped` is for measurements on a host; an image without traffic shape is not built");

mod answer;
mod certificate;
mod clock;
mod connection;
mod http;
mod json;
mod platform;
pub mod prompt;
mod requests;
mod service;
mod task;
mod tls;
mod utf8;
mod wipe;

pub use certificate::IdentityError;
pub use platform::{AttestError, Attested, Platform};
pub use service::{ConnectionId, Full, Service, StartError};
