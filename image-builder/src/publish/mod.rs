//! Two builders before one entry: what each of them signs, and what it takes until a log gets the entry.
//!
//! A log entry says "this digest is that source". Nobody should have to take one machine's word for it, as that machine's
//! compiler may be the one that was tampered with. So each builder makes the entry from its own build and signs it
//! ([`statement`]), and an entry is appended only if several builders, named beforehand ([`builders`]), signed the same one
//! ([`agree`]).

pub mod agree;
pub mod builders;
pub mod difference;
pub mod statement;
