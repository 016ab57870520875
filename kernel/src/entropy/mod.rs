//! Random numbers: the processor's noise source, tested and conditioned, seeds a deterministic generator.
//!
//! Everything fails closed (REQUIREMENTS A15): after one failed test there are no more random numbers, so no key is made.

pub mod drbg;
pub mod health;

use drbg::HmacDrbg;
use health::HealthTest;
use hmac::Hmac;
use sha2::{Digest, Sha384};
use zeroize::{Zeroize, Zeroizing};

/// Words that a seed is made of; the first seed's words are the start-up test of SP 800-90B §4.3 (1,024 samples).
const SEED_WORDS: usize = 1024;
/// How often a source that has no word ready is asked again.
const RETRIES: u32 = 100_000;
/// Requests after which the generator is seeded anew.
const REQUESTS_PER_SEED: u64 = 4096;

/// A source of noise, 64 bits at a time.
pub trait Source {
    /// The next word, or `None` if none is ready.
    fn word(&mut self) -> Option<u64>;
}

/// The source failed a test, now or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntropyFailure;

/// The guest's random number generator.
pub struct Random<S> {
    source: S,
    health: HealthTest,
    /// `None` once anything failed.
    drbg: Option<HmacDrbg<Hmac<Sha384>, 48>>,
}

impl<S: Source> Random<S> {
    /// Tests the source and seeds the generator.
    pub fn start(source: S) -> Result<Self, EntropyFailure> {
        let mut random = Self { source, health: HealthTest::default(), drbg: None };
        let (entropy, nonce) = (random.seed()?, random.seed()?);
        random.drbg = Some(HmacDrbg::new(&*entropy, &*nonce, b"cloister guest v1"));
        Ok(random)
    }

    /// Fills `out`; on failure it is zeroed, and every further call fails.
    pub fn fill(&mut self, out: &mut [u8]) -> Result<(), EntropyFailure> {
        let filled = self.try_fill(out);
        if filled.is_err() {
            self.drbg = None;
            out.zeroize();
        }
        filled
    }

    fn try_fill(&mut self, out: &mut [u8]) -> Result<(), EntropyFailure> {
        for piece in out.chunks_mut(drbg::MAX_REQUEST_BYTES) {
            if self.drbg.as_ref().ok_or(EntropyFailure)?.requests() >= REQUESTS_PER_SEED {
                let seed = self.seed()?;
                self.drbg.as_mut().ok_or(EntropyFailure)?.reseed(&*seed);
            }
            self.drbg.as_mut().ok_or(EntropyFailure)?.generate(piece);
        }
        Ok(())
    }

    /// 384 bits, conditioned by hashing far more noise than they are (SP 800-90B §3.1.5).
    fn seed(&mut self) -> Result<Zeroizing<[u8; 48]>, EntropyFailure> {
        let mut conditioner = Sha384::new();
        for _ in 0..SEED_WORDS {
            let mut word = (0..RETRIES).find_map(|_| self.source.word()).ok_or(EntropyFailure)?;
            self.health.check(word)?;
            conditioner.update(word.to_le_bytes());
            word.zeroize();
        }
        Ok(Zeroizing::new(conditioner.finalize().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64, with chosen faults after some good words.
    struct Fake {
        state: u64,
        good: usize,
        then: fn(usize) -> Option<u64>,
    }

    impl Source for Fake {
        fn word(&mut self) -> Option<u64> {
            if self.good == 0 {
                self.state += 1;
                return (self.then)(self.state as usize);
            }
            self.good -= 1;
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.state;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            Some(z ^ z >> 31)
        }
    }

    fn good(words: usize, then: fn(usize) -> Option<u64>) -> Fake {
        Fake { state: 1, good: words, then }
    }

    #[test]
    fn a_healthy_source_seeds_different_streams() {
        let mut one = Random::start(good(usize::MAX, |_| None)).unwrap();
        let mut two = Random::start(Fake { state: 2, ..good(usize::MAX, |_| None) }).unwrap();
        let (mut a, mut b, mut c) = ([0; 64], [0; 64], [0; 64]);
        one.fill(&mut a).unwrap();
        one.fill(&mut b).unwrap();
        two.fill(&mut c).unwrap();
        assert!(a != b && a != c && b != c);
        let mut long = vec![0; 3 * drbg::MAX_REQUEST_BYTES + 1];
        one.fill(&mut long).unwrap();
        assert!(long.chunks_exact(64).all(|piece| piece != [0; 64]));
    }

    #[test]
    fn a15_a_stuck_or_failing_source_makes_no_key() {
        let stuck: [fn(usize) -> Option<u64>; 5] = [
            |_| None,
            |_| Some(0),
            |_| Some(u64::MAX),
            |i| Some([7, 9][i % 2]),
            |i| Some([1, 2, 3, 4, 5][i % 5]),
        ];
        for fault in stuck {
            for words in [0, 500, 1400] {
                assert!(Random::start(good(words, fault)).is_err(), "{words}");
            }
        }
    }

    #[test]
    fn a15_a_source_that_fails_later_stops_the_generator_for_good() {
        let mut random = Random::start(good(2048, |_| Some(u64::MAX))).unwrap();
        let mut out = [0; 16];
        for _ in 0..REQUESTS_PER_SEED {
            random.fill(&mut out).unwrap();
        }
        assert_eq!(random.fill(&mut out), Err(EntropyFailure));
        assert_eq!(out, [0; 16]);
        random.source = good(usize::MAX, |_| None);
        assert_eq!(random.fill(&mut out), Err(EntropyFailure));
    }
}
