//! `digests.json`: what an auditor and a client need to know of an image, beside it.

use crate::container::{Container, ContainerError};
use crate::cpu::CpuType;
use attestation::manifest::Manifest;
use serde::Serialize;
use sha2::{Digest, Sha384};

/// The vCPU counts that digests are published for.
pub const VCPUS: std::ops::RangeInclusive<u32> = 1..=64;

/// Contents of `digests.json`; digests are in lower-case hexadecimal.
#[derive(Debug, Serialize)]
pub struct Digests {
    /// What clients are shown.
    pub image: ImageName,
    /// SHA-384 of the measured manifest.
    pub manifest_digest: String,
    /// Root of the weights' tree hash.
    pub weights_root: String,
    /// Name of the weights' file, without its folder.
    pub weights_file: String,
    /// SHA-384 of the ROM file.
    pub rom_sha384: String,
    /// SHA-384 of the IGVM file.
    pub igvm_sha384: String,
    /// What the AMD-SP reports as MEASUREMENT, for each machine.
    pub launch_digests: Vec<LaunchDigestOf>,
}

/// Name and version of an image.
#[derive(Debug, Serialize)]
pub struct ImageName {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The launch digest on one machine.
#[derive(Debug, Serialize)]
pub struct LaunchDigestOf {
    /// The container that the machine starts: `rom` is for QEMU's `-bios`, `igvm` for its `igvm-cfg`.
    pub container: &'static str,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// CPU type, by QEMU's name. Its versions (`EPYC-Genoa-v1`) differ in nothing that is measured.
    pub cpu_type: String,
    /// The digest.
    pub digest: String,
}

impl Digests {
    /// Those of an image that was built with `manifest` for a weights' file of this name.
    pub fn of(
        rom: &[u8],
        igvm: &[u8],
        manifest: &Manifest,
        weights_file: &str,
    ) -> Result<Self, ContainerError> {
        let mut launch_digests = Vec::new();
        for file in [rom, igvm] {
            let container = Container::parse(file)?;
            let launch = container.launch()?;
            for cpu in CpuType::ALL {
                let digests = launch.digests(cpu).zip(VCPUS);
                launch_digests.extend(digests.map(|(digest, vcpus)| LaunchDigestOf {
                    container: container.name(),
                    vcpus,
                    cpu_type: cpu.to_string(),
                    digest: hex::encode(digest),
                }));
            }
        }
        Ok(Self {
            image: ImageName { name: manifest.image.clone(), version: manifest.version.clone() },
            manifest_digest: hex::encode(manifest.digest()),
            weights_root: hex::encode(manifest.model.weights_root),
            weights_file: weights_file.into(),
            rom_sha384: hex::encode(Sha384::digest(rom)),
            igvm_sha384: hex::encode(Sha384::digest(igvm)),
            launch_digests,
        })
    }

    /// As JSON, one value a line.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }
}
