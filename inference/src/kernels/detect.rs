//! Which instructions the processor has, and the operating system has switched on.
use super::Kernels;
#[cfg(feature = "plain")]
use super::plain::Plain;
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// A set of instructions that the inner loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// What every processor has; compiled in with the feature `plain` only.
    Plain,
    /// AVX2 with FMA and F16C: Milan and its like.
    Avx2,
    /// AVX-512 with VNNI: Genoa and later.
    Avx512,
}

/// Private, so that only [`Isa::kernels`] can hand them out.
#[cfg(feature = "plain")]
static PLAIN: Kernels = Kernels::of::<Plain>("plain", 1.0);
#[cfg(target_arch = "x86_64")]
static AVX2: Kernels = Kernels::of::<Avx2>("avx2", 2.2);
#[cfg(target_arch = "x86_64")]
static AVX512: Kernels = Kernels::of::<Avx512>("avx512", 1.9);

impl Isa {
    /// All of them, the best last.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Avx2, Self::Avx512];

    /// The best set for the processor that this runs on.
    #[must_use]
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.is_supported()).unwrap_or(Self::Plain)
    }

    /// Whether the processor that this runs on has it.
    #[must_use]
    pub fn is_supported(self) -> bool {
        match self {
            Self::Plain => cfg!(feature = "plain"),
            #[cfg(target_arch = "x86_64")]
            _ => x86::supports(self),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The functions; the plainest where the processor lacks these, and none where it cannot run those either.
    pub(crate) fn kernels(self) -> Option<&'static Kernels> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if self.is_supported() => Some(&AVX512),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 if self.is_supported() => Some(&AVX2),
            #[cfg(feature = "plain")]
            _ => Some(&PLAIN),
            #[cfg(not(feature = "plain"))]
            _ => None,
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Isa;
    use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

    // AMD64 Architecture Programmer's Manual, volume 3, appendix E: Fn0000_0001_ECX, Fn0000_0007_EBX_x0 and _ECX_x0.
    const FMA: u32 = 1 << 12;
    const OSXSAVE: u32 = 1 << 27;
    const AVX: u32 = 1 << 28;
    const F16C: u32 = 1 << 29;
    const AVX2: u32 = 1 << 5;
    const AVX512: u32 = F | DQ | BW | VL;
    const F: u32 = 1 << 16;
    const DQ: u32 = 1 << 17;
    const BW: u32 = 1 << 30;
    const VL: u32 = 1 << 31;
    const VNNI: u32 = 1 << 11;
    /// XCR0: the state of XMM and YMM registers is enabled, and that of mask and ZMM registers.
    const AVX_STATE: u64 = 0b110;
    const AVX512_STATE: u64 = 0b1110_0110;

    pub(super) fn supports(isa: Isa) -> bool {
        let has = |value: u32, bits: u32| value & bits == bits;
        if __cpuid(0).eax < 7 || !has(__cpuid(1).ecx, FMA | OSXSAVE | AVX | F16C) {
            return false;
        }
        // SAFETY: OSXSAVE, tested before, says that XGETBV may be executed.
        let enabled = unsafe { _xgetbv(0) };
        let leaf = __cpuid_count(7, 0);
        let state = if isa == Isa::Avx512 { AVX512_STATE } else { AVX_STATE };
        let newer = isa == Isa::Avx2 || has(leaf.ebx, AVX512) && has(leaf.ecx, VNNI);
        enabled & state == state && has(leaf.ebx, AVX2) && newer
    }
}
