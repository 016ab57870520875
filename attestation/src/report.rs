//! The attestation report that the AMD secure processor signs.
//!
//! Layout: AMD 56860 (SEV-SNP Firmware ABI), tables 22 (`ATTESTATION_REPORT`) and 23 (`PLATFORM_INFO`). Versions 2 to 5
//! share one layout; later versions only gave names to bytes that were reserved before. Whatever a version reserves
//! must be zero here, so that nothing is signed that this code does not know the meaning of.

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

/// A product line of AMD that has SEV-SNP and a root key that Cloister knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Product {
    /// Zen 3, EPYC 7003.
    Milan,
    /// Zen 4, EPYC 9004, 97x4 and 8004 (Genoa, Bergamo, Siena).
    Genoa,
    /// Zen 5, EPYC 9005.
    Turin,
}

impl Product {
    /// Every product, oldest first.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The product with a CPUID family (base and extended added up) and model (base and extended combined).
    pub const fn from_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0F) => Some(Self::Milan),
            (0x19, 0x10..=0x1F | 0xA0..=0xAF) => Some(Self::Genoa),
            (0x1A, 0x00..=0x1F) => Some(Self::Turin),
            _ => None,
        }
    }

    /// AMD's name, as in certificates and in the addresses of its key service.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// Bytes of `CHIP_ID` that identify the chip; the rest are zero (AMD 57230, VCEK hardware id).
    pub const fn hardware_id_len(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `TCB_VERSION` (AMD 56860, table 3): security version numbers of a platform's components.
///
/// There is no order between two of them; [`Tcb::at_least`] compares each component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tcb {
    /// Firmware of the microcontroller that starts first; Turin only, else zero.
    pub fmc: u8,
    /// Boot loader of the secure processor.
    pub boot_loader: u8,
    /// Operating system of the secure processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Lowest microcode patch level of all cores.
    pub microcode: u8,
}

impl Tcb {
    /// Reads the 8 bytes of a report; `None` if bytes that the product reserves are not zero.
    pub const fn from_bytes(product: Product, bytes: [u8; 8]) -> Option<Self> {
        match (product, bytes) {
            (Product::Milan | Product::Genoa, [boot_loader, tee, 0, 0, 0, 0, snp, microcode]) => {
                Some(Self { fmc: 0, boot_loader, tee, snp, microcode })
            }
            (Product::Turin, [fmc, boot_loader, tee, snp, 0, 0, 0, microcode]) => {
                Some(Self { fmc, boot_loader, tee, snp, microcode })
            }
            _ => None,
        }
    }

    /// The 8 bytes of a report. `fmc` has no place, and is left out, before Turin.
    pub const fn to_bytes(self, product: Product) -> [u8; 8] {
        let Self { fmc, boot_loader, tee, snp, microcode } = self;
        match product {
            Product::Milan | Product::Genoa => [boot_loader, tee, 0, 0, 0, 0, snp, microcode],
            Product::Turin => [fmc, boot_loader, tee, snp, 0, 0, 0, microcode],
        }
    }

    /// True if no component is below its minimum.
    pub const fn at_least(&self, minimum: &Self) -> bool {
        self.fmc >= minimum.fmc
            && self.boot_loader >= minimum.boot_loader
            && self.tee >= minimum.tee
            && self.snp >= minimum.snp
            && self.microcode >= minimum.microcode
    }
}

impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fmc, boot_loader, tee, snp, microcode } = self;
        write!(f, "fmc {fmc}, boot loader {boot_loader}, tee {tee}, snp {snp}, microcode {microcode}")
    }
}

/// The guest policy (AMD 56860, table 9): what the firmware lets the host do with the guest, fixed at launch.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    /// The host may run other threads on the sibling of the guest's core.
    pub const SMT: u64 = 1 << 16;
    /// Reserved, must be one.
    pub const RESERVED_ONE: u64 = 1 << 17;
    /// A migration agent may be associated with the guest.
    pub const MIGRATE_MA: u64 = 1 << 18;
    /// The host may decrypt the guest's memory.
    pub const DEBUG: u64 = 1 << 19;
    /// The guest stays on one socket.
    pub const SINGLE_SOCKET: u64 = 1 << 20;
    /// CXL devices or memory may be populated.
    pub const CXL_ALLOW: u64 = 1 << 21;
    /// Memory must be encrypted with AES-256-XTS.
    pub const MEM_AES_256_XTS: u64 = 1 << 22;
    /// Running average power limit must be off: it is a power side channel.
    pub const RAPL_DIS: u64 = 1 << 23;
    /// The host must not be able to read ciphertext.
    pub const CIPHERTEXT_HIDING: u64 = 1 << 24;
    /// The host may not move or swap the guest's pages.
    pub const PAGE_SWAP_DISABLE: u64 = 1 << 25;
    /// Every bit that has a meaning here.
    pub const KNOWN: u64 = (1 << 26) - 1;

    /// The policy that every Cloister guest is launched with (REQUIREMENTS B3). The ABI minimum is 1.55, the first
    /// whose firmware knows ciphertext hiding and checks for aliased memory.
    pub const CLOISTER: Self = Self(
        0x0137
            | Self::RESERVED_ONE
            | Self::SINGLE_SOCKET
            | Self::MEM_AES_256_XTS
            | Self::RAPL_DIS
            | Self::CIPHERTEXT_HIDING,
    );

    /// True if every bit of `bits` is set.
    pub const fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }

    /// The lowest firmware ABI that may run the guest, as (major, minor).
    pub const fn abi(self) -> (u8, u8) {
        let [minor, major, ..] = self.0.to_le_bytes();
        (major, minor)
    }
}

impl fmt::Debug for GuestPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestPolicy({:#x})", self.0)
    }
}

/// What the platform is and has done (AMD 56860, table 23).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlatformInfo(pub u64);

impl PlatformInfo {
    /// SMT is on.
    pub const SMT_EN: u64 = 1 << 0;
    /// Transparent memory encryption is on.
    pub const TSME_EN: u64 = 1 << 1;
    /// Memory has error correction.
    pub const ECC_EN: u64 = 1 << 2;
    /// Running average power limit is off.
    pub const RAPL_DIS: u64 = 1 << 3;
    /// Ciphertext hiding is on.
    pub const CIPHERTEXT_HIDING_DRAM_EN: u64 = 1 << 4;
    /// Memory was checked for aliases since reset and none were found (BadRAM).
    pub const ALIAS_CHECK_COMPLETE: u64 = 1 << 5;
    /// Trusted I/O is on.
    pub const TIO_EN: u64 = 1 << 7;

    /// What a platform reports on which a guest with [`GuestPolicy::CLOISTER`] runs, and aliases were checked for.
    pub const CLOISTER: Self =
        Self(Self::ECC_EN | Self::RAPL_DIS | Self::CIPHERTEXT_HIDING_DRAM_EN | Self::ALIAS_CHECK_COMPLETE);

    /// True if every bit of `bits` is set.
    pub const fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }
}

impl fmt::Debug for PlatformInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlatformInfo({:#x})", self.0)
    }
}

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
                "the platform did not sign the report: its firmware hides the chip key; the operator must turn MASK_CHIP_KEY off",
            ),
            Self::Reserved(offset) => write!(
                f,
                "byte {offset:#x} of the report is reserved but not zero, so its meaning is unknown; use a newer release of this program"
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
