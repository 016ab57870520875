//! The issuer: it knows accounts, and signs blinded messages for them.
//!
//! Principles:
//! * **Nothing to link**: what an issuer sees of a token is uniformly random (RFC 9474 §8.2), and all that it writes down is how
//!   many tokens an account has had in an epoch.
//! * **One key at a time**: it signs under the newest key whose time has come, and no other, so all who fetch now get tokens
//!   of the same kind. Keys change at the same hour for all ([`epochs`]).
//! * **Counted before signed**: a crash may cost an account tokens, and never gives it more than its cap.

pub mod accounts;
pub mod config;
pub mod epochs;
pub mod oidc;
pub mod quota;
pub mod service;
pub mod signing;
