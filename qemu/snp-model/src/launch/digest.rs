//! The launch digest: a chain of hashes, one for each page that the AMD-SP added (SNP ABI §8.17.2).

use super::{Image, PageKind, VMSA_GPA, page_of};
use crate::{PAGE_BYTES, cpu_type::CpuSignature};
use sha2::{Digest, Sha384};

/// `MEASUREMENT` of a report: SHA-384.
pub type LaunchDigest = [u8; 48];

/// Length of `PAGE_INFO` (SNP ABI §8.17.2, table "Layout of the PAGE_INFO Structure").
const PAGE_INFO_BYTES: u16 = 0x70;

/// The digest of a launch of `image` with `vcpus` vCPUs of the CPU type `signature`.
pub fn launch_digest(image: &Image<'_>, vcpus: u32, signature: CpuSignature) -> LaunchDigest {
    let mut chain = Chain([0; 48]);
    for (region, contents) in image.regions() {
        for (gpa, index) in (region.gpa..region.end()).step_by(PAGE_BYTES).zip(0..) {
            chain.add(region.kind, gpa, page_of(contents, index));
        }
    }
    for vcpu in 0..vcpus {
        let vmsa = image.vmsa(vcpu, signature);
        chain.add(PageKind::Vmsa, VMSA_GPA, Some(&vmsa[..]));
    }
    chain.0
}

/// `GCTX.LD`.
struct Chain(LaunchDigest);

impl Chain {
    /// Adds one page. Only normal pages and VMSAs have a hash of their contents; for the others it is zero.
    fn add(&mut self, kind: PageKind, gpa: u64, contents: Option<&[u8]>) {
        let contents: LaunchDigest = contents.map_or([0; 48], |page| Sha384::digest(page).into());
        let mut info = Sha384::new();
        info.update(self.0);
        info.update(contents);
        info.update(PAGE_INFO_BYTES.to_le_bytes());
        // PAGE_TYPE, IMI_PAGE, the permissions of VMPL 3, 2 and 1, reserved: KVM gives other VMPLs none.
        info.update([kind as u8, 0, 0, 0, 0, 0]);
        info.update(gpa.to_le_bytes());
        self.0 = info.finalize().into();
    }
}
