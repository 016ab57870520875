//! The secrets page (SNP ABI §8.17.2.5, table "Secrets Page Format").

use super::{Channel, VMPLS};
use crate::{PAGE_BYTES, Page, cpu_type::CpuSignature};
use alloc::boxed::Box;

/// `VERSION` of a page that has `TSC_FACTOR`.
const VERSION: u32 = 3;

/// Offsets into the page. `IMI_EN` (04h) is zero: no incoming migration image; so are `GOSVW` (10h), the bytes left to
/// the guest (A0h and 140h), `VMSA_TWEAK_BITMAP` (100h: no VMSA register protection) and `TSC_FACTOR` (160h: no secure TSC).
mod offset {
    pub const VERSION: usize = 0x00;
    pub const FMS: usize = 0x08;
    pub const VMPCK0: usize = 0x20;
}

/// The page that the AMD-SP writes at launch.
pub(super) fn page(signature: CpuSignature, channels: &[Channel; VMPLS]) -> Box<Page> {
    let mut page = Box::new([0; PAGE_BYTES]);
    page[offset::VERSION..][..4].copy_from_slice(&VERSION.to_le_bytes());
    page[offset::FMS..][..4].copy_from_slice(&signature.0.to_le_bytes());
    for (channel, at) in channels.iter().zip((offset::VMPCK0..).step_by(32)) {
        page[at..at + 32].copy_from_slice(&channel.key);
    }
    page
}
