//! `SEV_STATUS` (MSR 0xC001_0131): the features under which this vCPU really runs.
//!
//! The processor answers this read itself, so it is where trust begins (REQUIREMENTS A3). Each feature that the guest
//! does not know could change what the guest relies on, hence an allow-list.

use crate::fatal::{Fatal, OrFatal};
use wire::termination::Termination;

/// Memory encryption, encrypted register state, and nested-page integrity.
const REQUIRED: u64 = 0b111;

/// Features that take something from the host or change nothing for a guest that polls: debug registers swapped (7),
/// host IBS prevented (8), BTB isolated (9), secure TSC (11), VMSA register protection (16), SMT protection (17),
/// IBPB on entry (23). APM vol. 2, §15.34.10, table "SEV_STATUS MSR".
const PERMITTED: u64 = REQUIRED | 1 << 7 | 1 << 8 | 1 << 9 | SECURE_TSC | 1 << 16 | 1 << 17 | 1 << 23;

const SECURE_TSC: u64 = 1 << 11;

/// A feature set that the guest accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SevStatus(u64);

impl SevStatus {
    /// Accepts the MSR's value if it has all that is required and nothing that is unknown.
    pub const fn check(value: u64) -> OrFatal<Self> {
        if value & REQUIRED != REQUIRED {
            return Err(Fatal::new(Termination::NotSnp, value));
        }
        if value & !PERMITTED != 0 {
            return Err(Fatal::new(Termination::SevFeatures, value));
        }
        Ok(Self(value))
    }

    /// The `SEV_FEATURES` of this vCPU's VMSA: the same bits, two places lower (APM vol. 2, §15.34.10).
    pub const fn features(self) -> u64 {
        self.0 >> 2
    }

    /// Whether the host cannot scale or set back the time-stamp counter.
    pub const fn secure_tsc(self) -> bool {
        self.0 & SECURE_TSC != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(value: u64) -> Option<Termination> {
        SevStatus::check(value).err().map(|fatal| fatal.reason)
    }

    #[test]
    fn a3_only_an_allowed_feature_set_runs() {
        assert_eq!(refusal(0), Some(Termination::NotSnp));
        assert_eq!(refusal(0b011), Some(Termination::NotSnp));
        assert_eq!(refusal(0b111), None);
        for bit in 3..64 {
            let allowed = [7, 8, 9, 11, 16, 17, 23].contains(&bit);
            let expected = if allowed { None } else { Some(Termination::SevFeatures) };
            assert_eq!(refusal(0b111 | 1 << bit), expected, "bit {bit}");
        }
    }
}
