//! Prompt lookup: guesses at what comes next, from what came after the same tokens earlier in the same session.
//!
//! Summaries and rewrites repeat their input. Evaluating a few guessed tokens together with the newest one reads the
//! weights once instead of once a token; but a batch costs more than a token, so guesses are made where those of this
//! session have come true often enough. Saxena, "Prompt Lookup Decoding", 2023; verified as in Leviathan et
//! al., arXiv 2211.17192, with the deterministic guess accepted exactly when the seeded sampler chooses it.

use core::ops::Range;

/// So many tokens at the end must have occurred before, at least; and more than the longest are not compared.
const SHORTEST: usize = 2;
const LONGEST: usize = 8;
/// Guesses for one session in one step.
pub(super) const MOST: usize = 11;
/// How likely the next token is the one that came before, after a match of 2, 3, ... 8 tokens, until the session itself
/// has shown it.
const CHANCES: [f32; LONGEST - SHORTEST + 1] = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
/// How much of a chance the newest token decides.
const RATE: f32 = 0.125;
/// Guesses must promise so much, as what they cost is known roughly.
const MARGIN: f32 = 1.05;

/// How a session's guesses have fared, those too that were not made: what a guess would have been is known at once,
/// and whether it would have been right is known after the step.
#[derive(Clone, Copy)]
pub(super) struct Lookup {
    /// How likely a guess is right, by the length of the match before it.
    chances: [f32; CHANCES.len()],
    /// Where the last match ended, how long it was, and how many tokens there were.
    last: Option<(usize, usize, usize)>,
}

impl Lookup {
    pub(super) fn new() -> Self {
        Self { chances: CHANCES, last: None }
    }

    /// Where in `tokens` the guesses are found that promise most for the time they take, at most so many.
    /// The price is that of a step with so many guesses.
    pub(super) fn guess(
        &mut self,
        tokens: &[u32],
        most: usize,
        price: impl Fn(usize) -> f32,
    ) -> Range<usize> {
        // The newest of the longest matches. It may overlap the end.
        let (mut start, mut matched) = (0, SHORTEST - 1);
        for end in (1..tokens.len()).rev().take_while(|_| most > 0) {
            let pairs = tokens[..end].iter().rev().zip(tokens.iter().rev()).take(LONGEST);
            let length = pairs.take_while(|(earlier, newest)| earlier == newest).count();
            if length > matched {
                (start, matched) = (end, length);
                if length == LONGEST {
                    break;
                }
            }
        }
        self.last = (matched >= SHORTEST).then_some((start, matched, tokens.len()));
        let (mut chance, mut expected, mut best, mut count) = (1.0, 1.0, MARGIN, 0);
        for guesses in 1..=if self.last.is_some() { most.min(tokens.len() - start) } else { 0 } {
            // The tokens that were guessed before have made the match longer.
            chance *= self.chances[class(matched + guesses - 1)];
            expected += chance;
            let worth = expected * price(0) / price(guesses);
            if worth > best {
                (best, count) = (worth, guesses);
            }
        }
        start..start + count
    }

    /// Learns from the tokens that have been chosen since.
    pub(super) fn learn(&mut self, tokens: &[u32]) {
        let Some((start, matched, known)) = self.last.take() else { return };
        for (index, (guess, token)) in tokens[start..].iter().zip(&tokens[known..]).enumerate() {
            let chance = &mut self.chances[class(matched + index)];
            *chance += (f32::from(u8::from(guess == token)) - *chance) * RATE;
            if guess != token {
                break;
            }
        }
    }
}

/// The place of a match's length in a list of chances.
fn class(matched: usize) -> usize {
    matched.min(LONGEST) - SHORTEST
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::{CHANCES, LONGEST, Lookup, MOST};

    /// Four tokens cost less than two.
    fn cheap(guesses: usize) -> f32 {
        if guesses == 0 { 1.0 } else { (1 + guesses).div_ceil(4) as f32 * 1.5 }
    }

    /// Which guesses are made by somebody who has always been right.
    fn guesses(tokens: &[u32], most: usize) -> core::ops::Range<usize> {
        Lookup { chances: [1.0; CHANCES.len()], last: None }.guess(tokens, most, cheap)
    }

    #[test]
    fn guesses_are_what_followed_the_newest_of_the_longest_matches() {
        assert_eq!(guesses(&[1, 2, 3, 4, 5, 6, 1, 2, 3, 9, 1, 2], 3), 8..11);
        assert_eq!(guesses(&[7, 1, 2, 3, 4, 5, 0, 3, 4, 8, 1, 2, 3, 4], 3), 5..8, "four match before two");
        assert_eq!(guesses(&[1, 2, 3, 1, 2], 9), 2..5);
        assert_eq!(guesses(&[1, 2, 3, 1, 2], 1), 2..3);
        assert_eq!(guesses(&[5, 5, 5], 9), 2..3, "a match may overlap the end");
        for none in [&[][..], &[1], &[1, 2], &[1, 2, 3], &[1, 1]] {
            assert!(guesses(none, 9).is_empty(), "{none:?}");
        }
        assert!(guesses(&[1, 2, 3, 1, 2], 0).is_empty());
    }

    #[test]
    fn guesses_are_made_where_they_pay() {
        let again = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].repeat(2);
        let likely = Lookup::new();
        assert!(
            likely.clone().guess(&again, MOST, |guesses| (1 + guesses) as f32).is_empty(),
            "a guess costs as much as a token"
        );
        assert!(!likely.clone().guess(&again, MOST, cheap).is_empty());
        assert!(
            likely.clone().guess(&again, MOST, |guesses| cheap(4 * guesses + 3)).is_empty(),
            "four sessions fill a batch"
        );
        let first = Lookup::new().guess(&[1, 2, 3, 4, 5, 6, 1, 2], MOST, cheap);
        assert!(first.is_empty(), "two tokens promise little before anything is known");
    }

    #[test]
    fn chances_follow_what_happens_even_while_nothing_is_guessed() {
        let mut lookup = Lookup::new();
        let mut tokens: Vec<u32> = (0..20).collect();
        let mut ask = |lookup: &mut Lookup, token: u32| {
            tokens.extend([0, 1]);
            let made = lookup.guess(&tokens, MOST, cheap).len();
            tokens.push(token);
            lookup.learn(&tokens);
            // So that the next match has two tokens again, and is followed by what came now.
            tokens.push(1000 + tokens.len() as u32);
            made
        };
        assert_eq!(ask(&mut lookup, 2), 0);
        let made = (0..20).map(|_| ask(&mut lookup, 2)).max();
        assert!(made > Some(0), "what was always right is guessed");
        // The last is followed by another token each time.
        let made: Vec<usize> = (0..40).map(|index| ask(&mut lookup, 100 + index)).collect();
        assert_eq!(made.last(), Some(&0), "what is never right is not guessed any more: {made:?}");
        assert!(lookup.chances.iter().all(|chance| (0.0..=1.0).contains(chance)) && LONGEST > 2);
    }
}
