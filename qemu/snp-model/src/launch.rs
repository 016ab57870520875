//! The launch of an image under SEV-SNP: which pages the guest starts with and what the AMD-SP measures of them.
//!
//! The order is QEMU's: `sev_encrypt_flash` queues the ROM when the machine loads it, `snp_populate_metadata_pages`
//! queues the metadata sections in their order at the end, and KVM appends a VMSA for each vCPU
//! (`snp_launch_update_vmsa`). Of an IGVM file the pages come in the file's order (`backends/igvm.c`).

mod digest;
mod firmware;
mod igvm;
mod image;
mod vmsa;

pub use digest::{LaunchDigest, launch_digest};
pub use firmware::{Firmware, FirmwareError};
pub use igvm::{Igvm, IgvmError};
pub use image::{Image, ImageError, page_of};
pub use vmsa::{RESET_VECTOR, SEV_FEATURES, VMSA_GPA, initial_vmsa, offset, reset_vmsa};

/// How the AMD-SP adds a page to a guest: `PAGE_TYPE` of `SNP_LAUNCH_UPDATE` (SNP ABI §8.17.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageKind {
    /// `PAGE_TYPE_NORMAL`: its contents are measured.
    Normal = 0x1,
    /// `PAGE_TYPE_VMSA`: its contents are measured.
    Vmsa = 0x2,
    /// `PAGE_TYPE_ZERO`: measured as a page of zeroes.
    Zero = 0x3,
    /// `PAGE_TYPE_UNMEASURED`: only its place is measured.
    Unmeasured = 0x4,
    /// `PAGE_TYPE_SECRETS`: the AMD-SP writes it.
    Secrets = 0x5,
    /// `PAGE_TYPE_CPUID`: the AMD-SP checks it.
    Cpuid = 0x6,
}

/// A run of pages that the guest starts with; all of them private and validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical address, page-aligned.
    pub gpa: u64,
    /// Length, whole pages, not zero.
    pub bytes: u64,
    /// Kind of its pages.
    pub kind: PageKind,
}

impl Region {
    /// The address after the last byte.
    pub const fn end(&self) -> u64 {
        self.gpa + self.bytes
    }
}
