//! What a witness remembers, and when it signs.
//!
//! For each log one file holds the last checkpoint that was cosigned. It is durable before the cosignature leaves, and
//! read, compared and replaced under one lock, so a witness never signs two checkpoints that do not follow each other:
//! not in a race, and not after a crash.

use super::request::Request;
use crate::checkpoint::{CheckpointError, SignedBy, SignedCheckpoint};
use crate::key::{Algorithm, CryptoFailed, SignerKey, VerifierKey};
use crate::log::config::{ConfigError, read_key};
use crate::log::store::Lock;
use crate::merkle::verify_consistency;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A log that is watched.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchedLog {
    /// Its origin line.
    pub origin: String,
    /// Its keys; one of them must have signed.
    pub keys: Vec<VerifierKey>,
}

/// `witness.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Files with its private keys; relative to this file.
    pub keys: Vec<PathBuf>,
    /// Folder of its memory; relative to this file. Whoever sets it back makes the witness worthless.
    pub state: PathBuf,
    /// The logs.
    #[serde(rename = "log", default)]
    pub logs: Vec<WatchedLog>,
}

/// Why a witness cannot work. It signs nothing then.
#[derive(Debug, thiserror::Error)]
pub enum WitnessStateError {
    /// The configuration or a key.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key that signs something else than cosignatures, or keys of several names.
    #[error(
        "a witness's keys must bear one name and sign cosignatures; make them with `cloister-witness init`"
    )]
    Key,
    /// Reading or writing its memory.
    #[error("cannot read or write {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Its memory is damaged.
    #[error("{path} is damaged, so this witness no longer knows what it signed: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: CheckpointError,
    },
    /// Another process uses its memory.
    #[error("another process uses the memory in {0}; a witness runs once")]
    Running(PathBuf),
    /// Signing failed.
    #[error(transparent)]
    Crypto(#[from] CryptoFailed),
}

/// What a witness answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";

impl Answer {
    fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: TEXT, body: body.into() }
    }
}

/// A witness.
#[derive(Debug)]
pub struct Witness {
    keys: Vec<SignerKey>,
    logs: BTreeMap<String, Vec<VerifierKey>>,
    state: PathBuf,
    /// Held while a checkpoint is compared, signed and remembered.
    signing: Mutex<()>,
    _lock: Lock,
}

impl Witness {
    /// Reads `witness.toml` and what it names.
    pub fn load(path: &Path) -> Result<Self, WitnessStateError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.into(), source })?;
        let config: WitnessConfig = toml::from_str(&text)
            .map_err(|error| ConfigError::Format { path: path.into(), problem: error.to_string() })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let keys =
            config.keys.iter().map(|key| read_key(&folder.join(key))).collect::<Result<Vec<_>, _>>()?;
        Self::new(keys, config.logs, &folder.join(config.state))
    }

    /// A witness with these keys and logs, and its memory in `state`.
    pub fn new(keys: Vec<SignerKey>, logs: Vec<WatchedLog>, state: &Path) -> Result<Self, WitnessStateError> {
        let name = keys.first().ok_or(WitnessStateError::Key)?.public().name();
        let cosigner =
            |key: &SignerKey| key.public().name() == name && key.public().algorithm() != Algorithm::Ed25519;
        if !keys.iter().all(cosigner) {
            return Err(WitnessStateError::Key);
        }
        let failed = |source| WitnessStateError::File { path: state.into(), source };
        fs::create_dir_all(state).map_err(failed)?;
        let lock = Lock::take(state).map_err(failed)?;
        let lock = lock.ok_or_else(|| WitnessStateError::Running(state.into()))?;
        let logs = logs.into_iter().map(|log| (log.origin, log.keys)).collect();
        Ok(Self { keys, logs, state: state.into(), signing: Mutex::new(()), _lock: lock })
    }

    /// Its public keys.
    pub fn public_keys(&self) -> impl Iterator<Item = &VerifierKey> {
        self.keys.iter().map(SignerKey::public)
    }

    /// Answers an `add-checkpoint` request; `now` is in seconds since 1970.
    pub fn add_checkpoint(&self, body: &[u8], now: u64) -> Result<Answer, WitnessStateError> {
        let request = match Request::parse(body) {
            Ok(request) => request,
            Err(error) => return Ok(Answer::new(400, format!("{error}\n"))),
        };
        let signed = &request.signed;
        let checkpoint = &signed.checkpoint;
        let Some(keys) = self.logs.get(&checkpoint.origin) else {
            return Ok(Answer::new(404, "this witness does not watch this log\n"));
        };
        let outcomes: Vec<SignedBy> = keys.iter().map(|key| signed.signed_by(key)).collect();
        if outcomes.iter().any(|outcome| matches!(outcome, SignedBy::Wrong | SignedBy::Repeated)) {
            return Ok(Answer::new(403, "invalid signature by a key of the log\n"));
        }
        if !outcomes.iter().any(|outcome| matches!(outcome, SignedBy::Signed(_))) {
            return Ok(Answer::new(403, "no signature by a key of the log\n"));
        }

        // A poisoned lock is one whose holder panicked: what it left in the file is whole, as every replacement is.
        let _signing = self.signing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let last = self.last(&checkpoint.origin)?;
        let (size, root) = last
            .as_ref()
            .map_or((0, crate::merkle::empty_root()), |l| (l.checkpoint.size, l.checkpoint.root));
        if request.old != size {
            let body = format!("{size}\n");
            return Ok(Answer { status: 409, content_type: "text/x.tlog.size", body });
        }
        let new = (checkpoint.size, &checkpoint.root);
        if verify_consistency((size, &root), new, &request.proof).is_err() {
            return Ok(Answer::new(422, "the consistency proof does not hold\n"));
        }
        let mut cosignatures = Vec::new();
        for key in &self.keys {
            cosignatures.push(checkpoint.sign(key, now)?);
        }
        let body = cosignatures.iter().map(crate::note::Signature::line).collect::<String>();
        let kept = signed.signatures.iter().filter(|line| keys.iter().any(|key| line.claims(key)));
        let signatures = kept.cloned().chain(cosignatures).collect();
        let remembered = SignedCheckpoint { checkpoint: checkpoint.clone(), signatures };
        self.remember(&checkpoint.origin, &remembered)?;
        Ok(Answer::new(200, body))
    }

    /// Answers a request for the last cosigned checkpoint of the log whose origin has this hash in lower-case hex.
    pub fn checkpoint(&self, origin_hash: &str) -> Result<Answer, WitnessStateError> {
        let origin = self.logs.keys().find(|origin| hash(origin) == origin_hash);
        let last = match origin {
            Some(origin) => self.last(origin)?,
            None => None,
        };
        Ok(match last {
            Some(last) => Answer::new(200, last.encode()),
            None => Answer::new(404, "this witness has cosigned no checkpoint of this log\n"),
        })
    }

    fn last(&self, origin: &str) -> Result<Option<SignedCheckpoint>, WitnessStateError> {
        let path = self.state.join(hash(origin));
        match fs::read(&path) {
            Ok(bytes) => SignedCheckpoint::parse(&bytes)
                .map(Some)
                .map_err(|problem| WitnessStateError::Damaged { path, problem }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(WitnessStateError::File { path, source }),
        }
    }

    /// Replaces the memory of a log; durable when this returns.
    fn remember(&self, origin: &str, signed: &SignedCheckpoint) -> Result<(), WitnessStateError> {
        let path = self.state.join(hash(origin));
        let new = path.with_extension("new");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(signed.encode().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.state)?.sync_all()
        });
        written.map_err(|source| WitnessStateError::File { path, source })
    }
}

fn hash(origin: &str) -> String {
    hex::encode(Sha256::digest(origin))
}
