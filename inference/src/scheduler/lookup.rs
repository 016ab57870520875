//! Prompt lookup: guesses at what comes next, from what came after the same tokens earlier in the same session.
//!
//! Summaries and rewrites repeat their input. Evaluating a few guessed tokens together with the newest one reads the
//! weights once instead of once a token; a guess that the sampler does not choose costs its share of the batch, so
//! the number of guesses follows their success. Saxena, "Prompt Lookup Decoding", 2023; verified as in Leviathan et
//! al., arXiv 2211.17192, with the deterministic guess accepted exactly when the seeded sampler chooses it.

/// So many tokens at the end must have occurred before; the longer one is looked for first.
const NEEDLES: [usize; 2] = [4, 2];
/// Guesses for one session in one step.
pub(super) const MOST: usize = 12;
const FIRST: usize = 3;
/// After so many steps in a row without a single hit, guessing rests.
const MISSES: u32 = 2;
/// The longest rest, in tokens.
const LONGEST_REST: u32 = 128;

/// How a session's guesses have fared.
#[derive(Clone, Copy)]
pub(super) struct Lookup {
    /// Guesses in the next step.
    reach: usize,
    misses: u32,
    /// Tokens until guessing begins again.
    rest: u32,
}

impl Lookup {
    pub(super) fn new() -> Self {
        Self { reach: FIRST, misses: 0, rest: 0 }
    }

    /// Where in `tokens` the guesses are found, at most so many.
    pub(super) fn guess(&self, tokens: &[u32], most: usize) -> core::ops::Range<usize> {
        let most = most.min(self.reach);
        if most == 0 || self.rest > 0 {
            return 0..0;
        }
        let found = NEEDLES.iter().find_map(|length| {
            let (_, needle) = tokens.split_at_checked(tokens.len().checked_sub(*length)?)?;
            // The newest occurrence but the end itself; it may overlap it.
            let earlier = &tokens[..tokens.len() - 1];
            earlier.windows(*length).rposition(|window| window == needle).map(|at| at + length)
        });
        found.map_or(0..0, |start| start..tokens.len().min(start + most))
    }

    /// Learns how many of how many guesses were right.
    pub(super) fn learn(&mut self, guessed: usize, right: usize) {
        if guessed == 0 {
            self.rest = self.rest.saturating_sub(1);
        } else if right == guessed {
            (self.reach, self.misses) = ((self.reach * 2).min(MOST), 0);
        } else if right > 0 {
            (self.reach, self.misses) = (right + 1, 0);
        } else {
            (self.reach, self.misses) = (1.max(self.reach / 2), self.misses + 1);
            if self.misses >= MISSES {
                self.rest = (1 << self.misses.min(31)).min(LONGEST_REST);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST, LONGEST_REST, Lookup, MISSES, MOST};

    #[test]
    fn guesses_are_what_followed_the_newest_earlier_occurrence() {
        let lookup = Lookup { reach: 3, ..Lookup::new() };
        assert_eq!(lookup.guess(&[1, 2, 3, 4, 5, 6, 1, 2, 3, 9, 1, 2], 9), 8..11);
        assert_eq!(
            lookup.guess(&[7, 1, 2, 3, 4, 5, 0, 3, 4, 8, 1, 2, 3, 4], 9),
            5..8,
            "four match before two"
        );
        assert_eq!(lookup.guess(&[1, 2, 3, 1, 2], 9), 2..5);
        assert_eq!(lookup.guess(&[1, 2, 3, 1, 2], 1), 2..3);
        assert_eq!(lookup.guess(&[5, 5, 5], 9), 2..3, "an occurrence may overlap the end");
        for none in [&[][..], &[1], &[1, 2], &[1, 2, 3], &[1, 1]] {
            assert!(lookup.guess(none, 9).is_empty(), "{none:?}");
        }
        assert!(lookup.guess(&[1, 2, 3, 1, 2], 0).is_empty());
    }

    #[test]
    fn the_reach_follows_success_and_failure_rests() {
        let mut lookup = Lookup::new();
        for _ in 0..5 {
            lookup.learn(lookup.reach, lookup.reach);
        }
        assert_eq!(lookup.reach, MOST);
        lookup.learn(MOST, 2);
        assert_eq!(lookup.reach, 3);
        let again = [1, 2, 3, 1, 2];
        for _ in 0..MISSES {
            assert!(!lookup.guess(&again, FIRST).is_empty());
            lookup.learn(1, 0);
        }
        let mut rests = 0;
        while lookup.guess(&again, FIRST).is_empty() {
            lookup.learn(0, 0);
            rests += 1;
        }
        assert_eq!(rests, 1 << MISSES);
        for _ in 0..100 {
            lookup.learn(1, 0);
        }
        assert!(lookup.rest <= LONGEST_REST && lookup.reach >= 1);
    }
}
