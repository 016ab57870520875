//! What a client accepts, and the file that says so.
//!
//! The file is TOML. Unknown keys are refused, so that a misspelt restriction is never a missing one. Paths in it
//! are relative to its own folder.
//!
//! ```toml
//! # Only to try Cloister out: the root of an SNP model's chain. Evidence that ends there protects nothing, and every
//! # verdict says so. Leave it out to accept real hardware only.
//! development_root = "development/ark.pem"
//!
//! # Chips that are accepted, by hardware id (hex: 64 bytes, Turin 8). Left out: any chip that AMD certifies.
//! # chips = ["b1e24a27…"]
//!
//! # SHA-384 digests of ID and author keys that an ID block may be signed with. Left out: no ID block.
//! # id_keys = ["0ad79ceb…"]
//!
//! # Certificates for hosts that give none (VCEK or VLEK), and revocation lists of AMD; PEM or DER.
//! # certificates = ["vcek.pem"]
//! # revocation_lists = ["genoa.crl"]
//!
//! # What is accepted although it is weaker than it should be; each is printed with every verdict. One or more of
//! # "milan", "vlek", "smt", "several-sockets", "cxl", "aes-128", "rapl", "visible-ciphertext", "unchecked-aliases",
//! # "old-firmware", "host-data".
//! # relax = ["rapl"]
//!
//! # Images that are accepted; at least one. `cloister-image build` prints these values into `digests.json`.
//! [[image]]
//! name = "cloister"
//! version = "0.1.0"
//! model = "cloister-mini.gguf"
//! # SHA-384 of the measured manifest: 96 hex digits.
//! manifest_digest = "5b0c…"
//! # One for each container, vCPU count and CPU type that is accepted; at least one.
//! launch_digests = ["93a1…", "c07e…"]
//!
//! # Least security version numbers of a product's firmware, in place of the built-in ones. `fmc` is Turin's only.
//! # [minimum_tcb.Genoa]
//! # boot_loader = 10
//! # tee = 0
//! # snp = 27
//! # microcode = 86
//! ```

use super::{
    certificate::Certificate,
    error::{Role, VerifyError},
    revocation::RevocationList,
};
use crate::report::{Product, Tcb};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

/// A list with at least one element: "nothing is expected" cannot be said with it (REQUIREMENTS B7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<T>", into = "Vec<T>")]
#[serde(bound(serialize = "T: Clone + Serialize", deserialize = "T: Deserialize<'de>"))]
pub struct NonEmpty<T>(Vec<T>);

/// A list was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at least one value is needed here, or nothing would be checked")]
pub struct Empty;

impl<T> TryFrom<Vec<T>> for NonEmpty<T> {
    type Error = Empty;

    fn try_from(list: Vec<T>) -> Result<Self, Empty> {
        if list.is_empty() { Err(Empty) } else { Ok(Self(list)) }
    }
}

impl<T> From<T> for NonEmpty<T> {
    fn from(only: T) -> Self {
        Self(vec![only])
    }
}

impl<T> From<NonEmpty<T>> for Vec<T> {
    fn from(list: NonEmpty<T>) -> Self {
        list.0
    }
}

impl<T> std::ops::Deref for NonEmpty<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

/// A SHA-384 digest that is expected; not all zeros, which is what absent fields of a report hold.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 48]);

/// Text that names no digest or chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} characters that are not {expected}, or all zeros")]
pub struct NotHex {
    expected: &'static str,
    found: usize,
}

impl Digest {
    /// The digest's bytes.
    pub const fn as_bytes(&self) -> &[u8; 48] {
        &self.0
    }
}

impl TryFrom<[u8; 48]> for Digest {
    type Error = NotHex;

    fn try_from(bytes: [u8; 48]) -> Result<Self, NotHex> {
        if bytes == [0; 48] { Err(NotHex { expected: "96 hex digits", found: 96 }) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<String> for Digest {
    type Error = NotHex;

    fn try_from(text: String) -> Result<Self, NotHex> {
        let mut bytes = [0; 48];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| NotHex { expected: "96 hex digits", found: text.len() })?;
        bytes.try_into()
    }
}

impl std::str::FromStr for Digest {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        text.to_owned().try_into()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        hex::encode(digest.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A chip's hardware id: 64 bytes, Turin 8; not all zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChipId(Vec<u8>);

impl ChipId {
    /// The id's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<String> for ChipId {
    type Error = NotHex;

    fn try_from(text: String) -> Result<Self, NotHex> {
        let refused = NotHex { expected: "128 or 16 hex digits", found: text.len() };
        let bytes = hex::decode(&text).map_err(|_| refused)?;
        let has_length = Product::ALL.iter().any(|product| product.hardware_id_len() == bytes.len());
        if has_length && bytes.iter().any(|&byte| byte != 0) { Ok(Self(bytes)) } else { Err(refused) }
    }
}

impl From<ChipId> for String {
    fn from(id: ChipId) -> Self {
        hex::encode(id.0)
    }
}

/// An image that is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its name, for people.
    pub name: String,
    /// Its version, for people.
    pub version: String,
    /// The model that it serves, for people.
    pub model: String,
    /// The digest of its measured manifest. The launch digest covers the manifest, so the two belong together.
    pub manifest_digest: Digest,
    /// Its launch digests, one for each container, vCPU count and CPU type that is accepted.
    pub launch_digests: NonEmpty<Digest>,
}

/// Something weaker than it should be, which a policy accepts by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relaxation {
    /// EPYC 7003, whose keys can be extracted (arXiv 2605.12990).
    Milan,
    /// Reports signed with a cloud provider's key.
    Vlek,
    /// Other threads on the sibling of the guest's core.
    Smt,
    /// Guests that may span sockets.
    SeveralSockets,
    /// Memory behind CXL.
    Cxl,
    /// Memory encryption other than AES-256-XTS.
    #[serde(rename = "aes-128")]
    Aes128,
    /// Power readings.
    Rapl,
    /// Ciphertext that the host can read.
    VisibleCiphertext,
    /// Memory that was not checked for aliases.
    UncheckedAliases,
    /// Firmware older than ABI 1.55.
    OldFirmware,
    /// Data that the host attached at launch.
    HostData,
}

impl Relaxation {
    /// Every relaxation there is.
    pub const ALL: [Self; 11] = [
        Self::Milan,
        Self::Vlek,
        Self::Smt,
        Self::SeveralSockets,
        Self::Cxl,
        Self::Aes128,
        Self::Rapl,
        Self::VisibleCiphertext,
        Self::UncheckedAliases,
        Self::OldFirmware,
        Self::HostData,
    ];

    /// Its name in the policy file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "milan",
            Self::Vlek => "vlek",
            Self::Smt => "smt",
            Self::SeveralSockets => "several-sockets",
            Self::Cxl => "cxl",
            Self::Aes128 => "aes-128",
            Self::Rapl => "rapl",
            Self::VisibleCiphertext => "visible-ciphertext",
            Self::UncheckedAliases => "unchecked-aliases",
            Self::OldFirmware => "old-firmware",
            Self::HostData => "host-data",
        }
    }
}

impl fmt::Display for Relaxation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A product's name, as a key of the policy file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(remote = "Product")]
enum ProductName {
    Milan,
    Genoa,
    Turin,
}

/// [`Product`] in the policy file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProductKey(#[serde(with = "ProductName")] pub Product);

/// A product's minimum TCB in the policy file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinimumTcb {
    /// See [`Tcb::fmc`].
    #[serde(default)]
    pub fmc: u8,
    /// See [`Tcb::boot_loader`].
    pub boot_loader: u8,
    /// See [`Tcb::tee`].
    pub tee: u8,
    /// See [`Tcb::snp`].
    pub snp: u8,
    /// See [`Tcb::microcode`].
    pub microcode: u8,
}

impl From<MinimumTcb> for Tcb {
    fn from(m: MinimumTcb) -> Self {
        Self { fmc: m.fmc, boot_loader: m.boot_loader, tee: m.tee, snp: m.snp, microcode: m.microcode }
    }
}

/// The policy file, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Root certificate of an SNP model's chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub development_root: Option<PathBuf>,
    /// Chips that are accepted; any if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chips: Option<NonEmpty<ChipId>>,
    /// Digests of ID and author keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub id_keys: Vec<Digest>,
    /// Certificates for hosts that give none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<PathBuf>,
    /// Revocation lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocation_lists: Vec<PathBuf>,
    /// What is accepted although it is weaker than it should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relax: Vec<Relaxation>,
    /// Images that are accepted.
    #[serde(rename = "image")]
    pub images: NonEmpty<Image>,
    /// Minimum TCB of products, in place of the built-in ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub minimum_tcb: BTreeMap<ProductKey, MinimumTcb>,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A file cannot be read.
    #[error("cannot read {path}, which the policy is in or names: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The text is not a policy.
    #[error("the policy is not as it must be: {0}")]
    Format(#[from] toml::de::Error),
    /// A certificate or revocation list that it names is not one.
    #[error("{path}, which the policy names, is not {expected} in PEM or DER: {problem}")]
    Collateral {
        /// The file.
        path: PathBuf,
        /// What it must be.
        expected: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl PolicyFile {
    /// Accepts these images on real hardware, and nothing weaker than it should be.
    pub fn new(images: NonEmpty<Image>) -> Self {
        Self {
            development_root: None,
            chips: None,
            id_keys: Vec::new(),
            certificates: Vec::new(),
            revocation_lists: Vec::new(),
            relax: Vec::new(),
            images,
            minimum_tcb: BTreeMap::new(),
        }
    }

    /// Reads the file's text.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        Ok(toml::from_str(text)?)
    }

    /// The file's text.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Loads the files that it names, relative to `folder`.
    pub fn load(self, folder: &Path) -> Result<Policy, PolicyError> {
        let mut policy = Policy::accepting(self.images);
        policy.chips = self.chips;
        policy.id_keys = self.id_keys;
        policy.relaxations = self.relax;
        policy.minimum_tcb = self.minimum_tcb.into_iter().map(|(key, m)| (key.0, m.into())).collect();
        for path in &self.certificates {
            policy.certificates.extend(certificates(&folder.join(path))?);
        }
        for path in &self.revocation_lists {
            policy.revocation_lists.push(revocation_list(&folder.join(path))?);
        }
        if let Some(path) = &self.development_root {
            let path = folder.join(path);
            let found = certificates(&path)?;
            let [root] = &found[..] else {
                let problem = format!("it holds {} certificates", found.len());
                return Err(PolicyError::Collateral { path, expected: "one root certificate", problem });
            };
            policy.development_root = Some(root.clone());
        }
        Ok(policy)
    }
}

/// What a client accepts.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(super) images: NonEmpty<Image>,
    pub(super) chips: Option<NonEmpty<ChipId>>,
    pub(super) id_keys: Vec<Digest>,
    pub(super) relaxations: Vec<Relaxation>,
    pub(super) minimum_tcb: BTreeMap<Product, Tcb>,
    pub(super) certificates: Vec<Vec<u8>>,
    pub(super) revocation_lists: Vec<RevocationList>,
    pub(super) development_root: Option<Vec<u8>>,
}

impl Policy {
    /// Accepts these images on real hardware, and nothing weaker than it should be.
    pub const fn accepting(images: NonEmpty<Image>) -> Self {
        Self {
            images,
            chips: None,
            id_keys: Vec::new(),
            relaxations: Vec::new(),
            minimum_tcb: BTreeMap::new(),
            certificates: Vec::new(),
            revocation_lists: Vec::new(),
            development_root: None,
        }
    }

    /// Reads a policy file and the files that it names.
    pub fn from_file(path: &Path) -> Result<Self, PolicyError> {
        let bytes = read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        PolicyFile::from_toml(&text)?.load(path.parent().unwrap_or(Path::new(".")))
    }

    /// Accepts evidence of SNP models whose chain ends at this root, a certificate in DER. It protects nothing, and
    /// every verdict says so.
    #[must_use]
    pub fn with_development_root(mut self, der: &[u8]) -> Self {
        self.development_root = Some(der.to_vec());
        self
    }

    /// Accepts something weaker than it should be; every verdict says so.
    #[must_use]
    pub fn with_relaxation(mut self, relaxation: Relaxation) -> Self {
        self.relaxations.push(relaxation);
        self
    }

    /// Accepts only these chips.
    #[must_use]
    pub fn with_chips(mut self, chips: NonEmpty<ChipId>) -> Self {
        self.chips = Some(chips);
        self
    }

    /// Accepts ID blocks whose keys have these digests.
    #[must_use]
    pub fn with_id_keys(mut self, digests: Vec<Digest>) -> Self {
        self.id_keys = digests;
        self
    }

    /// Sets the minimum TCB of a product, in place of the built-in one.
    #[must_use]
    pub fn with_minimum_tcb(mut self, product: Product, minimum: Tcb) -> Self {
        self.minimum_tcb.insert(product, minimum);
        self
    }

    /// Adds a certificate in DER for hosts that give none.
    #[must_use]
    pub fn with_certificate(mut self, der: &[u8]) -> Self {
        self.certificates.push(der.to_vec());
        self
    }

    /// Adds a revocation list in DER.
    pub fn with_revocation_list(mut self, der: &[u8]) -> Result<Self, VerifyError> {
        self.revocation_lists.push(RevocationList::parse(der)?);
        Ok(self)
    }

    /// The images that are accepted.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    pub(super) fn relaxes(&self, relaxation: Relaxation) -> bool {
        self.relaxations.contains(&relaxation)
    }

    /// The minimum TCB of a chip: the policy's, else the built-in one.
    pub(super) fn minimum_tcb(&self, product: Product, cpuid: Option<(u8, u8, u8)>) -> Option<Tcb> {
        self.minimum_tcb.get(&product).copied().or_else(|| built_in_minimum(cpuid))
    }

    /// True if the policy asks for less of this chip than the built-in minimum.
    pub(super) fn lowers_minimum_tcb(&self, product: Product, cpuid: Option<(u8, u8, u8)>) -> bool {
        match (self.minimum_tcb.get(&product), built_in_minimum(cpuid)) {
            (Some(own), Some(built_in)) => !own.at_least(&built_in),
            (Some(_), None) | (None, _) => false,
        }
    }
}

/// The versions that hold the fixes of AMD-SB-3019 and AMD-SB-3020 (SNP firmware) and, where they are published for
/// the chip, of AMD-SB-3027 (microcode); state of October 2026. Microcode is numbered per stepping. A chip that is
/// not here has no built-in minimum, and is refused unless the policy states one.
fn built_in_minimum(cpuid: Option<(u8, u8, u8)>) -> Option<Tcb> {
    let tcb = |boot_loader, snp, microcode| Tcb { fmc: 0, boot_loader, tee: 0, snp, microcode };
    match cpuid? {
        (0x19, 0x00..=0x0F, 0x01) => Some(tcb(4, 0x18, 0xDB)),
        (0x19, 0x10..=0x1F, 0x02) => Some(tcb(7, 0x1B, 0x51)),
        (0x19, 0x10..=0x1F, _) => Some(tcb(7, 0x1B, 0x56)),
        (0x19, 0xA0..=0xAF, _) => Some(tcb(7, 0x1B, 0x19)),
        (0x1A, 0x00..=0x0F, _) => Some(tcb(1, 0x04, 0x51)),
        _ => None,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, PolicyError> {
    fs::read(path).map_err(|source| PolicyError::Read { path: path.to_owned(), source })
}

fn is_pem(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"-----BEGIN")
}

fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, PolicyError> {
    let refuse = |problem: String| PolicyError::Collateral {
        path: path.to_owned(),
        expected: "a certificate",
        problem,
    };
    let bytes = read(path)?;
    let found: Vec<Vec<u8>> = if is_pem(&bytes) {
        CertificateDer::pem_slice_iter(&bytes)
            .map(|der| der.map(|der| der.to_vec()).map_err(|e| refuse(e.to_string())))
            .collect::<Result<_, _>>()?
    } else {
        vec![bytes]
    };
    for der in &found {
        Certificate::parse(Role::EndorsementKey, der).map_err(|e| refuse(e.to_string()))?;
    }
    Ok(found)
}

fn revocation_list(path: &Path) -> Result<RevocationList, PolicyError> {
    let refuse = |problem: String| PolicyError::Collateral {
        path: path.to_owned(),
        expected: "a revocation list",
        problem,
    };
    let bytes = read(path)?;
    let der = if is_pem(&bytes) {
        CertificateRevocationListDer::from_pem_slice(&bytes).map_err(|e| refuse(e.to_string()))?.to_vec()
    } else {
        bytes
    };
    RevocationList::parse(&der).map_err(|e| refuse(e.to_string()))
}
