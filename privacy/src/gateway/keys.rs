//! The gateway's keys in a folder, and their rotation.
//!
//! A new key is made before the old one's time is over, and logged. Clients take the newest that is proven to them;
//! requests for the old one are answered until its time is over. Each key has two files: `N.key`, which is secret,
//! and `N.json`, the entry for the log.

use crate::file::{self, FileError};
use crate::keys::GATEWAY_ROLE;
use crate::ohttp::{Kem, SecretKey, encode_list};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use transparency::entry::{Entry, Name, PublicKey, Subject, Version};
use zeroize::{Zeroize, Zeroizing};

/// Seconds after a key's end for which requests for it are answered, for clocks that go wrong.
const LATE: u64 = 600;
/// Keys begin at full hours, so that their dates say nothing.
const HOUR: u64 = 3600;

/// Why keys cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file or the folder cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is no key.
    #[error("{0} is no key that `cloister-gateway new-key` made")]
    Malformed(PathBuf),
    /// The folder has no key whose time is now.
    #[error("{0} has no key whose time is now; make one with `cloister-gateway new-key`, and log it")]
    None(PathBuf),
    /// The system gives no randomness.
    #[error("this system gives no randomness, so no key was made")]
    Random,
}

/// A secret key's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    /// Its version in the log; the key's identifier is the lowest byte.
    number: u32,
    kem: KemName,
    /// In seconds since 1970.
    not_after: u64,
    secret: String,
}

/// A KEM's name in files and arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KemName {
    /// X25519.
    X25519,
    /// X-Wing, the hybrid post-quantum KEM.
    XWing,
}

impl From<KemName> for Kem {
    fn from(name: KemName) -> Self {
        match name {
            KemName::X25519 => Self::X25519,
            KemName::XWing => Self::XWing,
        }
    }
}

struct Known {
    path: PathBuf,
    number: u32,
    not_after: u64,
    key: SecretKey,
}

/// The folder's keys, the newest first.
fn known(folder: &Path) -> Result<Vec<Known>, KeysError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(FileError::io(folder))? {
        let path = entry.map_err(FileError::io(folder))?.path();
        if path.extension().is_none_or(|extension| extension != "key") {
            continue;
        }
        let text = Zeroizing::new(fs::read_to_string(&path).map_err(FileError::io(&path))?);
        let malformed = || KeysError::Malformed(path.clone());
        let mut file: KeyFile = toml::from_str(&text).map_err(|_| malformed())?;
        let secret = hex::decode(&file.secret).map(Zeroizing::new);
        file.secret.zeroize();
        let KeyFile { number, kem, not_after, .. } = file;
        let key = secret.ok().and_then(|secret| SecretKey::new(number as u8, kem.into(), secret));
        let key = key.ok_or_else(malformed)?;
        found.push(Known { path, number, not_after, key });
    }
    found.sort_by_key(|known| std::cmp::Reverse(known.number));
    Ok(found)
}

/// Reads the keys whose time is not over, the newest first; `now` in seconds since 1970.
pub fn load(folder: &Path, now: u64) -> Result<Vec<SecretKey>, KeysError> {
    let good = known(folder)?.into_iter().filter(|known| now < known.not_after.saturating_add(LATE));
    // Of identifiers that came round again, the newest counts.
    let keys: Vec<_> = good.take(256).map(|known| known.key).collect();
    if keys.is_empty() { Err(KeysError::None(folder.into())) } else { Ok(keys) }
}

/// Makes a key for `days` from this hour on, and gives the file of its entry for the log.
pub fn make(folder: &Path, name: &Name, kem: KemName, days: u32, now: u64) -> Result<PathBuf, KeysError> {
    fs::create_dir_all(folder).map_err(FileError::io(folder))?;
    let number = known(folder)?.first().map_or(1, |newest| newest.number + 1);
    let (path, json) = (folder.join(format!("{number}.key")), folder.join(format!("{number}.json")));
    let key = SecretKey::generate(number as u8, kem.into()).map_err(|_| KeysError::Random)?;
    let not_before = now / HOUR * HOUR;
    let not_after = not_before + u64::from(days) * 24 * HOUR;
    let public = PublicKey { key: encode_list([key.config()]), not_before, not_after };
    let entry = Entry {
        name: name.clone(),
        role: GATEWAY_ROLE.parse().map_err(|_| KeysError::Malformed(json.clone()))?,
        version: Version::new(number, 0, 0),
        previous: None,
        subject: Subject::OhttpKey(public),
    };
    let secret = KeyFile { number, kem, not_after, secret: hex::encode(key.secret()) };
    let text = Zeroizing::new(toml::to_string(&secret).map_err(|_| KeysError::Malformed(path.clone()))?);
    let entry = serde_json::to_vec_pretty(&entry).map_err(|_| KeysError::Malformed(json.clone()))?;
    file::create(&path, text.as_bytes()).map_err(FileError::io(&path))?;
    file::create(&json, &entry).map_err(FileError::io(&json))?;
    Ok(json)
}

/// Removes the keys whose time is over, and says which they were.
pub fn retire(folder: &Path, now: u64) -> Result<Vec<u32>, KeysError> {
    let old = known(folder)?.into_iter().filter(|known| now >= known.not_after.saturating_add(LATE));
    old.map(|known| {
        fs::remove_file(&known.path).map_err(FileError::io(&known.path))?;
        Ok(known.number)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_overlap_and_retire() {
        let (folder, name) = (tempfile::tempdir().unwrap(), "gateway.example".parse().unwrap());
        let folder = folder.path();
        let day = 24 * HOUR;
        assert!(matches!(load(folder, 0), Err(KeysError::None(_))));
        let entry = make(folder, &name, KemName::XWing, 7, 10).unwrap();
        make(folder, &name, KemName::X25519, 7, 6 * day + 10).unwrap();
        let ids = |now| {
            load(folder, now).map(|keys| keys.iter().map(|key| key.config().key_id).collect::<Vec<_>>())
        };
        assert_eq!(ids(0).unwrap(), [2, 1]);
        assert_eq!(ids(7 * day + LATE - 1).unwrap(), [2, 1]);
        assert_eq!(ids(7 * day + LATE).unwrap(), [2]);
        assert!(matches!(ids(14 * day), Err(KeysError::None(_))));
        assert_eq!(retire(folder, 7 * day + LATE).unwrap(), [1]);
        assert_eq!(ids(0).unwrap(), [2]);

        let entry: Entry = serde_json::from_slice(&fs::read(entry).unwrap()).unwrap();
        let Subject::OhttpKey(public) = &entry.subject else { panic!("of another kind") };
        assert_eq!((public.not_before, public.not_after), (0, 7 * day));
        assert_eq!(crate::ohttp::decode_list(&public.key).unwrap()[0].key_id, 1);
        assert!(entry.encode().is_ok());

        fs::write(folder.join("bad.key"), "number = 1").unwrap();
        assert!(matches!(load(folder, 0), Err(KeysError::Malformed(_))));
    }
}
