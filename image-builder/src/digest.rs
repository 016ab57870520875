//! The launch digest: what the AMD-SP will report for an image that QEMU and KVM start.
//!
//! Sources: SEV-SNP ABI specification (AMD 56860) §8.17.2 for how a page is added, QEMU `target/i386/sev.c` and
//! `backends/igvm.c` for the order of pages.

use crate::cpu::CpuType;
use crate::firmware::{Firmware, FirmwareError, SectionKind};
use crate::igvm::{Contents, Igvm};
use crate::layout::PAGE;
use crate::vmsa::{self, RESET_VECTOR, VMSA_ADDRESS};
use sha2::{Digest, Sha384};

/// A launch digest, as a report's MEASUREMENT field holds it.
pub type LaunchDigest = [u8; 48];

/// PAGE_TYPE of PAGE_INFO.
#[derive(Clone, Copy)]
enum PageType {
    Normal = 1,
    Vmsa = 2,
    Zero = 3,
    Secrets = 5,
    Cpuid = 6,
}

/// The digest so far.
#[derive(Clone)]
struct Chain(LaunchDigest);

impl Chain {
    /// Adds one page: hashes PAGE_INFO, which begins with the digest so far.
    fn page(&mut self, kind: PageType, contents: Option<&[u8]>, address: u64) {
        const PAGE_INFO_BYTES: u16 = 0x70;
        let contents: [u8; 48] = contents.map_or([0; 48], |bytes| Sha384::digest(bytes).into());
        let mut info = [0; PAGE_INFO_BYTES as usize];
        info[0x00..0x30].copy_from_slice(&self.0);
        info[0x30..0x60].copy_from_slice(&contents);
        info[0x60..0x62].copy_from_slice(&PAGE_INFO_BYTES.to_le_bytes());
        info[0x62] = kind as u8;
        // 0x63: not an initial migration image; 0x64..0x67: no access for other VMPLs.
        info[0x68..0x70].copy_from_slice(&address.to_le_bytes());
        self.0 = Sha384::digest(info).into();
    }
}

/// Everything of a launch that does not depend on the vCPUs.
pub struct Launch {
    chain: Chain,
    first: First,
    others_start: u32,
}

/// The VMSA of the first vCPU.
enum First {
    /// As at reset.
    AtReset,
    /// As an IGVM file says, whatever the CPU type.
    Given(Box<vmsa::Page>),
}

impl Launch {
    /// Measures the ROM and the sections of its metadata.
    pub fn of(firmware: &Firmware) -> Result<Self, FirmwareError> {
        let mut chain = Chain([0; 48]);
        for (index, page) in firmware.rom().chunks_exact(PAGE as usize).enumerate() {
            chain.page(PageType::Normal, Some(page), firmware.address() + index as u64 * u64::from(PAGE));
        }
        for section in firmware.sections()? {
            let kind = match section.kind {
                SectionKind::Memory => PageType::Zero,
                SectionKind::Secrets => PageType::Secrets,
                SectionKind::Cpuid => PageType::Cpuid,
            };
            for offset in (0..section.size).step_by(PAGE as usize) {
                chain.page(kind, None, u64::from(section.address + offset));
            }
        }
        Ok(Self { chain, first: First::AtReset, others_start: firmware.ap_start()? })
    }

    /// Measures the pages of an IGVM file. QEMU takes the state of the first vCPU from it; KVM measures all others as
    /// they are at reset, since nobody sets them up.
    pub fn of_igvm(igvm: &Igvm) -> Self {
        let mut chain = Chain([0; 48]);
        for page in igvm.pages() {
            let (kind, contents) = match &page.contents {
                Contents::Data(data) => (PageType::Normal, Some(&data[..])),
                Contents::Secrets => (PageType::Secrets, None),
                Contents::Cpuid => (PageType::Cpuid, None),
            };
            chain.page(kind, contents, page.address);
        }
        Self { chain, first: First::Given(Box::new(*igvm.vmsa())), others_start: RESET_VECTOR }
    }

    /// The digest with so many vCPUs (at least one) of this type.
    pub fn digest(&self, vcpus: u32, cpu: CpuType) -> LaunchDigest {
        let index = vcpus.saturating_sub(1) as usize;
        self.digests(cpu).nth(index).unwrap_or_else(|| unreachable!("there is always one more"))
    }

    /// The digests with one vCPU of this type, with two, and so on without end.
    pub fn digests(&self, cpu: CpuType) -> impl Iterator<Item = LaunchDigest> + use<> {
        let first = match &self.first {
            First::AtReset => vmsa::at_reset(RESET_VECTOR, cpu),
            First::Given(page) => **page,
        };
        let other = vmsa::at_reset(self.others_start, cpu);
        let mut chain = self.chain.clone();
        chain.page(PageType::Vmsa, Some(&first), VMSA_ADDRESS);
        std::iter::successors(Some(chain), move |chain| {
            let mut chain = chain.clone();
            chain.page(PageType::Vmsa, Some(&other), VMSA_ADDRESS);
            Some(chain)
        })
        .map(|chain| chain.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkout::Checkout;
    use crate::samples::{kernel, manifest};
    use crate::{rom, tools};
    use serde::Deserialize;
    use std::process::Command;

    #[derive(Deserialize)]
    struct Vector {
        vcpus: u32,
        cpu_type: String,
        digest: String,
    }

    /// Vectors of an independent implementation, see `tests/vectors/README.md`.
    #[test]
    fn digests_are_those_of_sev_snp_measure() {
        let rom = include_bytes!("../tests/vectors/firmware.bin");
        let vectors: Vec<Vector> =
            serde_json::from_str(include_str!("../tests/vectors/launch_digests.json")).unwrap();
        assert_eq!(vectors.len(), 24);
        let launch = Launch::of(&Firmware::parse(rom).unwrap()).unwrap();
        for Vector { vcpus, cpu_type, digest } in vectors {
            assert_eq!(
                hex::encode(launch.digest(vcpus, cpu_type.parse().unwrap())),
                digest,
                "{vcpus} {cpu_type}"
            );
        }
    }

    /// The same judge, run on a ROM as the builder makes it now. Needs Python, and PyPI the first time.
    #[test]
    fn sev_snp_measure_reads_a_built_rom_as_we_do() {
        let checkout = Checkout::find().unwrap();
        let judge = tools::sev_snp_measure(&checkout).unwrap_or_else(|error| panic!("{error}"));
        let rom = rom::build(&kernel(&[0xf4]), &manifest()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cloister.rom");
        std::fs::write(&file, &rom).unwrap();
        let launch = Launch::of(&Firmware::parse(&rom).unwrap()).unwrap();
        for (vcpus, cpu) in [(1, CpuType::Milan), (1, CpuType::Genoa), (4, CpuType::Turin)] {
            let judged = Command::new(&judge)
                .args(["--mode", "snp", "--vmm-type", "QEMU", "--guest-features", "0x1"])
                .args(["--vcpus", &vcpus.to_string(), "--vcpu-type", cpu.name(), "--ovmf"])
                .arg(&file)
                .output()
                .unwrap();
            let digest = String::from_utf8_lossy(&judged.stdout);
            assert_eq!(hex::encode(launch.digest(vcpus, cpu)), digest.trim(), "{judged:?}");
        }
    }
}
