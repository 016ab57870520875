//! The guest's random numbers, for rustls and for everybody else.

use super::instructions::{rdrand, rdseed};
use crate::CPUID;
use kernel::entropy::{EntropyFailure, Random, Source};
use kernel::fatal::{Fatal, OrFatal};
use kernel::lock::Lock;
use kernel::snp::cpuid::Feature;
use rustls::crypto::{GetRandomFailed, SecureRandom};
use wire::termination::Termination;

static RANDOM: Lock<Option<Random<Processor>>> = Lock::new(None);

/// RDSEED, or RDRAND where there is no RDSEED; by SP 800-90B both are sources that still need conditioning.
#[derive(Clone, Copy)]
enum Processor {
    Rdseed,
    Rdrand,
}

impl Source for Processor {
    fn word(&mut self) -> Option<u64> {
        match self {
            Self::Rdseed => rdseed(),
            Self::Rdrand => rdrand(),
        }
    }
}

/// Tests the processor's source and seeds the generator.
pub fn start() -> OrFatal<()> {
    let failed = |_| Fatal::new(Termination::Entropy, 0);
    let cpuid = CPUID.get().ok_or(Fatal::new(Termination::CpuidPage, 0))?;
    let source = if cpuid.has(Feature::RDSEED) {
        Processor::Rdseed
    } else if cpuid.has(Feature::RDRAND) {
        Processor::Rdrand
    } else {
        return Err(failed(EntropyFailure));
    };
    let random = Random::start(source).map_err(failed)?;
    RANDOM.with(|place| *place = Some(random));
    Ok(())
}

/// Fills `out`, or fails for good.
pub fn fill(out: &mut [u8]) -> Result<(), EntropyFailure> {
    RANDOM.with(|random| random.as_mut().ok_or(EntropyFailure)?.fill(out))
}

/// A number that nobody can guess.
pub fn word() -> OrFatal<u64> {
    let mut word = [0; 8];
    fill(&mut word).map_err(|_| Fatal::new(Termination::Entropy, 1))?;
    Ok(u64::from_le_bytes(word))
}

/// The generator as rustls sees it.
#[derive(Debug)]
pub struct GuestRandom;

impl SecureRandom for GuestRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), GetRandomFailed> {
        fill(out).map_err(|_| GetRandomFailed)
    }
}
