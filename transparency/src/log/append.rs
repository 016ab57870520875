//! The one writer of a log.

use super::config::Config;
use super::reader::{ReadError, Reader, statements_path};
use super::store::{Lock, Seen, Store, StoreError};
use crate::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use crate::entry::{Entry, EntryError, Kind, Revocations, Revoked, Subject, Version};
use crate::key::{CryptoFailed, SignerKey};
use crate::merkle::{Hash, leaf_hash};
use crate::note::Note;
use crate::tile::{Row, Tile, WIDTH, push_entry};
use crate::tree::Edge;
use crate::verify::CLOCK_SKEW;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The last signed checkpoint and what the next entries must follow. Not part of what is served.
const STATE: &str = "state/signed.json";
/// Name and role of the lists of revocations.
pub const REVOCATIONS: (&str, &str) = ("revocations", "log");

/// Why nothing was appended. The log is as it was.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Reading or writing its files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its files are not as they must be.
    #[error("the log's files are damaged: {0}")]
    Damaged(String),
    /// There is a log already.
    #[error("there is a log in this place already; give another one, or append to it")]
    Exists,
    /// There is no log.
    #[error("there is no log in this place; make one with `cloister-log init`")]
    NoLog,
    /// The log is another's.
    #[error("the log in this place is {found:?} and not {expected:?}")]
    Origin {
        /// What the configuration says.
        expected: String,
        /// What the log says.
        found: String,
    },
    /// The entry is not one.
    #[error("{0}")]
    Entry(#[from] EntryError),
    /// The version is not higher than the last one.
    #[error("{name} has version {last} in the log already; a new entry needs a higher one than {found}")]
    Version {
        /// Kind, name and role.
        name: String,
        /// The newest version in the log.
        last: Version,
        /// The entry's.
        found: Version,
    },
    /// It names another entry before it than the log has.
    #[error("the entry of {0} names another entry before it than the log has")]
    Previous(String),
    /// The list of revocations leaves something out, or is not the next one.
    #[error(
        "a list of revocations must be the next one, be made now, and hold everything that the one before it holds"
    )]
    Revocations,
    /// Signing failed.
    #[error(transparent)]
    Crypto(#[from] CryptoFailed),
}

impl From<ReadError> for AppendError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => Self::Store(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// The newest entry of a kind, name and role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Latest {
    version: Version,
    index: u64,
    #[serde(with = "hex::serde")]
    leaf: Hash,
}

#[derive(Debug, Serialize, Deserialize)]
struct StateFile {
    checkpoint: String,
    /// Who holds the log where no lock keeps others out: a number that nobody else has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writer: Option<String>,
    latest: BTreeMap<String, Latest>,
}

/// An entry that was appended and is covered by a signed checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Its index.
    pub index: u64,
    /// Its leaf's hash.
    pub leaf: Hash,
}

/// The one writer of a log. While it lives, no other one of this machine opens the log; in an object store, a second
/// writer's first checkpoint fails.
#[derive(Debug)]
pub struct Writer {
    pub(super) store: Store,
    pub(super) config: Config,
    _lock: Option<Lock>,
    seen: Seen,
    pub(super) signed: SignedCheckpoint,
    latest: BTreeMap<String, Latest>,
    edge: Edge,
    /// The bundle of the entries after the last full one.
    tail: Vec<u8>,
    /// Partial tiles that are not needed once the newest checkpoint is published.
    pub(super) obsolete: Vec<String>,
    /// A write failed, so memory may not be what the files say.
    stale: bool,
    /// This writer was the last one to write the signed state, so that no other can sign.
    holds: bool,
}

impl Writer {
    /// Starts a log with an empty list of revocations. `now` is in seconds since 1970.
    pub async fn create(config: Config, now: u64) -> Result<Self, AppendError> {
        let lock = config.store.lock()?;
        let seen = match config.store.see(STATE).await? {
            None => Seen::default(),
            // Somebody began and has signed nothing yet, or never will: the last one to begin goes on.
            Some((state, seen)) if parse_state(&state)?.1.checkpoint.size == 0 => seen,
            Some(_) => return Err(AppendError::Exists),
        };
        let signed = sign(&config.keys, config.trust.origin(), &Edge::default(), now)?;
        let mut writer = Self {
            store: config.store.clone(),
            config,
            _lock: lock,
            seen,
            signed,
            latest: BTreeMap::new(),
            edge: Edge::default(),
            tail: Vec::new(),
            obsolete: Vec::new(),
            stale: false,
            holds: false,
        };
        let first = Revocations { number: 0, issued: now, revoked: Vec::new() };
        writer.append_at(vec![(list_entry(first), None)], now).await?;
        Ok(writer)
    }

    /// Opens a log at its last signed checkpoint, whatever happened to its last writer.
    pub async fn open(config: Config) -> Result<Self, AppendError> {
        let lock = config.store.lock()?;
        let (state, seen) = config.store.see(STATE).await?.ok_or(AppendError::NoLog)?;
        let (state, signed) = parse_state(&state)?;
        let Checkpoint { origin, size, root, .. } = &signed.checkpoint;
        if *size == 0 {
            return Err(AppendError::NoLog);
        }
        if origin != config.trust.origin() {
            let (expected, found) = (config.trust.origin().into(), origin.clone());
            return Err(AppendError::Origin { expected, found });
        }
        let reader = Reader::Store(config.store.clone());
        let edge = Edge::read(*size, &reader).await?;
        if edge.root() != *root {
            return Err(AppendError::Damaged(
                "the tiles have another root than the signed checkpoint".into(),
            ));
        }
        let mut tail = Vec::new();
        if let Ok(bundle) = Tile::in_tree(Row::Entries, size / WIDTH as u64, *size) {
            let entries = reader.entries(bundle).await?;
            if !entries.iter().map(|entry| leaf_hash(entry)).eq(edge.leaves().iter().copied()) {
                return Err(AppendError::Damaged(ReadError::Entries(bundle.path()).to_string()));
            }
            entries.iter().for_each(|entry| push_entry(&mut tail, entry));
        }
        Ok(Self {
            store: config.store.clone(),
            config,
            _lock: lock,
            seen,
            signed,
            latest: state.latest,
            edge,
            tail,
            obsolete: Vec::new(),
            stale: false,
            holds: false,
        })
    }

    /// The last signed checkpoint. It need not be published yet.
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.signed.checkpoint
    }

    /// The configuration.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Index of the newest entry of a kind, name and role.
    pub fn newest(&self, kind: Kind, name: &str, role: &str) -> Option<u64> {
        self.latest.get(&key(kind, name, role)).map(|latest| latest.index)
    }

    /// Appends entries as one batch and signs a checkpoint over them. `previous` may be left out. Publish it with
    /// [`Writer::publish`].
    pub async fn append(&mut self, entries: Vec<Entry>) -> Result<Vec<Signed>, AppendError> {
        self.append_at(entries.into_iter().map(|entry| (entry, None)).collect(), unix_now()).await
    }

    /// Like [`Writer::append`], and keeps what others signed about the entry beside the log's files, see
    /// [`Reader::statements`]. It is durable before the entry is signed.
    pub async fn append_vouched(
        &mut self,
        entry: Entry,
        statements: &Note,
    ) -> Result<Vec<Signed>, AppendError> {
        self.append_at(vec![(entry, Some(statements.encode()))], unix_now()).await
    }

    /// Appends the next list of revocations: all that was revoked so far, and these.
    pub async fn revoke(&mut self, more: Vec<Revoked>) -> Result<Vec<Signed>, AppendError> {
        let mut list = self.revocations().await?;
        for revoked in more {
            if list.revoked.iter().all(|known| known.leaf != revoked.leaf) {
                list.revoked.push(revoked);
            }
        }
        list.revoked.sort_by_key(|revoked| revoked.leaf);
        let next = Revocations { number: list.number + 1, issued: unix_now(), revoked: list.revoked };
        self.append(vec![list_entry(next)]).await
    }

    /// The newest list of revocations.
    pub async fn revocations(&self) -> Result<Revocations, AppendError> {
        let (name, role) = REVOCATIONS;
        let missing = || AppendError::Damaged("it has no list of revocations".into());
        let index = self.newest(Kind::Revocations, name, role).ok_or_else(missing)?;
        let reader = Reader::Store(self.store.clone());
        let entry = reader.entry(index, self.signed.checkpoint.size).await?;
        match Entry::decode(&entry)?.subject {
            Subject::Revocations(list) => Ok(list),
            _ => Err(missing()),
        }
    }

    async fn append_at(
        &mut self,
        entries: Vec<(Entry, Option<String>)>,
        now: u64,
    ) -> Result<Vec<Signed>, AppendError> {
        if self.stale {
            self.reread().await?;
        }
        let (mut edge, mut tail, mut latest) = (self.edge.clone(), self.tail.clone(), BTreeMap::new());
        let (mut files, mut appended) = (Vec::new(), Vec::with_capacity(entries.len()));
        for (mut entry, statements) in entries {
            let key = key(entry.kind(), &entry.name, &entry.role);
            let last = latest.get(&key).or_else(|| self.latest.get(&key));
            self.follows(&key, &mut entry, last, now).await?;
            let bytes = entry.encode()?;
            let (index, leaf) = (edge.size(), leaf_hash(&bytes));
            files.extend(statements.map(|text| (statements_path(&leaf), text.into_bytes())));
            push_entry(&mut tail, &bytes);
            edge.push(leaf, |tile, hashes| {
                files.push((tile.path(), hashes.as_flattened().to_vec()));
                if tile.row == Row::Hashes(0) {
                    let bundle = Tile { row: Row::Entries, ..tile };
                    files.push((bundle.path(), std::mem::take(&mut tail)));
                }
            });
            latest.insert(key, Latest { version: entry.version, index, leaf });
            appended.push(Signed { index, leaf });
        }
        for (tile, hashes) in edge.partial().filter(|new| !self.edge.partial().any(|old| old == *new)) {
            files.push((tile.path(), hashes.as_flattened().to_vec()));
            if tile.row == Row::Hashes(0) {
                files.push((Tile { row: Row::Entries, ..tile }.path(), tail.clone()));
            }
        }
        // Nobody else can sign from here on, so nobody's tiles but these will count.
        if self.store.is_shared() && !self.holds {
            self.write_state(self.signed.encode(), self.latest.clone()).await?;
        }
        // Durable before it is signed, and signed before anyone sees it.
        self.store.write_once(files, (STATE, &self.seen)).await?;
        let signed = sign(&self.config.keys, self.config.trust.origin(), &edge, now)?;
        let added = latest.clone();
        let mut all = self.latest.clone();
        all.extend(latest);
        self.write_state(signed.encode(), all).await?;
        self.retire(&edge);
        self.latest.extend(added);
        (self.edge, self.tail, self.signed) = (edge, tail, signed);
        Ok(appended)
    }

    /// Writes the signed state, if it is still the one that this writer saw last.
    async fn write_state(
        &mut self,
        checkpoint: String,
        latest: BTreeMap<String, Latest>,
    ) -> Result<(), AppendError> {
        let mut number = [0; 16];
        SystemRandom::new().fill(&mut number).map_err(|_| CryptoFailed)?;
        let writer = self.store.is_shared().then(|| hex::encode(number));
        let state = serde_json::to_vec(&StateFile { checkpoint, writer, latest })
            .map_err(|error| AppendError::Damaged(error.to_string()))?;
        // Whether a failed replacement happened cannot be known, so the files are asked before the next one.
        (self.stale, self.holds) = (true, false);
        self.seen = self.store.replace(STATE, &self.seen, state).await?;
        (self.stale, self.holds) = (false, true);
        Ok(())
    }

    /// Remembers the partial tiles that full ones of the new edge replace.
    fn retire(&mut self, edge: &Edge) {
        for (tile, _) in self.edge.partial() {
            let rows = [Some(tile.row), (tile.row == Row::Hashes(0)).then_some(Row::Entries)];
            for row in rows.into_iter().flatten() {
                if Tile::in_tree(row, tile.index, edge.size()).is_ok_and(|now| now.width == WIDTH) {
                    self.obsolete.push(Tile { row, ..tile.full() }.path() + ".p");
                }
            }
        }
    }

    async fn reread(&mut self) -> Result<(), AppendError> {
        let (state, seen) = self.store.see(STATE).await?.ok_or(AppendError::NoLog)?;
        let (state, _) = parse_state(&state)?;
        if state.checkpoint != self.signed.encode() {
            // It did happen, or somebody else wrote: either way this writer's memory is of the past.
            return Err(StoreError::AnotherWriter.into());
        }
        (self.seen, self.stale) = (seen, false);
        Ok(())
    }

    /// Whether an entry may follow the last one of its name; fills in which that is.
    async fn follows(
        &self,
        key: &str,
        entry: &mut Entry,
        last: Option<&Latest>,
        now: u64,
    ) -> Result<(), AppendError> {
        if let Some(last) = last
            && entry.version <= last.version
        {
            let (name, last) = (key.to_owned(), last.version);
            return Err(AppendError::Version { name, last, found: entry.version });
        }
        let previous = last.map(|last| last.leaf);
        if entry.previous.is_some() && entry.previous != previous {
            return Err(AppendError::Previous(key.into()));
        }
        entry.previous = previous;
        if let Subject::Revocations(list) = &entry.subject {
            let own = (&*entry.name, &*entry.role) == REVOCATIONS;
            let on_time = list.issued.abs_diff(now) <= CLOCK_SKEW;
            let follows = match last {
                None => list.number == 0,
                Some(_) => {
                    let before = self.revocations().await?;
                    list.number == before.number + 1
                        && before.revoked.iter().all(|known| list.revoked.contains(known))
                }
            };
            if !own || !on_time || !follows {
                return Err(AppendError::Revocations);
            }
        }
        Ok(())
    }
}

fn parse_state(bytes: &[u8]) -> Result<(StateFile, SignedCheckpoint), AppendError> {
    let damaged = |what: String| AppendError::Damaged(format!("{STATE}: {what}"));
    let state: StateFile = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    let signed = SignedCheckpoint::parse(state.checkpoint.as_bytes())
        .map_err(|error: CheckpointError| damaged(error.to_string()))?;
    Ok((state, signed))
}

fn key(kind: Kind, name: &str, role: &str) -> String {
    format!("{kind}/{name}/{role}")
}

/// A list as an entry; its version is its number.
fn list_entry(list: Revocations) -> Entry {
    let (name, role) = REVOCATIONS;
    let name_of = |text: &str| text.parse().expect("the names of the lists are names");
    let version = Version::new(1, (list.number >> 32) as u32, list.number as u32);
    Entry {
        name: name_of(name),
        role: name_of(role),
        version,
        previous: None,
        subject: Subject::Revocations(list),
    }
}

fn sign(keys: &[SignerKey], origin: &str, edge: &Edge, now: u64) -> Result<SignedCheckpoint, CryptoFailed> {
    let checkpoint =
        Checkpoint { origin: origin.into(), size: edge.size(), root: edge.root(), extension: String::new() };
    let signatures = keys.iter().map(|key| checkpoint.sign(key, now)).collect::<Result<_, _>>()?;
    Ok(SignedCheckpoint { checkpoint, signatures })
}

/// Seconds since 1970; 0 if the clock is before that.
pub fn unix_now() -> u64 {
    crate::verify::seconds(std::time::SystemTime::now()).unwrap_or(0)
}
