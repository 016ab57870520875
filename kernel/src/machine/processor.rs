//! What the processor is, and how it is set up.

use super::instructions::{MSR_PAT, MSR_SEV_STATUS, cr4, rdmsr, set_cr4, wrmsr, xsetbv};
use super::stack;
use crate::CPUID;
use kernel::fatal::{Fatal, OrFatal};
use kernel::snp::cpuid::{self, CpuidTable, Feature};
use kernel::snp::status::SevStatus;
use wire::termination::Termination;

const CR4_UMIP: u64 = 1 << 11;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;

/// The reset value: write-back, write-through, uncached minus, uncached, twice (APM vol. 2, §7.8.2).
pub const PAT: u64 = 0x0007_0406_0007_0406;

/// Refuses a processor that is not the expected kind, and brings the one CPU into the state that the guest needs.
pub fn start() -> OrFatal<SevStatus> {
    // SAFETY: the entry read it already.
    let status = SevStatus::check(unsafe { rdmsr(MSR_SEV_STATUS) })?;
    // SAFETY: the AMD-SP filled the page at launch; it is mapped, private, and nobody writes it.
    let page = unsafe { &*(cpuid::GPA as *const [u8; cpuid::BYTES]) };
    let cpuid = CPUID.set(CpuidTable::new(page)?).map_err(|_| Fatal::new(Termination::CpuidPage, 0))?;

    let mut control = cr4();
    for (feature, bit) in [
        (Feature::SMEP, CR4_SMEP),
        (Feature::SMAP, CR4_SMAP),
        (Feature::UMIP, CR4_UMIP),
        (Feature::XSAVE, CR4_OSXSAVE),
    ] {
        if cpuid.has(feature) {
            control |= bit;
        }
    }
    // SAFETY: the processor has what is set. PAT entries keep their meaning for slot 0, the only one in use; the
    // MSR belongs to the vCPU's encrypted state and is not intercepted.
    unsafe {
        set_cr4(control);
        if cpuid.xcr0() != 0 {
            xsetbv(cpuid.xcr0());
        }
        wrmsr(MSR_PAT, PAT);
    }
    stack::reset_registers();
    Ok(status)
}
