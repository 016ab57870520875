//! The launch bundle: all that the host's launcher tells the model, in one blob that QEMU passes as `-initrd`.
//!
//! It stands for what QEMU, KVM and the AMD-SP know on a real host. The encoding is [`attestation::canonical`]'s, so
//! a bundle of another version of the model is refused and not misread.

use crate::cpu_type::CpuSignature;
use alloc::vec::Vec;
use attestation::canonical::{NotCanonical, Reader, Writer};
use core::fmt;

const LABEL: &str = "cloister snp-model bundle v2";

/// Largest image: what QEMU takes as firmware by default (`max-fw-size` of the PC machines), and room for the parts of an
/// IGVM file that a ROM leaves out because they are zero.
pub const MAX_IMAGE_BYTES: usize = 64 << 20;
/// Most vCPUs that the model runs.
pub const MAX_VCPUS: u32 = 64;
/// Largest guest: 1 TiB.
pub const MAX_MEMORY_MIB: u32 = 1 << 20;
/// Largest certificate table: more than this no verifier takes. The guest says how many pages it has.
pub const MAX_CERTIFICATE_BYTES: usize = attestation::evidence::MAX_CERTIFICATES;
/// Longest name of a hostile scenario.
pub const MAX_SCENARIO_BYTES: usize = 64;

/// The TCB versions that reports carry, each a `TCB_VERSION` (SNP ABI §2.2) as a little-endian number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcbVersions {
    /// `CURRENT_TCB`: what runs now.
    pub current: u64,
    /// `REPORTED_TCB`: what the VCEK is derived from.
    pub reported: u64,
    /// `COMMITTED_TCB`: what cannot be rolled back.
    pub committed: u64,
    /// `LAUNCH_TCB`: what ran when the guest was launched.
    pub launch: u64,
}

/// The private scalar of a development VCEK, big-endian. It cannot be printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VcekScalar(pub [u8; 48]);

impl fmt::Debug for VcekScalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VcekScalar(..)")
    }
}

/// The launch bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bundle<'a> {
    /// The image: a ROM, which ends at guest-physical 4 GiB, or an IGVM file.
    pub image: &'a [u8],
    /// RAM in MiB, from guest-physical 0 up.
    pub memory_mib: u32,
    /// vCPUs; each has a measured VMSA.
    pub vcpus: u32,
    /// The CPU type.
    pub signature: CpuSignature,
    /// The guest policy (SNP ABI §4.3).
    pub policy: u64,
    /// `CHIP_ID`.
    pub chip_id: [u8; 64],
    /// The TCB versions.
    pub tcb: TcbVersions,
    /// The key that signs reports.
    pub vcek: VcekScalar,
    /// The certificate table that extended guest requests return (GHCB §4.1.8); may be empty.
    pub certificates: &'a [u8],
    /// The lie that the model plays as a hostile host, or empty for an honest one.
    pub scenario: &'a str,
    /// Whether the model also fails on what real hardware may forgive.
    pub strict: bool,
}

/// Why a bundle is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// Not a bundle, of another version, cut short, or followed by other bytes.
    Encoding,
    /// The image is empty or larger than [`MAX_IMAGE_BYTES`].
    Image {
        /// Its length.
        bytes: usize,
    },
    /// RAM is zero or above [`MAX_MEMORY_MIB`].
    Memory {
        /// What was asked for.
        mib: u32,
    },
    /// No vCPU, or more than [`MAX_VCPUS`].
    Vcpus {
        /// What was asked for.
        count: u32,
    },
    /// The certificate table is larger than [`MAX_CERTIFICATE_BYTES`].
    Certificates {
        /// Its length.
        bytes: usize,
    },
    /// The scenario's name is longer than [`MAX_SCENARIO_BYTES`] or has other characters than `a`-`z`, `0`-`9` and `-`.
    Scenario,
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoding => f.write_str(
                "the launch bundle is not one, is cut short, or was made by another version; start the model with the launcher \
                 of the same build",
            ),
            Self::Image { bytes } => {
                write!(f, "the image has {bytes} bytes; it must have some, and at most {MAX_IMAGE_BYTES}: build it with cloister-image")
            }
            Self::Memory { mib } => {
                write!(f, "{mib} MiB of guest RAM is not between 1 and {MAX_MEMORY_MIB}; use the manifest's memory_mib")
            }
            Self::Vcpus { count } => write!(f, "{count} vCPUs is not between 1 and {MAX_VCPUS}; choose another count"),
            Self::Certificates { bytes } => write!(
                f,
                "the certificate table has {bytes} bytes, but a host passes at most {MAX_CERTIFICATE_BYTES}; leave \
                 certificates out"
            ),
            Self::Scenario => write!(
                f,
                "the scenario's name is not one: at most {MAX_SCENARIO_BYTES} of a-z, 0-9 and -"
            ),
        }
    }
}

impl core::error::Error for BundleError {}

impl From<NotCanonical> for BundleError {
    fn from(_: NotCanonical) -> Self {
        Self::Encoding
    }
}

impl<'a> Bundle<'a> {
    /// Encodes the bundle. What [`Bundle::parse`] would refuse is refused here already.
    pub fn encode(&self) -> Result<Vec<u8>, BundleError> {
        self.check()?;
        let mut w = Writer::new(LABEL);
        w.bytes(self.image)
            .number(self.memory_mib.into())
            .number(self.vcpus.into())
            .number(self.signature.0.into());
        w.number(self.policy).bytes(&self.chip_id);
        for version in [self.tcb.current, self.tcb.reported, self.tcb.committed, self.tcb.launch] {
            w.number(version);
        }
        w.bytes(&self.vcek.0)
            .bytes(self.certificates)
            .bytes(self.scenario.as_bytes())
            .number(self.strict.into());
        Ok(w.finish())
    }

    /// Reads a bundle; the image and the other long fields stay where they are.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BundleError> {
        let mut r = Reader::new(bytes, LABEL)?;
        let bundle = Self {
            image: r.bytes()?,
            memory_mib: r.number()?,
            vcpus: r.number()?,
            signature: CpuSignature(r.number()?),
            policy: r.number()?,
            chip_id: r.array()?,
            tcb: TcbVersions {
                current: r.number()?,
                reported: r.number()?,
                committed: r.number()?,
                launch: r.number()?,
            },
            vcek: VcekScalar(r.array()?),
            certificates: r.bytes()?,
            scenario: r.text()?,
            strict: match r.number::<u8>()? {
                0 => false,
                1 => true,
                _ => return Err(BundleError::Encoding),
            },
        };
        r.finish()?;
        bundle.check()?;
        Ok(bundle)
    }

    fn check(&self) -> Result<(), BundleError> {
        let bytes = self.image.len();
        if bytes == 0 || bytes > MAX_IMAGE_BYTES {
            return Err(BundleError::Image { bytes });
        }
        if self.memory_mib == 0 || self.memory_mib > MAX_MEMORY_MIB {
            return Err(BundleError::Memory { mib: self.memory_mib });
        }
        if self.vcpus == 0 || self.vcpus > MAX_VCPUS {
            return Err(BundleError::Vcpus { count: self.vcpus });
        }
        if self.certificates.len() > MAX_CERTIFICATE_BYTES {
            return Err(BundleError::Certificates { bytes: self.certificates.len() });
        }
        let named = self.scenario.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !named || self.scenario.len() > MAX_SCENARIO_BYTES {
            return Err(BundleError::Scenario);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE_BYTES;
    use alloc::{format, vec};

    fn sample(image: &[u8]) -> Bundle<'_> {
        Bundle {
            image,
            memory_mib: 1024,
            vcpus: 2,
            signature: CpuSignature::new(25, 17, 0),
            policy: 0x17_0000,
            chip_id: [0xC1; 64],
            tcb: TcbVersions { current: 4, reported: 1, committed: 2, launch: 3 },
            vcek: VcekScalar([0x5E; 48]),
            certificates: b"table",
            scenario: "a6-remap",
            strict: true,
        }
    }

    #[test]
    fn a_bundle_comes_back_and_its_image_is_not_copied() {
        let rom = vec![0xF4; 3 * PAGE_BYTES];
        let encoded = sample(&rom).encode().unwrap();
        let parsed = Bundle::parse(&encoded).unwrap();
        assert_eq!(parsed, sample(&rom));
        assert!(encoded.as_ptr_range().contains(&parsed.image.as_ptr()));
    }

    #[test]
    fn every_cut_and_every_addition_is_refused() {
        let rom = vec![0; PAGE_BYTES];
        let mut encoded = sample(&rom).encode().unwrap();
        for end in (0..encoded.len()).step_by(7) {
            assert_eq!(Bundle::parse(&encoded[..end]), Err(BundleError::Encoding), "{end}");
        }
        encoded.push(0);
        assert_eq!(Bundle::parse(&encoded), Err(BundleError::Encoding));
    }

    #[test]
    fn bounds_hold_on_both_sides() {
        let rom = vec![0; PAGE_BYTES];
        let good = sample(&rom);
        let large = vec![0; MAX_CERTIFICATE_BYTES + 1];
        let huge = vec![0; MAX_IMAGE_BYTES + 1];
        for (bad, why) in [
            (Bundle { image: &[], ..good }, BundleError::Image { bytes: 0 }),
            (Bundle { image: &huge, ..good }, BundleError::Image { bytes: MAX_IMAGE_BYTES + 1 }),
            (Bundle { memory_mib: 0, ..good }, BundleError::Memory { mib: 0 }),
            (Bundle { vcpus: 0, ..good }, BundleError::Vcpus { count: 0 }),
            (Bundle { vcpus: 65, ..good }, BundleError::Vcpus { count: 65 }),
            (Bundle { certificates: &large, ..good }, BundleError::Certificates { bytes: large.len() }),
            (Bundle { scenario: "A6", ..good }, BundleError::Scenario),
        ] {
            assert_eq!(bad.encode(), Err(why));
        }
        // A count that the launcher could never have encoded is refused by the model, too.
        let encoded = good.encode().unwrap();
        let label_and_image = 4 + LABEL.len() + 4 + PAGE_BYTES;
        let mut forged = encoded.clone();
        forged[label_and_image + 4] = 0;
        forged[label_and_image + 5] = 0;
        assert_eq!(Bundle::parse(&forged), Err(BundleError::Memory { mib: 0 }));
    }

    #[test]
    fn the_key_is_not_printed() {
        let rom = vec![0; PAGE_BYTES];
        assert!(!format!("{:?}", sample(&rom)).contains("94"));
        assert!(format!("{:?}", sample(&rom).vcek).ends_with("(..)"));
    }
}
