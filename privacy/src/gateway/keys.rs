//! The gateway's secret keys in a folder, one file each, and their rotation.
//!
//! A new key is made beside the old ones. Clients learn of it through its entry in the log; requests for the old key are
//! accepted until its file is gone. `rotate` keeps a number of keys, so that their lives overlap.

use crate::ohttp::{Kem, SecretKey};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// Why keys cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file or the folder cannot be read or written.
    #[error("cannot read or write {path}: {source}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file is no key.
    #[error("{0} is no key that `cloister-gateway new-key` made")]
    Malformed(PathBuf),
    /// The folder has no key.
    #[error("{0} has no key; make one with `cloister-gateway new-key`")]
    None(PathBuf),
    /// The folder has as many keys as there are identifiers.
    #[error("{0} has a key for each of the 256 identifiers; remove old ones")]
    Full(PathBuf),
    /// The system gives no randomness.
    #[error("this system gives no randomness, so no key was made")]
    Random,
}

/// A key's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    key_id: u8,
    kem: KemName,
    /// Seconds since 1970 at which it was made: the newest is published first.
    made: u64,
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

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> KeysError {
    let path = path.to_owned();
    move |source| KeysError::File { path, source }
}

fn files(folder: &Path) -> Result<Vec<(PathBuf, u64, SecretKey)>, KeysError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(file_error(folder))? {
        let path = entry.map_err(file_error(folder))?.path();
        if path.extension().is_none_or(|extension| extension != "key") {
            continue;
        }
        let text = Zeroizing::new(fs::read_to_string(&path).map_err(file_error(&path))?);
        let malformed = || KeysError::Malformed(path.clone());
        let mut file: KeyFile = toml::from_str(&text).map_err(|_| malformed())?;
        let secret = hex::decode(&file.secret).map(Zeroizing::new);
        file.secret.zeroize();
        let key = secret.ok().and_then(|secret| SecretKey::new(file.key_id, file.kem.into(), secret));
        found.push((path.clone(), file.made, key.ok_or_else(malformed)?));
    }
    // The newest first; of two that were made in one second, the higher identifier.
    found.sort_by_key(|(_, made, key)| std::cmp::Reverse((*made, key.config().key_id)));
    Ok(found)
}

/// Reads the keys of a folder, the newest first.
pub fn load(folder: &Path) -> Result<Vec<SecretKey>, KeysError> {
    let keys: Vec<_> = files(folder)?.into_iter().map(|(_, _, key)| key).collect();
    if keys.is_empty() { Err(KeysError::None(folder.into())) } else { Ok(keys) }
}

/// Makes a key of identifier and file name that the folder does not have; `made` in seconds since 1970.
pub fn make(folder: &Path, kem: KemName, made: u64) -> Result<SecretKey, KeysError> {
    fs::create_dir_all(folder).map_err(file_error(folder))?;
    let known = files(folder)?;
    let taken = |id: u8| known.iter().any(|(_, _, key)| key.config().key_id == id);
    // The next after the newest, so that an identifier comes back as late as can be.
    let newest = known.first().map_or(u8::MAX, |(_, _, key)| key.config().key_id);
    let next = (1..=u8::MAX).map(|step| newest.wrapping_add(step)).find(|id| !taken(*id));
    let key_id = next.ok_or_else(|| KeysError::Full(folder.into()))?;
    let key = SecretKey::generate(key_id, kem.into()).map_err(|_| KeysError::Random)?;
    let path = folder.join(format!("{key_id:03}.key"));
    let file = KeyFile { key_id, kem, made, secret: hex::encode(key.secret()) };
    let text = Zeroizing::new(toml::to_string(&file).map_err(|_| KeysError::Malformed(path.clone()))?);
    let mut out =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(file_error(&path))?;
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(file_error(&path))?;
    Ok(key)
}

/// Removes all but the `keep` newest keys, and says which identifiers went.
pub fn retire(folder: &Path, keep: usize) -> Result<Vec<u8>, KeysError> {
    let old = files(folder)?.into_iter().skip(keep.max(1));
    old.map(|(path, _, key)| {
        fs::remove_file(&path).map_err(file_error(&path))?;
        Ok(key.config().key_id)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_kept_and_retired() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(load(folder.path()), Err(KeysError::None(_))));
        for made in 1..=3 {
            make(folder.path(), KemName::XWing, made).unwrap();
        }
        make(folder.path(), KemName::X25519, 4).unwrap();
        let ids = |keys: Vec<SecretKey>| keys.iter().map(|key| key.config().key_id).collect::<Vec<_>>();
        assert_eq!(ids(load(folder.path()).unwrap()), [3, 2, 1, 0]);
        assert_eq!(retire(folder.path(), 2).unwrap(), [1, 0]);
        assert_eq!(ids(load(folder.path()).unwrap()), [3, 2]);
        assert_eq!(make(folder.path(), KemName::XWing, 5).unwrap().config().key_id, 4);
        fs::write(folder.path().join("bad.key"), "key_id = 1").unwrap();
        assert!(matches!(load(folder.path()), Err(KeysError::Malformed(_))));
    }
}
