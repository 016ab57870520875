//! Time for timeouts, out of a clock that the host controls (REQUIREMENTS A14).

/// The most that one look at the clock can let pass. A host that jumps forward by a year ends no connection early.
const LARGEST_STEP_MS: u64 = 1000;

/// A clock that never runs backwards and never jumps.
#[derive(Default)]
pub(crate) struct Clock {
    last_seen: Option<u64>,
    now: u64,
}

impl Clock {
    /// Milliseconds so far.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Takes a reading of the host's clock.
    pub(crate) fn advance(&mut self, reading: u64) {
        let passed = self.last_seen.map_or(0, |last| reading.saturating_sub(last));
        self.last_seen = Some(reading);
        self.now = self.now.saturating_add(passed.min(LARGEST_STEP_MS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a14_a_clock_that_jumps_stops_or_runs_backwards_does_no_harm() {
        let mut clock = Clock::default();
        for (reading, expected) in [
            (5_000, 0),
            (5_010, 10),
            (u64::MAX, 1_010),
            (0, 1_010),
            (3, 1_013),
            (3, 1_013),
            (1, 1_013),
            (2, 1_014),
        ] {
            clock.advance(reading);
            assert_eq!(clock.now(), expected, "at {reading}");
        }
    }
}
