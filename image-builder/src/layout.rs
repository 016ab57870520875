//! Where things are in guest-physical memory when the image starts. Both containers and the kernel agree on it.

use std::ops::Range;

/// Bytes of a page.
pub const PAGE: u32 = 4096;
/// Where the AMD-SP puts the CPUID page.
pub const CPUID_PAGE: u32 = 0x10_0000;
/// Where the AMD-SP puts the secrets page.
pub const SECRETS_PAGE: u32 = 0x10_1000;
/// The page under the stack pointer with which the kernel is entered.
pub const ENTRY_STACK_PAGE: u32 = 0x10_2000;
/// The measured manifest: its length, then its bytes.
pub const MANIFEST: Range<u32> = 0x18_0000..0x19_0000;
/// All segments of the kernel, zero-filled parts included, lie in here.
pub const KERNEL: Range<u32> = 0x20_0000..0x60_0000;
/// Selector of the flat 32-bit code segment with which the kernel is entered.
pub const CODE32: u16 = 0x08;
/// Selector of the flat data segment in DS, ES and SS.
pub const DATA: u16 = 0x10;

const _: () = assert!(MANIFEST.start as u64 == attestation::manifest::MANIFEST_GPA);
const _: () = assert!((MANIFEST.end - MANIFEST.start) as usize == attestation::manifest::MANIFEST_MAX_BYTES);
