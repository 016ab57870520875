//! The clock of the machine, which everything here reads through this.

use std::time::SystemTime;

/// The clock is before 1970, so that nobody can say whether a key's or a token's time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this machine's clock is before 1970; set the clock")]
pub struct ClockError;

/// Seconds since 1970.
pub fn now() -> Result<u64, ClockError> {
    seconds(SystemTime::now())
}

/// A time in seconds since 1970.
pub fn seconds(time: SystemTime) -> Result<u64, ClockError> {
    transparency::verify::seconds(time).map_err(|_| ClockError)
}
