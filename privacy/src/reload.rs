//! When a running service reads its files again: every minute, and at once when it is sent SIGHUP.
//!
//! What cannot be read then is told on standard error, and what was read before stays in use.

use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Time between two readings that nobody asked for.
const EVERY: Duration = Duration::from_secs(60);

/// The times of reading.
#[derive(Debug)]
pub struct Reloads(Signal);

impl Reloads {
    /// From now on SIGHUP ends this process no more. Needs a tokio runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
