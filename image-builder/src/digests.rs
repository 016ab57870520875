//! `digests.json`: what an auditor and a client need to know of an image, beside it.

use crate::cpu::CpuType;
use crate::digest::Launch;
use crate::firmware::{Firmware, FirmwareError};
use attestation::manifest::Manifest;
use serde::Serialize;
use sha2::{Digest, Sha384};

/// The vCPU counts that digests are published for.
pub const VCPUS: [u32; 4] = [1, 2, 4, 8];

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
    /// The container that the machine starts; `rom` is for QEMU's `-bios`.
    pub container: &'static str,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// CPU type, by QEMU's name.
    pub cpu_type: String,
    /// The digest.
    pub digest: String,
}

impl Digests {
    /// Those of a ROM that was built with `manifest` for a file of this name.
    pub fn of(rom: &[u8], manifest: &Manifest, weights_file: &str) -> Result<Self, FirmwareError> {
        let launch = Launch::of(&Firmware::parse(rom)?)?;
        let digest_of = |vcpus, cpu: CpuType, name: String| LaunchDigestOf {
            container: "rom",
            vcpus,
            cpu_type: name,
            digest: hex::encode(launch.digest(vcpus, cpu)),
        };
        let machines = CpuType::ALL.into_iter().flat_map(|cpu| VCPUS.map(|vcpus| (vcpus, cpu)));
        Ok(Self {
            image: ImageName { name: manifest.image.clone(), version: manifest.version.clone() },
            manifest_digest: hex::encode(manifest.digest()),
            weights_root: hex::encode(manifest.model.weights_root),
            weights_file: weights_file.into(),
            rom_sha384: hex::encode(Sha384::digest(rom)),
            launch_digests: machines
                .flat_map(|(vcpus, cpu)| {
                    [cpu.to_string(), format!("{cpu}-v1")].map(|name| digest_of(vcpus, cpu, name))
                })
                .collect(),
        })
    }

    /// As JSON, one value a line.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }
}
