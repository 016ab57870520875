//! The project's habits in one place: `cargo demo`, `cargo ci`, `cargo bench-all`, and what their tests share.
//!
//! Principles:
//! * Each command sets up what it needs, or says in one message what is missing and how to get it.
//! * Programs of the project are run as an operator or a client runs them: from their command lines.
//! * Nothing is skipped. A tool that is not there is an error.
#![forbid(unsafe_code)]

pub mod advisories;
pub mod bench;
pub mod boots;
pub mod build;
pub mod capture;
pub mod chroot;
pub mod ci;
pub mod demo;
pub mod deny;
pub mod guest;
pub mod hostile;
pub mod linux;
pub mod log;
pub mod manifest;
pub mod mutants;
pub mod privacy;
pub mod research;
pub mod setup;
