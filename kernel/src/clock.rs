//! Time for timeouts (REQUIREMENTS A14): milliseconds of the time-stamp counter, which the host may stop, set or scale.

use crate::snp::cpuid::CpuidTable;

/// Taken if nobody says how fast the counter runs: 2 GHz, within a factor of 2.5 of every processor with SEV-SNP. Timeouts
/// are then off by that factor and nothing else is.
const ASSUMED_KHZ: u64 = 2_000_000;
/// What a real counter's frequency lies between; other claims are not believed.
const PLAUSIBLE_KHZ: core::ops::RangeInclusive<u64> = 100_000..=10_000_000;

/// KVM's and VMware's timing leaf: EAX is the frequency in kHz. The AMD-SP does not check it.
const TIMING_LEAF: u32 = 0x4000_0010;

/// How fast the counter runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency {
    khz: u64,
}

impl Frequency {
    /// From the best source there is: `GUEST_TSC_FREQ` with secure TSC (in MHz), leaf 0x15 (crystal times ratio),
    /// leaf 0x16 (base MHz), the hypervisor's leaf, or an assumption.
    pub fn find(cpuid: &CpuidTable, guest_tsc_mhz: Option<u64>) -> Self {
        let from_msr = guest_tsc_mhz.and_then(|mhz| mhz.checked_mul(1000));
        let crystal = || {
            let leaf = cpuid.find(0x15, 0)?;
            (u64::from(leaf.ecx) * u64::from(leaf.ebx)).checked_div(u64::from(leaf.eax) * 1000)
        };
        let base = || cpuid.find(0x16, 0).map(|leaf| u64::from(leaf.eax) * 1000);
        let timing = || cpuid.find(TIMING_LEAF, 0).map(|leaf| leaf.eax.into());
        let plausible = |khz: &u64| PLAUSIBLE_KHZ.contains(khz);
        let khz = from_msr
            .filter(plausible)
            .or_else(|| crystal().filter(plausible))
            .or_else(|| base().filter(plausible))
            .or_else(|| timing().filter(plausible))
            .unwrap_or(ASSUMED_KHZ);
        Self { khz }
    }

    /// Milliseconds for so many ticks.
    pub const fn milliseconds(self, ticks: u64) -> u64 {
        ticks / self.khz
    }
}

/// Most milliseconds by which one reading moves the clock: longer than any step of the guest's work, and far below what
/// overflows the network stack's estimates of round trips (32-bit milliseconds, times seven).
const MOST_STEP_MS: u64 = 60_000;

/// A clock out of readings that may jump: it never runs backwards, and never far ahead at once.
#[derive(Debug, Default)]
pub struct Steady {
    last: u64,
    now: u64,
}

impl Steady {
    /// A clock at 0.
    pub const fn new() -> Self {
        Self { last: 0, now: 0 }
    }

    /// Takes in a reading in milliseconds; the time now.
    pub fn advance(&mut self, reading: u64) -> u64 {
        self.now += reading.saturating_sub(self.last).min(MOST_STEP_MS);
        self.last = reading;
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snp::cpuid::tests::{GENOA, page};

    fn found(more: &[(u32, u32, [u32; 4])], msr: Option<u64>) -> u64 {
        let lines: Vec<_> = GENOA.iter().chain(more).copied().collect();
        Frequency::find(&CpuidTable::new(&page(&lines)).unwrap(), msr).khz
    }

    #[test]
    fn the_best_plausible_source_is_taken() {
        let timing = (TIMING_LEAF, 0, [2_450_000, 0, 0, 0]);
        let crystal = (0x15, 0, [2, 250, 24_000_000, 0]);
        assert_eq!(found(&[], None), ASSUMED_KHZ);
        assert_eq!(found(&[timing], None), 2_450_000);
        assert_eq!(found(&[timing, crystal], None), 3_000_000);
        assert_eq!(found(&[timing, crystal], Some(2_400)), 2_400_000);
        assert_eq!(found(&[(0x16, 0, [2_300, 0, 0, 0])], None), 2_300_000);
    }

    #[test]
    fn a14_an_absurd_frequency_is_not_believed() {
        assert_eq!(found(&[(TIMING_LEAF, 0, [0, 0, 0, 0])], Some(0)), ASSUMED_KHZ);
        assert_eq!(found(&[(TIMING_LEAF, 0, [99_999, 0, 0, 0])], None), ASSUMED_KHZ);
        assert_eq!(found(&[(0x15, 0, [0, 1, 1, 0])], Some(u64::MAX)), ASSUMED_KHZ);
    }

    #[test]
    fn a14_a_counter_that_jumps_moves_time_a_little() {
        let mut clock = Steady::new();
        let start = clock.advance(5_000_000);
        assert_eq!(start, MOST_STEP_MS);
        assert_eq!(clock.advance(5_000_250), start + 250);
        assert_eq!(clock.advance(u64::MAX), start + 250 + MOST_STEP_MS);
        assert_eq!(clock.advance(7), start + 250 + MOST_STEP_MS, "backwards");
        assert_eq!(clock.advance(9), start + 252 + MOST_STEP_MS, "and on from there");
    }
}
