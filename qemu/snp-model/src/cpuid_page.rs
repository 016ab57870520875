//! The CPUID page: what the AMD-SP lets a guest believe of its processor (SNP ABI §7.1, §8.17.2.6).

use crate::{PAGE_BYTES, Page, cpu_type::CpuSignature};
use alloc::{boxed::Box, vec::Vec};

/// The bit of a guest-physical address that makes it private: `Fn8000_001F_EBX[5:0]`.
pub const C_BIT: u32 = 51;

/// The VM that the page describes.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Family, model and stepping.
    pub signature: CpuSignature,
    /// vCPUs, one thread to a core, one socket.
    pub vcpus: u32,
}

/// EAX, EBX, ECX and EDX.
pub type Registers = [u32; 4];

/// One `CPUID_FUNCTION` of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `EAX_IN`.
    pub leaf: u32,
    /// `ECX_IN`.
    pub subleaf: u32,
    /// `XCR0_IN`.
    pub xcr0: u64,
    /// `XSS_IN`.
    pub xss: u64,
    /// `EAX` to `EDX`.
    pub out: Registers,
}

/// The CPUID page of a guest.
#[derive(Clone, Debug)]
pub struct CpuidPage {
    entries: Vec<Entry>,
}
