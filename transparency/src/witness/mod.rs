//! Witnesses (C2SP tlog-witness): they cosign a log's checkpoint when it is consistent with the one before, and so
//! there is one view of a log for everyone.

pub mod client;
mod request;
mod state;

pub use request::{Request, RequestError};
pub use state::{Answer, WatchedLog, Witness, WitnessConfig, WitnessStateError};
