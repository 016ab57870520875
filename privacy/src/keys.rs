//! Keys that everyone is given: a gateway's OHTTP key configuration and an issuer's token key, with proof that they are in
//! the log.
//!
//! Whoever hands a user a key of its own can recognise that user. So a key counts only when its proof verifies
//! (`transparency::verify`: signatures of the log and of its witnesses, age, name, version floor, revocations, the key's own
//! dates). It does not matter who hands over the proof: it may come from any mirror, over plain HTTP, or from a file.
//! An older key that is still good is refused once a newer one was seen ([`Floors`]).

use crate::token::key::{BadKey, TokenKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use transparency::entry::{Kind, Name, PublicKey, Subject, Version};
use transparency::proof::MAX_PROOF_TEXT;
use transparency::trust::Trust;
use transparency::verify::{VerifyError, verify};

/// The role of an issuer's key in the log.
pub const ISSUER_ROLE: &str = "token-issuer";
/// The role of a gateway's key in the log.
pub const GATEWAY_ROLE: &str = "gateway";

/// Longest time that a mirror may take.
const MIRROR_PATIENCE: Duration = Duration::from_secs(20);

/// Why a key is not used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The proof.
    #[error("the key's proof was refused: {0}")]
    Proof(#[from] VerifyError),
    /// Of another party than the one asked for.
    #[error("the proof is for the key of {found}, and not of {expected}")]
    Name {
        /// Who was asked for.
        expected: Name,
        /// Whose it is.
        found: Name,
    },
    /// Older than one that was seen before.
    #[error(
        "version {found} of {name}'s key was offered, but version {seen} was seen before: an old key that only some are \
         given would single them out"
    )]
    Rollback {
        /// Whose it is.
        name: Name,
        /// Its version.
        found: Version,
        /// The newest that was seen.
        seen: Version,
    },
    /// Another key under a version that was seen before.
    #[error(
        "{name}'s key of version {version} is another one than was seen before; keep both proofs, and ask the log's operator"
    )]
    TwoKeys {
        /// Whose it is.
        name: Name,
        /// The version that both have.
        version: Version,
    },
    /// In the log, but not a token key.
    #[error("the issuer's logged key cannot be used: {0}")]
    Encoding(#[from] BadKey),
    /// A mirror does not give it.
    #[error("{mirror} gives no proof: {problem}")]
    Mirror {
        /// The mirror.
        mirror: String,
        /// Why.
        problem: String,
    },
    /// No mirror has one that can be used.
    #[error("none of {0} mirrors gave a key that can be used; the last one: {1}")]
    NoMirror(usize, Box<KeyError>),
    /// There are no mirrors.
    #[error("no mirror is configured from which the key's proof could come")]
    NoMirrors,
    /// What was seen before cannot be read or written.
    #[error("cannot read or write {}: {problem}", path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
}

/// A key that is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Whose.
    pub name: Name,
    /// Its version.
    pub version: Version,
    /// Hash of its leaf in the log, which names it.
    pub leaf: [u8; 32],
    /// The key and its dates.
    pub key: PublicKey,
}

/// An issuer's key that is in the log.
#[derive(Clone, Debug)]
pub struct IssuerKey {
    /// The key.
    pub key: std::sync::Arc<TokenKey>,
    /// Its version.
    pub version: Version,
    /// Start of its use, in seconds since 1970.
    pub not_before: u64,
    /// End of its use, the same for all of its tokens, in seconds since 1970.
    pub not_after: u64,
}

impl TryFrom<Proven> for IssuerKey {
    type Error = KeyError;

    fn try_from(proven: Proven) -> Result<Self, KeyError> {
        let Proven { version, key: PublicKey { key, not_before, not_after }, .. } = proven;
        Ok(Self { key: TokenKey::parse(&key)?.into(), version, not_before, not_after })
    }
}

/// The newest key of each party that was seen, so that an older one is refused from then on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Floors(BTreeMap<String, Seen>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    version: Version,
    #[serde(with = "hex::serde")]
    leaf: [u8; 32],
}

impl Floors {
    /// Reads a file; nothing was seen where there is none.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let problem = |problem: String| KeyError::Memory { path: path.into(), problem };
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| problem(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(problem(error.to_string())),
        }
    }

    /// Writes a file, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let problem =
            |error: std::io::Error| KeyError::Memory { path: path.into(), problem: error.to_string() };
        let bytes = serde_json::to_vec(self).map_err(|error| problem(error.into()))?;
        crate::file::replace(path, &bytes).map_err(problem)
    }

    fn check(&self, kind: Kind, proven: &Proven) -> Result<(), KeyError> {
        let Some(seen) = self.0.get(&format!("{kind}/{}", proven.name)) else { return Ok(()) };
        let name = || proven.name.clone();
        if proven.version < seen.version {
            return Err(KeyError::Rollback { name: name(), found: proven.version, seen: seen.version });
        }
        if proven.version == seen.version && proven.leaf != seen.leaf {
            return Err(KeyError::TwoKeys { name: name(), version: proven.version });
        }
        Ok(())
    }

    /// Remembers a key; gives whether that changed anything.
    pub fn remember(&mut self, kind: Kind, proven: &Proven) -> bool {
        let seen = Seen { version: proven.version, leaf: proven.leaf };
        self.0.insert(format!("{kind}/{}", proven.name), seen.clone()) != Some(seen)
    }
}

/// The key of `name` that a proof's text is about, if all that the policy asks for holds. `kind` is
/// [`Kind::OhttpKey`] or [`Kind::IssuerKey`].
pub fn prove(
    text: &[u8],
    kind: Kind,
    name: &Name,
    trust: &Trust,
    floors: &Floors,
    now: SystemTime,
) -> Result<Proven, KeyError> {
    let logged = verify(text, kind, trust, now)?;
    let (Subject::OhttpKey(key) | Subject::IssuerKey(key)) = logged.entry.subject else {
        return Err(VerifyError::Kind { expected: kind, found: logged.entry.kind() }.into());
    };
    if logged.entry.name != *name {
        return Err(KeyError::Name { expected: name.clone(), found: logged.entry.name });
    }
    let proven = Proven { name: logged.entry.name, version: logged.entry.version, leaf: logged.leaf, key };
    floors.check(kind, &proven)?;
    Ok(proven)
}

/// Where a proof may come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Mirror {
    /// An `http` or `https` URL.
    Url(String),
    /// A file.
    File(PathBuf),
}

impl From<String> for Mirror {
    fn from(text: String) -> Self {
        if text.starts_with("http://") || text.starts_with("https://") {
            Self::Url(text)
        } else {
            Self::File(text.into())
        }
    }
}

impl From<Mirror> for String {
    fn from(mirror: Mirror) -> Self {
        mirror.to_string()
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl Mirror {
    /// What it has, at most [`MAX_PROOF_TEXT`] bytes. Nothing of it is trusted.
    pub async fn fetch(&self) -> Result<Vec<u8>, KeyError> {
        let problem = |problem: String| KeyError::Mirror { mirror: self.to_string(), problem };
        let url = match self {
            Self::File(path) => return fs::read(path).map_err(|error| problem(error.to_string())),
            Self::Url(url) => url,
        };
        let http = |error: reqwest::Error| problem(error.without_url().to_string());
        let client = reqwest::Client::builder().timeout(MIRROR_PATIENCE).build().map_err(http)?;
        let mut response = client.get(url).send().await.and_then(|r| r.error_for_status()).map_err(http)?;
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(http)? {
            if text.len() + chunk.len() > MAX_PROOF_TEXT {
                return Err(problem("it is larger than any proof can be".into()));
            }
            text.extend_from_slice(&chunk);
        }
        Ok(text)
    }
}

/// Asks all mirrors and takes the newest key that can be used, so that one which lags or lies holds nobody back; then
/// remembers it in `floors`.
pub async fn from_mirrors(
    mirrors: &[Mirror],
    kind: Kind,
    name: &Name,
    trust: &Trust,
    floors: &mut Floors,
) -> Result<Proven, KeyError> {
    let (mut newest, mut last): (Option<Proven>, _) = (None, KeyError::NoMirrors);
    for mirror in mirrors {
        let text = mirror.fetch().await;
        match text.and_then(|text| prove(&text, kind, name, trust, floors, SystemTime::now())) {
            Ok(proven) if newest.as_ref().is_none_or(|newest| newest.version < proven.version) => {
                newest = Some(proven);
            }
            Ok(proven) => {
                let newest = newest.as_ref().filter(|newest| newest.version == proven.version);
                if newest.is_some_and(|newest| newest.leaf != proven.leaf) {
                    return Err(KeyError::TwoKeys { name: proven.name, version: proven.version });
                }
            }
            // Evidence against the log outweighs what another mirror says.
            Err(error @ KeyError::TwoKeys { .. }) => return Err(error),
            Err(error) => last = error,
        }
    }
    match newest {
        Some(newest) => {
            floors.remember(kind, &newest);
            Ok(newest)
        }
        None if mirrors.is_empty() => Err(last),
        None => Err(KeyError::NoMirror(mirrors.len(), Box::new(last))),
    }
}
