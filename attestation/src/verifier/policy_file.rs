//! The file that says what a client accepts.
//!
//! It is TOML. Unknown keys are refused, so that a misspelt restriction is never a missing one. Paths in it
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
//! # "old-firmware", "host-data", "pinned-image".
//! # relax = ["rapl"]
//!
//! # Images that are accepted whether or not a log knows them, for tests: needs the relaxation "pinned-image". Others
//! # are accepted by their proof, see the client's policy. `cloister-image build` prints these values into `digests.json`.
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
    ChipId, Digest, Image, NonEmpty, Policy, Relaxation, Terms, certificate::Certificate, error::Role,
    revocation::RevocationList,
};
use crate::report::{Product, Tcb};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Images that are accepted without a log; needs [`Relaxation::PinnedImage`].
    #[serde(rename = "image", default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Image>,
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
    /// It lists images without saying that it does without a log.
    #[error(
        "the policy pins images by their digests; add the relaxation \"pinned-image\" to accept that nobody else watches \
         them, or have them proven by a log (`[log]`)"
    )]
    Pinned,
    /// It accepts no image.
    #[error("the policy accepts no image: it has neither a `[log]` nor an `[[image]]`")]
    NoImage,
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
    /// Accepts these images, which no log has to know, on real hardware, and nothing else weaker than it should be.
    pub fn pinning(images: NonEmpty<Image>) -> Self {
        Self { images: images.into(), relax: vec![Relaxation::PinnedImage], ..Self::default() }
    }

    /// Reads the file's text.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        Ok(toml::from_str(text)?)
    }

    /// The file's text.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Loads the files that it names, relative to `folder`, and accepts the images that it lists.
    pub fn load(mut self, folder: &Path) -> Result<Policy, PolicyError> {
        let images =
            NonEmpty::try_from(std::mem::take(&mut self.images)).map_err(|_| PolicyError::NoImage)?;
        if !self.relax.contains(&Relaxation::PinnedImage) {
            return Err(PolicyError::Pinned);
        }
        Ok(self.terms(folder)?.accepting(images))
    }

    /// Loads the files that it names, relative to `folder`; which images are accepted is for a log to say, so it must
    /// list none.
    pub fn terms(self, folder: &Path) -> Result<Terms, PolicyError> {
        if !self.images.is_empty() {
            return Err(PolicyError::Pinned);
        }
        let mut policy = Terms {
            chips: self.chips,
            id_keys: self.id_keys,
            relaxations: self.relax,
            minimum_tcb: self.minimum_tcb.into_iter().map(|(key, m)| (key.0, m.into())).collect(),
            ..Terms::default()
        };
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

impl Policy {
    /// Reads a policy file and the files that it names.
    pub fn from_file(path: &Path) -> Result<Self, PolicyError> {
        let bytes = read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        PolicyFile::from_toml(&text)?.load(path.parent().unwrap_or(Path::new(".")))
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
    if found.is_empty() {
        return Err(refuse("it holds none".to_owned()));
    }
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
