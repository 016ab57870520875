//! What is logged: an entry says which thing, of which kind, for which role, in which version.
//!
//! An entry's canonical encoding ([`wire::canonical`]) is the leaf's data, so the leaf's hash names all of it. The kind
//! is encoded first and every kind has fields of its own: an entry of one kind is never read as another (REQUIREMENTS
//! D1). There is one encoding for each entry; another is refused.

#[cfg(feature = "tools")]
mod built;
mod fields;
mod version;

pub use fields::{FieldError, File, Launch, Name, Revoked};
pub use version::{NotAVersion, Version};

use crate::merkle::{self, Hash};
use fields::{ascending, optional_hash};
use serde::{Deserialize, Serialize};
use std::fmt;
use wire::canonical::{NotCanonical, Reader, Writer};

const LABEL: &str = "cloister log entry v1";

/// Most bytes of an encoded entry: what a bundle's 16-bit length can say (C2SP tlog-tiles, "Log entries").
pub const MAX_ENTRY: usize = u16::MAX as usize;

/// What kind of thing an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A guest image.
    Image,
    /// A model's weights.
    Model,
    /// A gateway's OHTTP key configuration.
    OhttpKey,
    /// A token issuer's public key.
    IssuerKey,
    /// Everything that was revoked so far.
    Revocations,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Image, Self::Model, Self::OhttpKey, Self::IssuerKey, Self::Revocations];

    /// Its name in an encoding and for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Model => "model",
            Self::OhttpKey => "ohttp-key",
            Self::IssuerKey => "issuer-key",
            Self::Revocations => "revocations",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A guest image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// SHA-384 of the measured manifest.
    #[serde(with = "hex::serde")]
    pub manifest_digest: [u8; 48],
    /// Name of the weights' file.
    pub model: Name,
    /// Root of the weights' tree hash.
    #[serde(with = "hex::serde")]
    pub weights_root: [u8; 48],
    /// Launch digests, one for each container, vCPU count and CPU type; ascending, at least one.
    pub launches: Vec<Launch>,
    /// The files that are published; ascending by name, at least one.
    pub files: Vec<File>,
    /// The commit that it was built from: 20 (SHA-1) or 32 (SHA-256) bytes.
    #[serde(with = "hex::serde")]
    pub source_commit: Vec<u8>,
}

/// A model's weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Root of the weights' tree hash.
    #[serde(with = "hex::serde")]
    pub weights_root: [u8; 48],
    /// The files that are published; ascending by name, at least one.
    pub files: Vec<File>,
}

/// A public key and how long it is meant to be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// The key as its protocol encodes it: a key configuration (RFC 9458), a token key (RFC 9578).
    #[serde(with = "hex::serde")]
    pub key: Vec<u8>,
    /// Start of its use, in seconds since 1970.
    pub not_before: u64,
    /// End of its use, in seconds since 1970.
    pub not_after: u64,
}

/// Everything that was revoked so far. A list holds all of the one before it, so the newest says all; monitors raise
/// the alarm over one that shrinks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocations {
    /// 0 for a log's first list, then one more each time.
    pub number: u64,
    /// When it was made, in seconds since 1970.
    pub issued: u64,
    /// What is revoked, ascending by leaf hash.
    pub revoked: Vec<Revoked>,
}

/// What an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// A guest image.
    Image(Image),
    /// A model's weights.
    Model(Model),
    /// A gateway's OHTTP key configuration.
    OhttpKey(PublicKey),
    /// A token issuer's public key.
    IssuerKey(PublicKey),
    /// Everything that was revoked so far.
    Revocations(Revocations),
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Which thing.
    pub name: Name,
    /// What it is for, such as `guest`.
    pub role: Name,
    /// Its version; higher than those of all earlier entries of the same kind, name and role.
    pub version: Version,
    /// The leaf hash of the entry before it of the same kind, name and role.
    #[serde(with = "optional_hash", default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Hash>,
    /// The thing.
    pub subject: Subject,
}

/// Why bytes are not an entry, or an entry cannot be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not the canonical encoding of an entry of a known kind.
    #[error("not the canonical encoding of an entry")]
    NotCanonical,
    /// A field is outside its bounds.
    #[error("the entry's {0} is not as it must be")]
    Field(&'static str),
    /// More than [`MAX_ENTRY`] bytes.
    #[error("the entry is larger than 65,535 bytes")]
    TooLarge,
}

impl From<NotCanonical> for EntryError {
    fn from(_: NotCanonical) -> Self {
        Self::NotCanonical
    }
}

impl From<FieldError> for EntryError {
    fn from(error: FieldError) -> Self {
        Self::Field(error.0)
    }
}

impl Entry {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self.subject {
            Subject::Image(_) => Kind::Image,
            Subject::Model(_) => Kind::Model,
            Subject::OhttpKey(_) => Kind::OhttpKey,
            Subject::IssuerKey(_) => Kind::IssuerKey,
            Subject::Revocations(_) => Kind::Revocations,
        }
    }

    /// The canonical encoding, if every field is within its bounds.
    pub fn encode(&self) -> Result<Vec<u8>, EntryError> {
        self.check()?;
        let mut w = Writer::new(LABEL);
        w.bytes(self.kind().name().as_bytes());
        w.bytes(self.name.as_bytes()).bytes(self.role.as_bytes());
        for part in self.version.parts() {
            w.number(part.into());
        }
        w.bytes(self.previous.as_ref().map_or(&[], |hash| &hash[..]));
        match &self.subject {
            Subject::Image(image) => {
                w.bytes(&image.manifest_digest).bytes(image.model.as_bytes()).bytes(&image.weights_root);
                w.number(image.launches.len() as u64);
                for launch in &image.launches {
                    launch.write(&mut w);
                }
                fields::write_files(&image.files, &mut w);
                w.bytes(&image.source_commit);
            }
            Subject::Model(model) => {
                w.bytes(&model.weights_root);
                fields::write_files(&model.files, &mut w);
            }
            Subject::OhttpKey(key) | Subject::IssuerKey(key) => {
                w.bytes(&key.key).number(key.not_before).number(key.not_after);
            }
            Subject::Revocations(list) => {
                w.number(list.number).number(list.issued).number(list.revoked.len() as u64);
                for revoked in &list.revoked {
                    revoked.write(&mut w);
                }
            }
        }
        let bytes = w.finish();
        if bytes.len() > MAX_ENTRY { Err(EntryError::TooLarge) } else { Ok(bytes) }
    }

    /// Reads the canonical encoding; anything else, trailing bytes included, is refused.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > MAX_ENTRY {
            return Err(EntryError::TooLarge);
        }
        let mut r = Reader::new(bytes, LABEL)?;
        let kind = r.text()?;
        let kind =
            Kind::ALL.into_iter().find(|known| known.name() == kind).ok_or(EntryError::NotCanonical)?;
        let name = r.text()?.parse()?;
        let role = r.text()?.parse()?;
        let version = Version::new(r.number()?, r.number()?, r.number()?);
        let previous = match r.bytes()? {
            [] => None,
            hash => Some(hash.try_into().map_err(|_| EntryError::NotCanonical)?),
        };
        let subject = match kind {
            Kind::Image => Subject::Image(Image {
                manifest_digest: r.array()?,
                model: r.text()?.parse()?,
                weights_root: r.array()?,
                launches: fields::read_list(&mut r, Launch::read)?,
                files: fields::read_list(&mut r, File::read)?,
                source_commit: r.bytes()?.into(),
            }),
            Kind::Model => Subject::Model(Model {
                weights_root: r.array()?,
                files: fields::read_list(&mut r, File::read)?,
            }),
            Kind::OhttpKey => Subject::OhttpKey(read_key(&mut r)?),
            Kind::IssuerKey => Subject::IssuerKey(read_key(&mut r)?),
            Kind::Revocations => Subject::Revocations(Revocations {
                number: r.number()?,
                issued: r.number()?,
                revoked: fields::read_list(&mut r, Revoked::read)?,
            }),
        };
        r.finish()?;
        let entry = Self { name, role, version, previous, subject };
        entry.check()?;
        Ok(entry)
    }

    /// The hash of the leaf that holds it.
    pub fn leaf_hash(&self) -> Result<Hash, EntryError> {
        Ok(merkle::leaf_hash(&self.encode()?))
    }

    fn check(&self) -> Result<(), EntryError> {
        let files = |files: &[File]| match files.is_empty() || !ascending(files, |file| &file.name) {
            true => Err(EntryError::Field("list of files")),
            false => Ok(()),
        };
        match &self.subject {
            Subject::Image(image) => {
                if image.launches.is_empty() || !ascending(&image.launches, Launch::machine) {
                    return Err(EntryError::Field("list of launch digests"));
                }
                // What absent fields of a report hold must never be what is expected (REQUIREMENTS B7).
                if image.manifest_digest == [0; 48] || image.launches.iter().any(|l| l.digest == [0; 48]) {
                    return Err(EntryError::Field("digest"));
                }
                if ![20, 32].contains(&image.source_commit.len()) {
                    return Err(EntryError::Field("source commit"));
                }
                files(&image.files)
            }
            Subject::Model(model) => files(&model.files),
            Subject::OhttpKey(key) | Subject::IssuerKey(key) => {
                let dates = key.not_before < key.not_after;
                if dates && !key.key.is_empty() { Ok(()) } else { Err(EntryError::Field("key or its dates")) }
            }
            Subject::Revocations(list) => {
                let sorted = ascending(&list.revoked, |revoked| &revoked.leaf);
                if sorted { Ok(()) } else { Err(EntryError::Field("list of revoked entries")) }
            }
        }
    }
}

fn read_key(r: &mut Reader<'_>) -> Result<PublicKey, EntryError> {
    Ok(PublicKey { key: r.bytes()?.into(), not_before: r.number()?, not_after: r.number()? })
}

#[cfg(test)]
mod tests;
