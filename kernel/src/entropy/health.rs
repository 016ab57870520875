//! Health tests of the noise source: SP 800-90B §4.4.1 (repetition count) and §4.4.2 (adaptive proportion).
//!
//! A sample is a 64-bit word. The assessed min-entropy is 16 bits a word, a quarter of what RDSEED promises; the
//! false-positive rate is 2^-30 for each test.

use super::EntropyFailure;

/// `1 + ceil(30 / 16)`.
const REPETITION_CUTOFF: u32 = 3;
/// Samples of one adaptive-proportion window; the source is not binary.
const WINDOW: u32 = 512;
/// `1 + critbinom(512, 2^-16, 1 - 2^-30)`.
const PROPORTION_CUTOFF: u32 = 4;

/// Both tests, run on every sample for as long as the guest lives.
#[derive(Default)]
pub struct HealthTest {
    last: u64,
    repetitions: u32,
    first_of_window: u64,
    seen: u32,
    same_as_first: u32,
}

impl HealthTest {
    /// Judges the next sample.
    pub fn check(&mut self, sample: u64) -> Result<(), EntropyFailure> {
        self.repetitions = if self.repetitions > 0 && sample == self.last { self.repetitions + 1 } else { 1 };
        self.last = sample;

        if self.seen == 0 {
            self.first_of_window = sample;
            self.same_as_first = 0;
        }
        self.same_as_first += u32::from(sample == self.first_of_window);
        self.seen = (self.seen + 1) % WINDOW;

        if self.repetitions >= REPETITION_CUTOFF || self.same_as_first >= PROPORTION_CUTOFF {
            return Err(EntropyFailure);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(samples: impl IntoIterator<Item = u64>) -> usize {
        let mut test = HealthTest::default();
        samples.into_iter().take_while(|sample| test.check(*sample).is_ok()).count()
    }

    #[test]
    fn a15_three_equal_words_in_a_row_fail() {
        assert_eq!(passes([1, 2, 2, 3, 3, 4, 4, 4, 5]), 7);
        assert_eq!(passes([0, 0, 0]), 2, "zero is a word like any other");
    }

    #[test]
    fn a15_a_word_that_comes_back_too_often_fails() {
        let samples = (0..600).map(|i| if i % 100 == 0 { 7 } else { 1000 + i });
        assert_eq!(passes(samples), 300);
    }

    #[test]
    fn a_new_window_counts_anew() {
        let samples = (0..5 * u64::from(WINDOW)).map(|i| if i % 200 == 0 { 7 } else { 1000 + i });
        assert_eq!(passes(samples), 5 * WINDOW as usize);
    }
}
