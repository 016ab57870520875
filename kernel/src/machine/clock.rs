//! The guest's clock: see `kernel::clock` for how little it is trusted.

use super::instructions::{MSR_GUEST_TSC_FREQ, rdmsr, rdtsc};
use crate::CPUID;
use kernel::clock::{Frequency, Steady};
use kernel::lock::Lock;
use kernel::once::Once;
use kernel::snp::status::SevStatus;

static FREQUENCY: Once<Frequency> = Once::new();
static CLOCK: Lock<Steady> = Lock::new(Steady::new());

/// Finds out how fast the counter runs.
pub fn start(status: SevStatus) {
    // SAFETY: the register exists, and is not intercepted, exactly if secure TSC is active.
    let mhz = status.secure_tsc().then(|| unsafe { rdmsr(MSR_GUEST_TSC_FREQ) });
    if let Some(cpuid) = CPUID.get() {
        // A second value would be the same.
        let _ = FREQUENCY.set(Frequency::find(cpuid, mhz));
    }
}

/// Milliseconds since some moment of the boot; 0 before [`start`].
pub fn now_ms() -> u64 {
    let Some(frequency) = FREQUENCY.get() else { return 0 };
    let reading = frequency.milliseconds(rdtsc());
    CLOCK.with(|clock| clock.advance(reading))
}
