//! `cloister.igvm`: the kernel and the manifest as pages and a vCPU state, for a QEMU (10.1 or later) built with IGVM.
//!
//! The same pages are private and valid when the kernel starts as with the ROM, with the same contents where the kernel
//! reads them, and its first instruction is the same: nothing of the ROM is left, since nobody needs to copy.
//!
//! Every page has its bytes in the file, zeros included: a page without data is measured as one of type ZERO or as a
//! NORMAL page of zeros, depending on who loads it (coconut's `igvmmeasure` has an option for that).

mod read;

pub use read::{Contents, Igvm, IgvmError, Page, is_igvm};

use crate::elf::{ElfError, Kernel};
use crate::layout::{CPUID_PAGE, ENTRY_STACK_PAGE, MANIFEST, PAGE, SECRETS_PAGE};
use crate::vmsa::{self, VMSA_ADDRESS};
use attestation::manifest::{MANIFEST_MAX_BYTES, Manifest};
use attestation::report::GuestPolicy;
use igvm::snp_defs::SevVmsa;
use igvm::{IgvmDirectiveHeader, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader, IgvmRevision};
use igvm_defs::{IGVM_VHS_SUPPORTED_PLATFORM, IgvmPageDataFlags, IgvmPageDataType, IgvmPlatformType};
use zerocopy::FromBytes;

/// The one platform of the file.
const SEV_SNP: u32 = 1;

/// Why no IGVM file can be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The kernel's file is unusable.
    #[error("the kernel cannot be placed: {0}")]
    Kernel(#[from] ElfError),
    /// The manifest does not fit its region.
    #[error(
        "the manifest takes {0} bytes, but there is room for {MANIFEST_MAX_BYTES}; shorten its instructions or its template"
    )]
    Manifest(usize),
    /// The file format cannot express it.
    #[error("the IGVM file cannot be written: {0}")]
    Format(#[from] igvm::Error),
}

/// The IGVM file that starts `kernel` (an ELF file) with `manifest`.
pub fn build(kernel: &[u8], manifest: &Manifest) -> Result<Vec<u8>, BuildError> {
    let kernel = Kernel::parse(kernel)?;
    let encoded = manifest.encode();
    let manifest = [&(encoded.len() as u32).to_le_bytes()[..], &encoded].concat();
    if manifest.len() > MANIFEST_MAX_BYTES {
        return Err(BuildError::Manifest(manifest.len()));
    }

    let page_bytes = PAGE as usize;
    let mut directives = Vec::new();
    let mut page = |gpa: u32, data_type, data| {
        directives.push(IgvmDirectiveHeader::PageData {
            gpa: gpa.into(),
            compatibility_mask: SEV_SNP,
            flags: IgvmPageDataFlags::new(),
            data_type,
            data,
        });
    };
    // In rising order of address: QEMU joins pages that follow each other, and asks KVM once for each run.
    page(CPUID_PAGE, IgvmPageDataType::CPUID_DATA, Vec::new());
    page(SECRETS_PAGE, IgvmPageDataType::SECRETS, Vec::new());
    page(ENTRY_STACK_PAGE, IgvmPageDataType::NORMAL, vec![0; page_bytes]);
    let mut memory = manifest;
    memory.resize((MANIFEST.end - MANIFEST.start) as usize, 0);
    for (gpa, bytes) in (MANIFEST.start..).step_by(page_bytes).zip(memory.chunks(page_bytes)) {
        page(gpa, IgvmPageDataType::NORMAL, bytes.to_vec());
    }
    let start = kernel.segments.first().map_or(kernel.entry, |segment| segment.address);
    let mut memory = vec![0; (kernel.end() - start) as usize];
    for segment in &kernel.segments {
        memory[(segment.address - start) as usize..][..segment.bytes.len()].copy_from_slice(segment.bytes);
    }
    for (gpa, bytes) in (start..).step_by(page_bytes).zip(memory.chunks(page_bytes)) {
        page(gpa, IgvmPageDataType::NORMAL, bytes.to_vec());
    }
    // Last, since KVM measures it last.
    let entry = vmsa::at_entry(kernel.entry, ENTRY_STACK_PAGE + PAGE);
    directives.push(vp_context(0, &entry));

    let platform = IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: SEV_SNP,
        highest_vtl: 0,
        platform_type: IgvmPlatformType::SEV_SNP,
        platform_version: igvm_defs::IGVM_SEV_SNP_PLATFORM_VERSION,
        shared_gpa_boundary: 0,
    };
    // QEMU takes the guest policy from the file and not from its command line.
    let policy = IgvmInitializationHeader::GuestPolicy {
        policy: GuestPolicy::CLOISTER.0,
        compatibility_mask: SEV_SNP,
    };
    let platform = vec![IgvmPlatformHeader::SupportedPlatform(platform)];
    // Version 1 is what every QEMU's library reads.
    let file = IgvmFile::new(IgvmRevision::V1, platform, vec![policy], directives)?;
    let mut bytes = Vec::new();
    file.serialize(&mut bytes)?;
    Ok(bytes)
}

/// The state of vCPU `index`.
fn vp_context(index: u16, page: &vmsa::Page) -> IgvmDirectiveHeader {
    const _: () = assert!(size_of::<SevVmsa>() <= PAGE as usize);
    let vmsa =
        SevVmsa::read_from_prefix(page).map_or_else(|_| unreachable!("a page holds a VMSA"), |(v, _)| v);
    IgvmDirectiveHeader::SnpVpContext {
        gpa: VMSA_ADDRESS,
        compatibility_mask: SEV_SNP,
        vp_index: index,
        vmsa: Box::new(vmsa),
    }
}

#[cfg(test)]
mod tests;
