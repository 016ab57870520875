//! A log's configuration: `log.toml`.

use super::store::{Store, StoreError};
use crate::key::{Algorithm, KeyError, SignerKey, VerifierKey};
use crate::trust::{Trust, TrustError, TrustFile, Witness};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A witness that the log asks for cosignatures.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessAt {
    /// Its submission prefix (C2SP tlog-witness).
    pub url: url::Url,
    /// Its keys.
    pub keys: Vec<VerifierKey>,
}

/// The file as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// The log's origin line: by custom its URL without a scheme.
    pub origin: String,
    /// Files with its private keys; relative to this file.
    pub keys: Vec<PathBuf>,
    /// Where its files are: a folder, relative to this file, or a URL such as `s3://bucket/prefix`.
    pub storage: String,
    /// Witnesses that must have cosigned before a checkpoint is published.
    pub threshold: usize,
    /// The witnesses.
    #[serde(rename = "witness", default)]
    pub witnesses: Vec<WitnessAt>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read or written.
    #[error("cannot read or write {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The text is not a configuration.
    #[error("{path} is not as it must be: {problem}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A key file.
    #[error("{path}: {source}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// Witnesses, threshold or keys that no client could use.
    #[error("the log's configuration cannot be used: {0}")]
    Trust(#[from] TrustError),
    /// The files.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A log that can be written to.
#[derive(Debug)]
pub struct Config {
    /// Its files.
    pub store: Store,
    /// Its keys; the first one is plain Ed25519.
    pub keys: Vec<SignerKey>,
    /// Where its witnesses are.
    pub witnesses: Vec<WitnessAt>,
    /// What its clients should be told to trust; it accepts no name yet.
    pub trust: Trust,
}

/// Reads a key file.
pub fn read_key(path: &Path) -> Result<SignerKey, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.into(), source })?;
    SignerKey::from_secret_text(&text).map_err(|source| ConfigError::Key { path: path.into(), source })
}

/// Makes a key and writes it to a new file that only its owner can read.
pub fn write_key(path: &Path, name: &str, algorithm: Algorithm) -> Result<SignerKey, ConfigError> {
    use std::os::unix::fs::OpenOptionsExt;
    let key = SignerKey::generate(name, algorithm)
        .map_err(|source| ConfigError::Key { path: path.into(), source })?;
    let written =
        fs::File::options().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
            file.write_all(key.to_secret_text().as_bytes())?;
            file.sync_all()
        });
    written.map_err(|source| ConfigError::File { path: path.into(), source })?;
    Ok(key)
}

impl ConfigFile {
    /// Makes a new log's keys and configuration in `folder`: Ed25519, and ML-DSA-44 beside it.
    pub fn create(
        folder: &Path,
        origin: &str,
        storage: &str,
        witnesses: Vec<WitnessAt>,
        threshold: usize,
    ) -> Result<Config, ConfigError> {
        let path = folder.join("log.toml");
        let failed = |source| ConfigError::File { path: path.clone(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let mut keys = Vec::new();
        let files = [("ed25519.key", Algorithm::Ed25519), ("ml-dsa-44.key", Algorithm::CosignatureMlDsa44)];
        // What cannot be used is found before any key is made.
        let probe = SignerKey::generate(origin, Algorithm::Ed25519).map_err(|_| TrustError::Origin)?;
        trust(origin, vec![probe.public().clone()], &witnesses, threshold)?;
        for (file, algorithm) in files {
            write_key(&folder.join(file), origin, algorithm)?;
            keys.push(file.into());
        }
        let file = Self { origin: origin.into(), keys, storage: storage.into(), threshold, witnesses };
        let text = toml::to_string_pretty(&file)
            .map_err(|error| ConfigError::Format { path: path.clone(), problem: error.to_string() })?;
        fs::write(&path, text).map_err(failed)?;
        Config::load(&path)
    }
}

fn trust(
    origin: &str,
    keys: Vec<VerifierKey>,
    witnesses: &[WitnessAt],
    threshold: usize,
) -> Result<Trust, TrustError> {
    let file = TrustFile {
        witnesses: witnesses.iter().map(|witness| Witness { keys: witness.keys.clone() }).collect(),
        ..TrustFile::new(origin.into(), keys, threshold)
    };
    file.try_into()
}

impl Config {
    /// Reads a `log.toml` and the keys that it names.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.into(), source })?;
        let format = |problem: String| ConfigError::Format { path: path.into(), problem };
        let file: ConfigFile = toml::from_str(&text).map_err(|error| format(error.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let keys = file.keys.iter().map(|key| read_key(&folder.join(key))).collect::<Result<Vec<_>, _>>()?;
        if keys.first().is_none_or(|key| key.public().algorithm() != Algorithm::Ed25519) {
            return Err(format("the first key must be an Ed25519 key (C2SP tlog-tiles)".into()));
        }
        let public = keys.iter().map(|key| key.public().clone()).collect();
        let trust = trust(&file.origin, public, &file.witnesses, file.threshold)?;
        let store = match file.storage.contains("://") {
            true => Store::url(&file.storage.parse().map_err(|error| format(format!("storage: {error}")))?)?,
            false => Store::folder(&folder.join(&file.storage))?,
        };
        Ok(Self { store, keys, witnesses: file.witnesses, trust })
    }
}
