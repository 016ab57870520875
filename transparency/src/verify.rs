//! The check of a proof, offline: may a client rely on what this entry says?
//!
//! Either everything holds and there is a [`Logged`] entry, or there is one [`VerifyError`] that says what happened and
//! what to do. All of it takes the caller's clock.

use crate::checkpoint::{SignedBy, SignedCheckpoint};
use crate::entry::{Entry, EntryError, Kind, Name, Revocations, Subject, Version};
use crate::merkle::{self, Hash, TreeError, verify_inclusion};
use crate::proof::{Leaf, Proof, ProofFormatError};
use crate::trust::Trust;
use std::time::SystemTime;

/// How far ahead of this device's clock a witness's may be, in seconds.
pub const CLOCK_SKEW: u64 = 10 * 60;

/// Why a checkpoint is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointRefused {
    /// Of another log.
    #[error("the proof is of the log {found:?}, but the policy trusts {expected:?}")]
    Origin {
        /// What the policy says.
        expected: String,
        /// What the checkpoint says.
        found: String,
    },
    /// A key of the log did not sign.
    #[error(
        "the checkpoint is not signed by the log's key that the policy names; it is of another log, or of before a change of keys"
    )]
    NotSigned,
    /// A signature of the log is wrong.
    #[error("the log's signature on the checkpoint is wrong: it was altered or forged")]
    WrongSignature,
    /// A signature of a witness is wrong.
    #[error("the signature of the witness {0} is wrong: it was altered or forged")]
    WrongCosignature(String),
    /// A key signed twice.
    #[error("{0} signed the checkpoint more than once; no honest log hands that out")]
    Repeated(String),
    /// Too few witnesses that the policy knows; others signed.
    #[error(
        "{found} of the witnesses that the policy names cosigned, and {needed} must; {unknown} others signed, who do not \
         count"
    )]
    UnknownWitnesses {
        /// Known witnesses who cosigned.
        found: usize,
        /// How many must.
        needed: usize,
        /// Signatures by keys that the policy does not name.
        unknown: usize,
    },
    /// Too few witnesses.
    #[error("{found} witnesses cosigned, and {needed} must; the log must ask its witnesses again")]
    TooFewWitnesses {
        /// Known witnesses who cosigned.
        found: usize,
        /// How many must.
        needed: usize,
    },
    /// Cosigned too long ago.
    #[error(
        "the proof is {hours} hours old and the policy accepts {limit}; get a newer one from the operator, or check this \
         device's clock"
    )]
    Stale {
        /// Its age in hours.
        hours: u64,
        /// What the policy accepts, in hours.
        limit: u64,
    },
    /// Cosigned in the future.
    #[error("the proof is {hours} hours ahead of this device's clock; set the clock")]
    FromTheFuture {
        /// By how much, in hours.
        hours: u64,
    },
    /// The clock is before 1970.
    #[error("this device's clock is before 1970, so no age can be checked; set the clock")]
    Clock,
}

/// Why a proof is not accepted. Whatever the reason, what it is about must not be relied on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Not a proof.
    #[error(transparent)]
    Format(#[from] ProofFormatError),
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointRefused),
    /// The entry is not one.
    #[error("what the proof is about is no entry: {0}")]
    Entry(#[from] EntryError),
    /// The entry is not in the log.
    #[error("the entry is not in the log: {0}")]
    NotIncluded(TreeError),
    /// The list of revocations is not in the log.
    #[error("the list of revocations is not in the log: {0}")]
    RevocationsNotIncluded(TreeError),
    /// What stands in place of the list is another kind of entry.
    #[error("the proof carries no list of revocations, but an entry of kind {0}")]
    NotRevocations(Kind),
    /// Another kind of entry.
    #[error("the entry is about another kind of thing: {found}, where {expected} is needed")]
    Kind {
        /// What was asked for.
        expected: Kind,
        /// What it is.
        found: Kind,
    },
    /// A name or role that the policy does not accept.
    #[error("the policy accepts no {kind} {name} for the role {role}")]
    Name {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: Name,
        /// Its role.
        role: Name,
    },
    /// An older version than the policy accepts.
    #[error(
        "version {found} is older than {minimum}, the oldest that the policy accepts; somebody offers an old image"
    )]
    Rollback {
        /// The entry's.
        found: Version,
        /// The policy's.
        minimum: Version,
    },
    /// An older list of revocations than the policy accepts.
    #[error("the list of revocations is number {found}, and the policy asks for {minimum} or a later one")]
    OldRevocations {
        /// The list's.
        found: u64,
        /// The policy's.
        minimum: u64,
    },
    /// The list of revocations is too old, although the checkpoint is not.
    #[error(
        "the list of revocations is {hours} hours old and the policy accepts {limit}; the operator must publish one"
    )]
    StaleRevocations {
        /// Its age in hours.
        hours: u64,
        /// What the policy accepts, in hours.
        limit: u64,
    },
    /// The list of revocations is of the future.
    #[error("the list of revocations is {hours} hours ahead of this device's clock; set the clock")]
    RevocationsFromTheFuture {
        /// By how much, in hours.
        hours: u64,
    },
    /// It was revoked, for this reason.
    #[error("the entry was revoked ({0}); do not use it")]
    Revoked(Name),
    /// The key is not in use now.
    #[error("the key is not to be used at this time; check this device's clock, or fetch the current key")]
    KeyDates,
}

/// A checkpoint that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnessed {
    /// Names of the witnesses who cosigned in time.
    pub witnesses: Vec<String>,
    /// When the oldest of the newest cosignatures that are needed was made, in seconds since 1970.
    pub time: u64,
}

/// An entry that may be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The entry.
    pub entry: Entry,
    /// Its leaf's hash.
    pub leaf: Hash,
    /// Its index in the log.
    pub index: u64,
    /// Size of the log that it was proven in.
    pub size: u64,
    /// Number of the list of revocations that does not name it.
    pub revocations: u64,
    /// Who cosigned.
    pub witnessed: Witnessed,
}

/// Seconds since 1970.
pub fn seconds(now: SystemTime) -> Result<u64, CheckpointRefused> {
    Ok(now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| CheckpointRefused::Clock)?.as_secs())
}

/// Checks a checkpoint's origin, signatures and witnesses, but not its age; gives the witnesses' names and times, the
/// newest first. This is what a monitor needs, who must be able to read an old log.
pub fn verify_signatures(
    signed: &SignedCheckpoint,
    trust: &Trust,
) -> Result<Vec<(String, u64)>, CheckpointRefused> {
    use CheckpointRefused as R;
    if signed.checkpoint.origin != trust.origin() {
        let found = signed.checkpoint.origin.clone();
        return Err(R::Origin { expected: trust.origin().into(), found });
    }
    for key in trust.keys() {
        match signed.signed_by(key) {
            SignedBy::Signed(_) => (),
            SignedBy::Missing => return Err(R::NotSigned),
            SignedBy::Wrong => return Err(R::WrongSignature),
            SignedBy::Repeated => return Err(R::Repeated(key.name().into())),
        }
    }
    let mut cosigned = Vec::new();
    for witness in trust.witnesses() {
        let mut oldest = Some(u64::MAX);
        for key in &witness.keys {
            match signed.signed_by(key) {
                SignedBy::Signed(time) => oldest = oldest.zip(time).map(|(a, b)| a.min(b)),
                SignedBy::Missing => oldest = None,
                SignedBy::Wrong => return Err(R::WrongCosignature(witness.name().into())),
                SignedBy::Repeated => return Err(R::Repeated(witness.name().into())),
            }
        }
        cosigned.extend(oldest.map(|time| (witness.name().to_owned(), time)));
    }
    let (found, needed) = (cosigned.len(), trust.threshold());
    if found < needed {
        let known = |claimed: &&crate::note::Signature| {
            let keys = trust.keys().iter().chain(trust.witnesses().iter().flat_map(|w| &w.keys));
            keys.into_iter().any(|key| claimed.claims(key))
        };
        let unknown = signed.signatures.len() - signed.signatures.iter().filter(known).count();
        return Err(if unknown > 0 {
            R::UnknownWitnesses { found, needed, unknown }
        } else {
            R::TooFewWitnesses { found, needed }
        });
    }
    cosigned.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    Ok(cosigned)
}

/// Checks a checkpoint's origin, signatures, witnesses, and that enough of them cosigned recently.
pub fn verify_checkpoint(
    signed: &SignedCheckpoint,
    trust: &Trust,
    now: SystemTime,
) -> Result<Witnessed, CheckpointRefused> {
    let cosigned = verify_signatures(signed, trust)?;
    let now = seconds(now)?;
    // Those who are ahead of this clock cannot tell an age; the rest must be enough.
    let (ahead, usable): (Vec<_>, Vec<_>) =
        cosigned.into_iter().partition(|(_, time)| *time > now.saturating_add(CLOCK_SKEW));
    let Some((_, time)) = usable.get(trust.threshold() - 1) else {
        let newest = ahead.iter().map(|(_, time)| time - now).min().unwrap_or_default();
        return Err(CheckpointRefused::FromTheFuture { hours: newest / 3600 });
    };
    let (time, age) = (*time, now.saturating_sub(*time));
    if age > trust.max_age() {
        return Err(CheckpointRefused::Stale { hours: age / 3600, limit: trust.max_age() / 3600 });
    }
    Ok(Witnessed { witnesses: usable.into_iter().map(|(name, _)| name).collect(), time })
}

fn included(leaf: &Leaf, signed: &SignedCheckpoint) -> Result<Hash, TreeError> {
    let hash = merkle::leaf_hash(&leaf.entry);
    let checkpoint = &signed.checkpoint;
    verify_inclusion(&hash, leaf.index, checkpoint.size, &leaf.path, &checkpoint.root).map(|()| hash)
}

fn revocations(proof: &Proof) -> Result<Revocations, VerifyError> {
    included(&proof.revocations, &proof.checkpoint).map_err(VerifyError::RevocationsNotIncluded)?;
    let entry = Entry::decode(&proof.revocations.entry)?;
    let kind = entry.kind();
    match entry.subject {
        Subject::Revocations(list) => Ok(list),
        _ => Err(VerifyError::NotRevocations(kind)),
    }
}

/// Checks the text of a proof for an entry of this kind: that it is in a log that the policy trusts, that witnesses saw
/// the log recently, that the policy accepts its name, role and version, and that it was not revoked.
pub fn verify(text: &[u8], kind: Kind, trust: &Trust, now: SystemTime) -> Result<Logged, VerifyError> {
    let proof = Proof::parse(text)?;
    let witnessed = verify_checkpoint(&proof.checkpoint, trust, now)?;
    let leaf = included(&proof.entry, &proof.checkpoint).map_err(VerifyError::NotIncluded)?;
    let entry = Entry::decode(&proof.entry.entry)?;
    if entry.kind() != kind {
        return Err(VerifyError::Kind { expected: kind, found: entry.kind() });
    }
    let accepted =
        trust.accept().iter().find(|a| (a.kind, &a.name, &a.role) == (kind, &entry.name, &entry.role));
    let Some(accepted) = accepted else {
        return Err(VerifyError::Name { kind, name: entry.name, role: entry.role });
    };
    if entry.version < accepted.minimum_version {
        let (found, minimum) = (entry.version, accepted.minimum_version);
        return Err(VerifyError::Rollback { found, minimum });
    }
    let now = seconds(now)?;
    let list = revocations(&proof)?;
    if list.number < accepted.minimum_revocations {
        let (found, minimum) = (list.number, accepted.minimum_revocations);
        return Err(VerifyError::OldRevocations { found, minimum });
    }
    if list.issued > now.saturating_add(CLOCK_SKEW) {
        return Err(VerifyError::RevocationsFromTheFuture { hours: (list.issued - now) / 3600 });
    }
    let age = now.saturating_sub(list.issued);
    if age > trust.max_age() {
        return Err(VerifyError::StaleRevocations { hours: age / 3600, limit: trust.max_age() / 3600 });
    }
    if let Some(revoked) = list.revoked.iter().find(|revoked| revoked.leaf == leaf) {
        return Err(VerifyError::Revoked(revoked.reason.clone()));
    }
    if let Subject::OhttpKey(key) | Subject::IssuerKey(key) = &entry.subject
        && !(key.not_before..key.not_after).contains(&now)
    {
        return Err(VerifyError::KeyDates);
    }
    let (index, size) = (proof.entry.index, proof.checkpoint.checkpoint.size);
    Ok(Logged { entry, leaf, index, size, revocations: list.number, witnessed })
}
