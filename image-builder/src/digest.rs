//! The launch digest: what the AMD-SP will report for a ROM that QEMU and KVM start.
//!
//! Sources: SEV-SNP ABI specification (AMD 56860) §8.17.2 for how a page is added, QEMU `target/i386/sev.c` for the
//! order of pages, Linux `arch/x86/kvm/svm/` (`init_vmcb`, `sev_es_sync_vmsa`) for a vCPU's state at reset, APM volume 2
//! table B-4 for its layout.

use crate::cpu::CpuType;
use crate::firmware::{Firmware, FirmwareError, SectionKind};
use crate::layout::PAGE;
use sha2::{Digest, Sha384};

/// A launch digest, as a report's MEASUREMENT field holds it.
pub type LaunchDigest = [u8; 48];

/// KVM and the AMD-SP know the page of a VMSA by this address.
const VMSA_ADDRESS: u64 = 0xffff_ffff_f000;
/// Where the first vCPU of an x86 machine starts.
const RESET_VECTOR: u32 = 0xffff_fff0;
/// SEV_FEATURES: SNP active, and nothing else.
const SEV_FEATURES: u64 = 1;

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
    ap_start: u32,
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
        Ok(Self { chain, ap_start: firmware.ap_start()? })
    }

    /// The digest with so many vCPUs (at least one) of this type.
    pub fn digest(&self, vcpus: u32, cpu: CpuType) -> LaunchDigest {
        let mut chain = self.chain.clone();
        for vcpu in 0..vcpus.max(1) {
            let start = if vcpu == 0 { RESET_VECTOR } else { self.ap_start };
            chain.page(PageType::Vmsa, Some(&vmsa(start, cpu)), VMSA_ADDRESS);
        }
        chain.0
    }
}

/// A vCPU at reset, which is to execute at `start`.
fn vmsa(start: u32, cpu: CpuType) -> [u8; PAGE as usize] {
    let mut page = Vmsa([0; PAGE as usize]);
    for (offset, selector, attributes, base) in [
        (0x00, 0, 0x093, 0),                        // ES
        (0x10, 0xf000, 0x09b, start & 0xffff_0000), // CS
        (0x20, 0, 0x093, 0),                        // SS
        (0x30, 0, 0x093, 0),                        // DS
        (0x40, 0, 0x093, 0),                        // FS
        (0x50, 0, 0x093, 0),                        // GS
        (0x60, 0, 0, 0),                            // GDTR
        (0x70, 0, 0x082, 0),                        // LDTR
        (0x80, 0, 0, 0),                            // IDTR
        (0x90, 0, 0x08b, 0),                        // TR
    ] {
        page.segment(offset, selector, attributes, base);
    }
    page.put(0x0d0, 0x1000); // EFER: SVME, which KVM needs
    page.put(0x148, 0x40); // CR4: MCE
    page.put(0x158, 0x10); // CR0: ET
    page.put(0x160, 0x400); // DR7
    page.put(0x168, 0xffff_0ff0); // DR6
    page.put(0x170, 0x2); // RFLAGS
    page.put(0x178, u64::from(start & 0xffff)); // RIP
    page.put(0x268, 0x0007_0406_0007_0406); // PAT
    page.put(0x310, u64::from(cpu.signature())); // RDX
    page.put(0x3b0, SEV_FEATURES);
    page.put(0x3e8, 0x1); // XCR0: x87
    page.0[0x408..0x40c].copy_from_slice(&0x1f80u32.to_le_bytes()); // MXCSR
    page.0[0x410..0x412].copy_from_slice(&0x037fu16.to_le_bytes()); // x87 control word
    page.0
}

struct Vmsa([u8; PAGE as usize]);

impl Vmsa {
    fn put(&mut self, offset: usize, value: u64) {
        self.0[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn segment(&mut self, offset: usize, selector: u16, attributes: u16, base: u32) {
        let limit = 0xffffu64;
        self.put(offset, limit << 32 | u64::from(attributes) << 16 | u64::from(selector));
        self.put(offset + 8, base.into());
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
