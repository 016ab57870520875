//! Whom a client trusts: the `[log]` part of its policy.
//!
//! ```toml
//! [log]
//! origin = "log.example/cloister"
//! # Every one of these must have signed the checkpoint.
//! keys = ["log.example/cloister+…"]
//! # How many witnesses must have cosigned, and within how many hours.
//! threshold = 2
//! max_age_hours = 168
//!
//! # A witness counts once, when all of its keys cosigned.
//! [[log.witness]]
//! keys = ["witness.example/w1+…"]
//!
//! # What may run. `minimum_version` refuses older versions, `minimum_revocations` older lists of what was revoked.
//! [[log.accept]]
//! name = "cloister"
//! role = "guest"
//! minimum_version = "0.1.0"
//! ```

use crate::entry::{Kind, Name, Version};
use crate::key::{Algorithm, VerifierKey};
use crate::text::is_name;
use serde::{Deserialize, Serialize};

/// Hours for which a proof is good unless a policy says otherwise: a week.
const DEFAULT_MAX_AGE_HOURS: u32 = 7 * 24;

/// Why a `[log]` section cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The origin is not one.
    #[error("the log's origin is empty, too long, or has spaces or plus signs in it")]
    Origin,
    /// No key of the log.
    #[error("the policy names no key of the log, so nothing would be checked")]
    NoLogKey,
    /// A key of the log that has another name, or a witness's keys with different names or types.
    #[error(
        "a log's keys bear its origin as their name, and a witness's keys bear one name and sign cosignatures"
    )]
    KeyName,
    /// A key is listed twice, or for two parties: it would count twice.
    #[error("a key is listed twice, or for both a log and a witness; each party needs a key of its own")]
    RepeatedKey,
    /// More cosignatures are asked for than there are witnesses, or none.
    #[error("`threshold` must be at least 1 and at most the number of witnesses")]
    Threshold,
    /// No age bound.
    #[error("`max_age_hours` must be at least 1")]
    Age,
}

/// One witness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Its keys; all of them must have cosigned.
    pub keys: Vec<VerifierKey>,
}

impl Witness {
    /// Its name.
    pub fn name(&self) -> &str {
        self.keys.first().map_or("", VerifierKey::name)
    }
}

/// What may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// Kind of the entry.
    #[serde(default = "image", skip_serializing_if = "is_image")]
    pub kind: Kind,
    /// Name of the entry.
    pub name: Name,
    /// Role of the entry.
    pub role: Name,
    /// Least version; refuses a rollback.
    #[serde(default)]
    pub minimum_version: Version,
    /// Least number of the list of revocations.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub minimum_revocations: u64,
}

const fn image() -> Kind {
    Kind::Image
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_image(kind: &Kind) -> bool {
    *kind == Kind::Image
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

const fn default_max_age() -> u32 {
    DEFAULT_MAX_AGE_HOURS
}

/// The section as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustFile {
    /// The log's origin line.
    pub origin: String,
    /// The log's keys.
    pub keys: Vec<VerifierKey>,
    /// Witnesses that must have cosigned.
    pub threshold: usize,
    /// Longest age of cosignatures and of the list of revocations.
    #[serde(default = "default_max_age")]
    pub max_age_hours: u32,
    /// The witnesses.
    #[serde(rename = "witness", default)]
    pub witnesses: Vec<Witness>,
    /// What may run.
    #[serde(rename = "accept", default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<Accept>,
}

impl TrustFile {
    /// Trusts a log with these keys and no witness, and accepts no name.
    pub fn new(origin: String, keys: Vec<VerifierKey>, threshold: usize) -> Self {
        let (witnesses, accept) = (Vec::new(), Vec::new());
        Self { origin, keys, threshold, max_age_hours: DEFAULT_MAX_AGE_HOURS, witnesses, accept }
    }
}

/// Whom a client trusts, checked: there is a key, a threshold that can be met, and no key counts twice.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "TrustFile")]
pub struct Trust(TrustFile);

impl TryFrom<TrustFile> for Trust {
    type Error = TrustError;

    fn try_from(file: TrustFile) -> Result<Self, TrustError> {
        if !is_name(&file.origin) {
            return Err(TrustError::Origin);
        }
        if file.keys.is_empty() {
            return Err(TrustError::NoLogKey);
        }
        if file.keys.iter().any(|key| key.name() != file.origin) {
            return Err(TrustError::KeyName);
        }
        for witness in &file.witnesses {
            let cosigner = |key: &VerifierKey| {
                key.name() == witness.name()
                    && key.name() != file.origin
                    && key.algorithm() != Algorithm::Ed25519
            };
            if witness.keys.is_empty() || !witness.keys.iter().all(cosigner) {
                return Err(TrustError::KeyName);
            }
        }
        let keys: Vec<&VerifierKey> =
            file.keys.iter().chain(file.witnesses.iter().flat_map(|witness| &witness.keys)).collect();
        let again = |(at, key): (usize, &&VerifierKey)| keys[..at].iter().any(|k| k.same_material(key));
        let mut names: Vec<&str> = file.witnesses.iter().map(Witness::name).collect();
        names.sort_unstable();
        if keys.iter().enumerate().any(again) || names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(TrustError::RepeatedKey);
        }
        if file.threshold == 0 || file.threshold > file.witnesses.len() {
            return Err(TrustError::Threshold);
        }
        if file.max_age_hours == 0 {
            return Err(TrustError::Age);
        }
        Ok(Self(file))
    }
}

impl Trust {
    /// The log's origin line.
    pub fn origin(&self) -> &str {
        &self.0.origin
    }

    /// The log's keys.
    pub fn keys(&self) -> &[VerifierKey] {
        &self.0.keys
    }

    /// Witnesses that must have cosigned.
    pub const fn threshold(&self) -> usize {
        self.0.threshold
    }

    /// Longest age of cosignatures and of the list of revocations, in seconds.
    pub const fn max_age(&self) -> u64 {
        self.0.max_age_hours as u64 * 3600
    }

    /// The witnesses.
    pub fn witnesses(&self) -> &[Witness] {
        &self.0.witnesses
    }

    /// What may run.
    pub fn accept(&self) -> &[Accept] {
        &self.0.accept
    }

    /// As it is written.
    pub const fn file(&self) -> &TrustFile {
        &self.0
    }
}
