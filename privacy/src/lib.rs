//! The way to the guest: who asks and what is asked are never known to the same party.
//!
//! Principles:
//! * **The relay knows an address and ciphertext**, the gateway knows the relay and a session's ciphertext, the issuer knows
//!   an account and blinded tokens. None of them can be joined to the others, and none writes an address to a log.
//! * **One key for all**: a key of gateway or issuer is used only with proof that it is in the log (`transparency`).
//! * **Whole or not at all**: a message that ends early, in whichever layer, is an error and never a short answer.
//! * **A doubt is a refusal**: a token that cannot be shown to be unspent is refused.
#![forbid(unsafe_code)]

pub mod bhttp;
pub mod body;
pub mod clock;
pub mod file;
#[cfg(feature = "services")]
pub mod gateway;
#[cfg(feature = "issuer")]
pub mod issuer;
#[cfg(feature = "services")]
mod keepalive;
pub mod keys;
pub mod ohttp;
#[cfg(feature = "services")]
pub mod relay;
#[cfg(feature = "services")]
pub mod reload;
#[cfg(feature = "services")]
pub mod serve;
pub mod session;
pub mod tls;
pub mod token;
pub mod transport;
