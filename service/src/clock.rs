//! Time for timeouts, out of a clock that the host controls (REQUIREMENTS A14).

/// The most that one look at the clock can let pass. A host that jumps forward by a year ends no connection early.
const LARGEST_STEP_MS: u64 = 1000;

/// Looks at a clock that stands still, after which time passes all the same, so that answers do not stop with it. No
/// processor looks so often within the millisecond that a reading lasts: a look is a round of all connections.
const STILL_LOOKS: u32 = 1 << 16;
/// How much passes then.
const STILL_STEP_MS: u64 = 50;

/// A clock that never runs backwards, never jumps and never stops.
#[derive(Default)]
pub(crate) struct Clock {
    last_seen: Option<u64>,
    /// Looks since it moved.
    still: u32,
    now: u64,
}

impl Clock {
    /// Milliseconds so far.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Takes a reading of the host's clock.
    pub(crate) fn advance(&mut self, reading: u64) {
        let mut passed = reading.saturating_sub(self.last_seen.replace(reading).unwrap_or(reading));
        self.still = if passed == 0 { self.still + 1 } else { 0 };
        if self.still == STILL_LOOKS {
            (self.still, passed) = (0, STILL_STEP_MS);
        }
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

    #[test]
    fn a14_under_a_clock_that_stands_still_or_runs_backwards_time_passes_by_looking() {
        for backwards in [0, 1] {
            let mut clock = Clock::default();
            for look in 0..2 * u64::from(STILL_LOOKS) {
                clock.advance(1_000_000 - look * backwards);
            }
            assert_eq!(clock.now(), 2 * STILL_STEP_MS);
            clock.advance(1_000_001);
            assert_eq!(clock.now(), 2 * STILL_STEP_MS + if backwards == 1 { LARGEST_STEP_MS } else { 1 });
        }
    }
}
