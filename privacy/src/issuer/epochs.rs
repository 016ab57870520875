//! An issuer's keys and their times: a folder with a pair of files for each key.
//!
//! A key's epoch is a whole number of hours since 1970, so that all issuers' clients change keys at the same hours. Its tokens
//! are good for `overlap` longer, while the next key is in use already: nobody's tokens end the moment that they were
//! fetched. `N.pem` is the private key, `N.json` the entry for the log, `N` counting the keys.

use super::signing::{SigningError, SigningKey};
use crate::file::{self, FileError};
use crate::keys::ISSUER_ROLE;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use transparency::entry::{Entry, Name, PublicKey, Subject, Version};
use zeroize::Zeroizing;

/// Shortest and longest epoch, in hours.
pub const EPOCH_HOURS: std::ops::RangeInclusive<u64> = 1..=24 * 31;

/// Why keys cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key itself.
    #[error("{}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SigningError,
    },
    /// Times that do not make epochs.
    #[error("an epoch has 1 to 744 hours, and the overlap is shorter than the epoch")]
    Hours,
    /// There are keys enough.
    #[error("the newest key's epoch starts in the future already; it is the next one")]
    Early,
}

/// A key with its time.
#[derive(Debug)]
pub struct EpochKey {
    /// The key.
    pub signing: SigningKey,
    /// Its entry in the log.
    pub entry: Entry,
    /// Start of its use, in seconds since 1970.
    pub not_before: u64,
    /// End of its tokens' use, in seconds since 1970.
    pub not_after: u64,
}

/// All keys of an issuer, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Epochs(Vec<Arc<EpochKey>>);

/// How long keys are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Hours for which tokens are issued under a key.
    pub epoch_hours: u64,
    /// Hours for which its tokens are good after that.
    pub overlap_hours: u64,
}

impl Epochs {
    /// Reads a folder.
    pub fn load(folder: &Path) -> Result<Self, EpochError> {
        let mut keys = Vec::new();
        for file in fs::read_dir(folder).map_err(FileError::io(folder))? {
            let path = file.map_err(FileError::io(folder))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                keys.push(Arc::new(read(&path)?));
            }
        }
        keys.sort_by_key(|key| key.entry.version);
        Ok(Self(keys))
    }

    /// The key under which tokens are issued: the newest whose time has come, unless that is over.
    pub fn current(&self, now: u64) -> Option<&Arc<EpochKey>> {
        self.0.iter().rfind(|key| key.not_before <= now).filter(|key| now < key.not_after)
    }

    /// All of them.
    pub fn all(&self) -> &[Arc<EpochKey>] {
        &self.0
    }

    /// Makes the key of the epoch that holds `now`, or of the one after the newest key's; gives the file of its entry.
    pub fn add(folder: &Path, name: &Name, schedule: Schedule, now: u64) -> Result<PathBuf, EpochError> {
        let Schedule { epoch_hours, overlap_hours } = schedule;
        if !EPOCH_HOURS.contains(&epoch_hours) || overlap_hours >= epoch_hours {
            return Err(EpochError::Hours);
        }
        let (epoch, overlap) = (epoch_hours * 3600, overlap_hours * 3600);
        let known = Self::load(folder)?;
        let newest = known.0.last();
        if newest.is_some_and(|newest| newest.not_before > now) {
            return Err(EpochError::Early);
        }
        // The first epoch that starts with `now` or before, and is after the newest key's.
        let this = now / epoch * epoch;
        let not_before = match newest {
            Some(newest) if newest.not_before >= this => this + epoch,
            _ => this,
        };
        let number = newest.map_or(1, |newest| newest.entry.version.parts()[0] + 1);
        let signing =
            SigningKey::generate().map_err(|source| EpochError::Key { path: folder.into(), source })?;
        let key = signing.public().spki().to_vec();
        let entry = Entry {
            name: name.clone(),
            role: issuer_role(),
            version: Version::new(number, 0, 0),
            previous: None,
            subject: Subject::IssuerKey(PublicKey {
                key,
                not_before,
                not_after: not_before + epoch + overlap,
            }),
        };
        let (pem, json) = (folder.join(format!("{number}.pem")), folder.join(format!("{number}.json")));
        let bytes = signing.to_pem().map_err(|source| EpochError::Key { path: pem.clone(), source })?;
        let text = serde_json::to_vec_pretty(&entry).map_err(|error| FileError::format(&json, error))?;
        file::replace(&pem, &bytes).map_err(FileError::io(&pem))?;
        file::create(&json, &text).map_err(FileError::io(&json))?;
        Ok(json)
    }
}

fn issuer_role() -> Name {
    ISSUER_ROLE.parse().expect("a name")
}

fn read(json: &Path) -> Result<EpochKey, EpochError> {
    let format = |problem: String| EpochError::from(FileError::format(json, problem));
    let text = fs::read(json).map_err(FileError::io(json))?;
    let entry: Entry = serde_json::from_slice(&text).map_err(|error| format(error.to_string()))?;
    let Subject::IssuerKey(PublicKey { key, not_before, not_after }) = &entry.subject else {
        return Err(format("not the entry of an issuer's key".into()));
    };
    let (not_before, not_after) = (*not_before, *not_after);
    let pem = json.with_extension("pem");
    let secret = Zeroizing::new(fs::read(&pem).map_err(FileError::io(&pem))?);
    let signing = SigningKey::from_pem(&secret).map_err(|source| EpochError::Key { path: pem, source })?;
    if signing.public().spki() != key {
        return Err(format("the private key beside it is another one".into()));
    }
    Ok(EpochKey { signing, not_before, not_after, entry })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c2_epochs_start_at_the_same_hours_for_all_and_overlap() {
        let folder = tempfile::tempdir().unwrap();
        let name: Name = "issuer.example".parse().unwrap();
        let schedule = Schedule { epoch_hours: 24, overlap_hours: 6 };
        let (hour, day) = (3600, 24 * 3600);
        let now = 20_000 * day + 5 * hour;
        let add = |now| Epochs::add(folder.path(), &name, schedule, now);
        add(now).unwrap();
        add(now).unwrap();
        assert!(matches!(add(now), Err(EpochError::Early)));
        let epochs = Epochs::load(folder.path()).unwrap();
        let times: Vec<_> = epochs.all().iter().map(|key| (key.not_before, key.not_after)).collect();
        assert_eq!(
            times,
            [(20_000 * day, 20_001 * day + 6 * hour), (20_001 * day, 20_002 * day + 6 * hour),]
        );
        let version = |now| epochs.current(now).map(|key| key.entry.version.parts()[0]);
        assert_eq!(version(20_000 * day - 1), None);
        assert_eq!(version(20_000 * day), Some(1));
        assert_eq!(version(20_001 * day - 1), Some(1));
        // Both keys' tokens are good now, and only the newer one issues.
        assert_eq!(version(20_001 * day), Some(2));
        assert_eq!(version(20_002 * day + 6 * hour), None);
        let bad = Schedule { epoch_hours: 6, overlap_hours: 6 };
        assert!(matches!(Epochs::add(folder.path(), &name, bad, now), Err(EpochError::Hours)));
        assert!(epochs.all().iter().all(|key| key.entry.encode().is_ok()));

        fs::copy(folder.path().join("1.pem"), folder.path().join("2.pem")).unwrap();
        assert!(matches!(Epochs::load(folder.path()), Err(EpochError::File(FileError::Format { .. }))));
    }
}
