//! The attestation report that the AMD secure processor signs.
//!
//! Layout: AMD 56860 (SEV-SNP Firmware ABI), tables 22 (`ATTESTATION_REPORT`) and 23 (`PLATFORM_INFO`). Versions 2 to 5
//! share one layout; later versions only gave names to bytes that were reserved before. Whatever a version reserves
//! must be zero here, so that nothing is signed that this code does not know the meaning of.

mod policy;
mod product;

pub use policy::{GuestPolicy, PlatformInfo};
pub use product::{Product, Tcb};

use core::fmt;

/// Bytes of a report.
pub const LEN: usize = 0x4A0;
/// Bytes of a report that its signature covers: all before the signature.
pub const SIGNED_LEN: usize = offset::SIGNATURE;
/// `SIGNATURE_ALGO` of ECDSA on P-384 with SHA-384 (AMD 56860, chapter 10), the only one there is.
pub const ECDSA_P384_SHA384: u32 = 1;
/// The versions that are understood.
pub const VERSIONS: core::ops::RangeInclusive<u32> = 2..=5;

/// Where each field starts. Numbers are little-endian.
pub mod offset {
    /// `VERSION`, 4 bytes.
    pub const VERSION: usize = 0x000;
    /// `GUEST_SVN`, 4 bytes.
    pub const GUEST_SVN: usize = 0x004;
    /// `POLICY`, 8 bytes.
    pub const POLICY: usize = 0x008;
    /// `FAMILY_ID`, 16 bytes.
    pub const FAMILY_ID: usize = 0x010;
    /// `IMAGE_ID`, 16 bytes.
    pub const IMAGE_ID: usize = 0x020;
    /// `VMPL`, 4 bytes.
    pub const VMPL: usize = 0x030;
    /// `SIGNATURE_ALGO`, 4 bytes.
    pub const SIGNATURE_ALGO: usize = 0x034;
    /// `CURRENT_TCB`, 8 bytes.
    pub const CURRENT_TCB: usize = 0x038;
    /// `PLATFORM_INFO`, 8 bytes.
    pub const PLATFORM_INFO: usize = 0x040;
    /// `AUTHOR_KEY_EN`, `MASK_CHIP_KEY` and `SIGNING_KEY`, 4 bytes together.
    pub const KEY_INFO: usize = 0x048;
    /// `REPORT_DATA`, 64 bytes.
    pub const REPORT_DATA: usize = 0x050;
    /// `MEASUREMENT`, the launch digest, 48 bytes.
    pub const MEASUREMENT: usize = 0x090;
    /// `HOST_DATA`, 32 bytes.
    pub const HOST_DATA: usize = 0x0C0;
    /// `ID_KEY_DIGEST`, 48 bytes.
    pub const ID_KEY_DIGEST: usize = 0x0E0;
    /// `AUTHOR_KEY_DIGEST`, 48 bytes.
    pub const AUTHOR_KEY_DIGEST: usize = 0x110;
    /// `REPORT_ID`, 32 bytes.
    pub const REPORT_ID: usize = 0x140;
    /// `REPORT_ID_MA`, 32 bytes; all ones without a migration agent.
    pub const REPORT_ID_MA: usize = 0x160;
    /// `REPORTED_TCB`, 8 bytes.
    pub const REPORTED_TCB: usize = 0x180;
    /// `CPUID_FAM_ID`, 1 byte, from version 3.
    pub const CPUID_FAMILY: usize = 0x188;
    /// `CPUID_MOD_ID`, 1 byte, from version 3.
    pub const CPUID_MODEL: usize = 0x189;
    /// `CPUID_STEP`, 1 byte, from version 3.
    pub const CPUID_STEPPING: usize = 0x18A;
    /// `CHIP_ID`, 64 bytes.
    pub const CHIP_ID: usize = 0x1A0;
    /// `COMMITTED_TCB`, 8 bytes.
    pub const COMMITTED_TCB: usize = 0x1E0;
    /// `CURRENT_BUILD`, `CURRENT_MINOR`, `CURRENT_MAJOR`, 1 byte each.
    pub const CURRENT_VERSION: usize = 0x1E8;
    /// `COMMITTED_BUILD`, `COMMITTED_MINOR`, `COMMITTED_MAJOR`, 1 byte each.
    pub const COMMITTED_VERSION: usize = 0x1EC;
    /// `LAUNCH_TCB`, 8 bytes.
    pub const LAUNCH_TCB: usize = 0x1F0;
    /// `LAUNCH_MIT_VECTOR`, 8 bytes, from version 5.
    pub const LAUNCH_MIT_VECTOR: usize = 0x1F8;
    /// `CURRENT_MIT_VECTOR`, 8 bytes, from version 5.
    pub const CURRENT_MIT_VECTOR: usize = 0x200;
    /// `SIGNATURE`, 512 bytes: R and S in 72 bytes each, little-endian, the rest zero.
    pub const SIGNATURE: usize = 0x2A0;
}

/// Bytes of each of R and S in the signature field.
const SCALAR_FIELD: usize = 72;
/// Bytes of a scalar of P-384.
const SCALAR: usize = 48;

/// The key that signed a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// Versioned chip endorsement key, unique to the chip.
    Vcek,
    /// Versioned loaded endorsement key, given by AMD to a cloud provider.
    Vlek,
}

/// `AUTHOR_KEY_EN`, `MASK_CHIP_KEY` and `SIGNING_KEY` packed as a report holds them, for a signer.
pub const fn key_info(author_key: bool, signing_key: SigningKey) -> u32 {
    let signing_key = match signing_key {
        SigningKey::Vcek => 0,
        SigningKey::Vlek => 1,
    };
    author_key as u32 | signing_key << 2
}

/// Firmware version, as (major, minor, build).
pub type FirmwareVersion = (u8, u8, u8);

/// Why bytes are not a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportError {
    /// Not [`LEN`] bytes.
    Length(usize),
    /// A version outside [`VERSIONS`]: its fields may mean something else.
    Version(u32),
    /// A signature algorithm other than [`ECDSA_P384_SHA384`].
    SignatureAlgorithm(u32),
    /// `SIGNING_KEY` is a reserved value or `NONE`, or the platform masks its chip key: nothing was signed.
    NotSigned,
    /// A byte that the report's version reserves is not zero, at this offset.
    Reserved(usize),
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(n) => {
                write!(f, "the report has {n} bytes instead of {LEN}; it was cut or is something else")
            }
            Self::Version(v) => write!(
                f,
                "the report has version {v}, but only 2 to 5 are understood; use a newer release of this program"
            ),
            Self::SignatureAlgorithm(a) => {
                write!(f, "the report names signature algorithm {a}, but only 1 (ECDSA P-384) exists")
            }
            Self::NotSigned => f.write_str(
                "the platform did not sign the report: its firmware hides the chip key; the operator must turn \
                 MASK_CHIP_KEY off",
            ),
            Self::Reserved(offset) => write!(
                f,
                "byte {offset:#x} of the report is reserved but not zero, so its meaning is unknown; use a newer \
                 release of this program"
            ),
        }
    }
}

impl core::error::Error for ReportError {}

/// A report whose form was checked. Nothing in it is true before its signature is verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    raw: [u8; LEN],
    signing_key: SigningKey,
}

impl Report {
    /// Checks the form: length, known version and algorithm, reserved bytes zero.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let raw: [u8; LEN] = bytes.try_into().map_err(|_| ReportError::Length(bytes.len()))?;
        let mut report = Self { raw, signing_key: SigningKey::Vcek };

        let version = report.version();
        if !VERSIONS.contains(&version) {
            return Err(ReportError::Version(version));
        }
        let algorithm = u32::from_le_bytes(report.array(offset::SIGNATURE_ALGO));
        if algorithm != ECDSA_P384_SHA384 {
            return Err(ReportError::SignatureAlgorithm(algorithm));
        }
        report.signing_key = match u32::from_le_bytes(report.array(offset::KEY_INFO)) & !1 {
            0 => SigningKey::Vcek,
            0b100 => SigningKey::Vlek,
            key if key >> 5 != 0 => return Err(ReportError::Reserved(offset::KEY_INFO)),
            _ => return Err(ReportError::NotSigned),
        };
        report.check_reserved()?;
        Ok(report)
    }

    fn check_reserved(&self) -> Result<(), ReportError> {
        let version = self.version();
        let cpuid = if version < 3 { offset::CPUID_FAMILY } else { offset::CPUID_STEPPING + 1 };
        let mitigations =
            if version < 5 { offset::LAUNCH_MIT_VECTOR } else { offset::CURRENT_MIT_VECTOR + 8 };
        let (r, s) = (offset::SIGNATURE, offset::SIGNATURE + SCALAR_FIELD);
        let reserved = [
            offset::KEY_INFO + 4..offset::REPORT_DATA,
            cpuid..offset::CHIP_ID,
            offset::CURRENT_VERSION + 3..offset::COMMITTED_VERSION,
            offset::COMMITTED_VERSION + 3..offset::LAUNCH_TCB,
            mitigations..offset::SIGNATURE,
            r + SCALAR..s,
            s + SCALAR..LEN,
        ];
        match reserved.into_iter().flatten().find(|&at| self.raw[at] != 0) {
            Some(at) => Err(ReportError::Reserved(at)),
            None => Ok(()),
        }
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        core::array::from_fn(|i| self.raw[at + i])
    }

    /// The report as it was received.
    pub const fn as_bytes(&self) -> &[u8; LEN] {
        &self.raw
    }

    /// The bytes that the signature covers.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.raw[..SIGNED_LEN]
    }

    /// R and S of the signature, big-endian, one after the other (IEEE P1363).
    pub fn signature(&self) -> [u8; 2 * SCALAR] {
        let mut signature = [0; 2 * SCALAR];
        for (scalar, at) in
            signature.chunks_exact_mut(SCALAR).zip([offset::SIGNATURE, offset::SIGNATURE + SCALAR_FIELD])
        {
            scalar.copy_from_slice(&self.raw[at..at + SCALAR]);
            scalar.reverse();
        }
        signature
    }

    /// The report's version, one of [`VERSIONS`].
    pub fn version(&self) -> u32 {
        u32::from_le_bytes(self.array(offset::VERSION))
    }

    /// Security version of the guest, from its ID block.
    pub fn guest_svn(&self) -> u32 {
        u32::from_le_bytes(self.array(offset::GUEST_SVN))
    }

    /// The guest policy.
    pub fn policy(&self) -> GuestPolicy {
        GuestPolicy(u64::from_le_bytes(self.array(offset::POLICY)))
    }

    /// Family id, from the ID block.
    pub fn family_id(&self) -> [u8; 16] {
        self.array(offset::FAMILY_ID)
    }

    /// Image id, from the ID block.
    pub fn image_id(&self) -> [u8; 16] {
        self.array(offset::IMAGE_ID)
    }

    /// Privilege level of the code that asked; `0xFFFF_FFFF` if the host asked.
    pub fn vmpl(&self) -> u32 {
        u32::from_le_bytes(self.array(offset::VMPL))
    }

    /// What the platform is and has done.
    pub fn platform_info(&self) -> PlatformInfo {
        PlatformInfo(u64::from_le_bytes(self.array(offset::PLATFORM_INFO)))
    }

    /// True if the ID key was certified by an author key.
    pub fn author_key_enabled(&self) -> bool {
        self.raw[offset::KEY_INFO] & 1 == 1
    }

    /// The key that signed.
    pub const fn signing_key(&self) -> SigningKey {
        self.signing_key
    }

    /// What the guest asked to be signed.
    pub fn report_data(&self) -> [u8; 64] {
        self.array(offset::REPORT_DATA)
    }

    /// The launch digest.
    pub fn measurement(&self) -> [u8; 48] {
        self.array(offset::MEASUREMENT)
    }

    /// What the host gave at launch.
    pub fn host_data(&self) -> [u8; 32] {
        self.array(offset::HOST_DATA)
    }

    /// SHA-384 of the key that signed the ID block; zero without one.
    pub fn id_key_digest(&self) -> [u8; 48] {
        self.array(offset::ID_KEY_DIGEST)
    }

    /// SHA-384 of the key that certified the ID key; zero without one.
    pub fn author_key_digest(&self) -> [u8; 48] {
        self.array(offset::AUTHOR_KEY_DIGEST)
    }

    /// Random identity of this guest instance.
    pub fn report_id(&self) -> [u8; 32] {
        self.array(offset::REPORT_ID)
    }

    /// Report id of the migration agent; all ones without one.
    pub fn report_id_ma(&self) -> [u8; 32] {
        self.array(offset::REPORT_ID_MA)
    }

    /// CPUID family, model and stepping, from version 3.
    pub fn cpuid(&self) -> Option<(u8, u8, u8)> {
        let [family, model, stepping] = self.array(offset::CPUID_FAMILY);
        (self.version() >= 3).then_some((family, model, stepping))
    }

    /// The chip's id; zero if the platform masks it.
    pub fn chip_id(&self) -> [u8; 64] {
        self.array(offset::CHIP_ID)
    }

    /// `CURRENT_TCB`: what runs now, as raw bytes for [`Tcb::from_bytes`].
    pub fn current_tcb(&self) -> [u8; 8] {
        self.array(offset::CURRENT_TCB)
    }

    /// `REPORTED_TCB`: the version that the signing key is derived from.
    pub fn reported_tcb(&self) -> [u8; 8] {
        self.array(offset::REPORTED_TCB)
    }

    /// `COMMITTED_TCB`: the platform cannot be rolled back below it.
    pub fn committed_tcb(&self) -> [u8; 8] {
        self.array(offset::COMMITTED_TCB)
    }

    /// `LAUNCH_TCB`: what ran when the guest was launched.
    pub fn launch_tcb(&self) -> [u8; 8] {
        self.array(offset::LAUNCH_TCB)
    }

    /// Version of the firmware that runs now.
    pub fn current_version(&self) -> FirmwareVersion {
        let [build, minor, major] = self.array(offset::CURRENT_VERSION);
        (major, minor, build)
    }

    /// Version of the firmware that is committed.
    pub fn committed_version(&self) -> FirmwareVersion {
        let [build, minor, major] = self.array(offset::COMMITTED_VERSION);
        (major, minor, build)
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("version", &self.version())
            .field("policy", &self.policy())
            .field("vmpl", &self.vmpl())
            .field("platform_info", &self.platform_info())
            .field("signing_key", &self.signing_key)
            .finish_non_exhaustive()
    }
}

/// The 512 bytes of the signature field for R and S, big-endian, one after the other (IEEE P1363).
pub fn signature_field(signature: &[u8; 2 * SCALAR]) -> [u8; LEN - SIGNED_LEN] {
    let mut field = [0; LEN - SIGNED_LEN];
    for (scalar, place) in signature.chunks_exact(SCALAR).zip(field.chunks_exact_mut(SCALAR_FIELD)) {
        place[..SCALAR].copy_from_slice(scalar);
        place[..SCALAR].reverse();
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TURIN: &[u8] = include_bytes!("../tests/data/turin-v5.report");
    const GENOA: &[u8] = include_bytes!("../tests/data/genoa-v3.report");
    const MILAN: &[u8] = include_bytes!("../tests/data/milan-v2-other.report");

    #[test]
    fn real_reports_read_as_their_platforms_are() {
        let turin = Report::parse(TURIN).unwrap();
        assert_eq!((turin.version(), turin.vmpl(), turin.cpuid()), (5, 0, Some((0x1A, 0x02, 0x01))));
        assert_eq!(turin.current_version(), (1, 55, 65));
        assert_eq!(turin.policy().abi(), (0, 31));
        assert!(turin.policy().has(GuestPolicy::SMT | GuestPolicy::RESERVED_ONE));
        assert!(turin.platform_info().has(PlatformInfo::ALIAS_CHECK_COMPLETE));
        let tcb = Tcb { fmc: 1, boot_loader: 1, tee: 1, snp: 4, microcode: 0x51 };
        assert_eq!(Tcb::from_bytes(Product::Turin, turin.reported_tcb()), Some(tcb));
        assert_eq!(tcb.to_bytes(Product::Turin), turin.reported_tcb());

        let genoa = Report::parse(GENOA).unwrap();
        assert_eq!((genoa.version(), genoa.cpuid()), (3, Some((0x19, 0x11, 0x01))));
        let tcb = Tcb { fmc: 0, boot_loader: 10, tee: 0, snp: 23, microcode: 84 };
        assert_eq!(Tcb::from_bytes(Product::Genoa, genoa.reported_tcb()), Some(tcb));
        assert_eq!(tcb.to_bytes(Product::Genoa), genoa.reported_tcb());
        assert_eq!(Tcb::from_bytes(Product::Genoa, turin.reported_tcb()), None);

        let milan = Report::parse(MILAN).unwrap();
        assert_eq!((milan.version(), milan.cpuid()), (2, None));
        assert_eq!(milan.signing_key(), SigningKey::Vcek);
    }

    #[test]
    fn the_signature_field_comes_back() {
        for raw in [TURIN, GENOA, MILAN] {
            let report = Report::parse(raw).unwrap();
            assert_eq!(report.as_bytes(), raw);
            assert_eq!(signature_field(&report.signature()), raw[SIGNED_LEN..]);
        }
    }

    #[test]
    fn b3_the_projects_guest_policy_is_the_one_that_is_required() {
        // Bits 16 to 25 of AMD 56860, table 9, written out, and ABI 1.55.
        assert_eq!(GuestPolicy::CLOISTER.0, 0b01_1101_0010 << 16 | 0x0137);
        assert_eq!(GuestPolicy::CLOISTER.abi(), (1, 55));
    }

    #[test]
    fn b2_a_tcb_is_high_enough_only_if_every_component_is() {
        let minimum = Tcb { fmc: 1, boot_loader: 2, tee: 3, snp: 4, microcode: 5 };
        assert!(minimum.at_least(&minimum));
        let high = Tcb { fmc: 255, boot_loader: 255, tee: 255, snp: 255, microcode: 255 };
        assert!(high.at_least(&minimum));
        for low in [
            Tcb { fmc: 0, ..high },
            Tcb { boot_loader: 1, ..high },
            Tcb { tee: 2, ..high },
            Tcb { snp: 3, ..high },
            Tcb { microcode: 4, ..high },
        ] {
            assert!(!low.at_least(&minimum), "{low}");
        }
    }

    proptest! {
        #[test]
        fn b12_no_bytes_make_reading_panic(mut bytes in proptest::collection::vec(any::<u8>(), LEN)) {
            let _ = Report::parse(&bytes);
            bytes[..4].copy_from_slice(&5u32.to_le_bytes());
            bytes[offset::SIGNATURE_ALGO..][..4].copy_from_slice(&1u32.to_le_bytes());
            bytes[offset::KEY_INFO..][..8].fill(0);
            prop_assert!(matches!(Report::parse(&bytes), Err(ReportError::Reserved(_))));
        }
    }
}
