//! A monitor follows a log: it reads every entry, checks that the log only ever grows, and reports what is new.
//!
//! It remembers the right edge of the tree that it has read. What it reads next must, added to that edge, have the root
//! that the log's new checkpoint states: this proves consistency and that every entry was seen, in one step.

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::entry::{Entry, Kind, Revoked, Subject, Version};
use crate::log::reader::{ReadError, Reader};
use crate::merkle::{Hash, leaf_hash};
use crate::tile::{Row, Tile, WIDTH};
use crate::tree::Edge;
use crate::trust::Trust;
use crate::verify::{CheckpointRefused, verify_signatures};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most keys of one party that may be good at one time: one in use, and the one before it while it ends.
pub const MAX_KEYS_IN_USE: usize = 2;

/// Why the log could not be followed. [`MonitorError::is_misbehaviour`] says whether to raise the alarm.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its checkpoint is not signed as it must be.
    #[error("the log's checkpoint: {0}")]
    Refused(#[from] CheckpointRefused),
    /// It is smaller than it was.
    #[error("the log had {seen} entries and now shows {size}: it was set back")]
    SetBack {
        /// What was seen before.
        seen: u64,
        /// What it shows now.
        size: u64,
    },
    /// It shows another history.
    #[error(
        "the log's {size} entries do not have the root that its checkpoint states, after the {seen} that were read before: history was changed"
    )]
    Forked {
        /// What was seen before.
        seen: u64,
        /// What it shows now.
        size: u64,
    },
    /// The monitor's memory is damaged.
    #[error("the monitor's memory cannot be used: {0}")]
    Memory(String),
}

impl MonitorError {
    /// True for what no honest log does; the two checkpoints prove it.
    pub const fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::SetBack { .. } | Self::Forked { .. })
    }
}

/// The newest entry of a kind, name and role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Newest {
    version: Version,
    #[serde(with = "hex::serde")]
    leaf: Hash,
}

/// What a monitor remembers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    checkpoint: Option<String>,
    rows: Vec<Vec<String>>,
    newest: BTreeMap<String, Newest>,
    /// Of each party's keys, the times that have not ended before the newest one's began.
    #[serde(default)]
    key_times: BTreeMap<String, Vec<(u64, u64)>>,
    revocations: Option<u64>,
    revoked: Vec<Revoked>,
}

/// A new entry.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its index.
    pub index: u64,
    /// Its leaf's hash.
    #[serde(with = "hex::serde")]
    pub leaf: Hash,
    /// The entry, if it is one.
    pub entry: Option<Entry>,
    /// What is wrong with it; every line is a reason to ask the log's operator.
    pub alarms: Vec<String>,
}

/// A monitor.
#[derive(Debug)]
pub struct Monitor {
    trust: Trust,
    memory: Memory,
    edge: Edge,
}

impl Monitor {
    /// Goes on from what was remembered.
    pub fn new(trust: Trust, memory: Memory) -> Result<Self, MonitorError> {
        let damaged = |what: &str| MonitorError::Memory(what.into());
        let edge = match &memory.checkpoint {
            None => Edge::default(),
            Some(text) => {
                let signed = SignedCheckpoint::parse(text.as_bytes())
                    .map_err(|error: CheckpointError| damaged(&error.to_string()))?;
                let rows = memory
                    .rows
                    .iter()
                    .map(|row| row.iter().map(|hash| from_hex(hash)).collect::<Option<Vec<_>>>())
                    .collect::<Option<Vec<_>>>()
                    .ok_or_else(|| damaged("a hash in it is none"))?;
                Edge::from_rows(signed.checkpoint.size, rows)
                    .filter(|edge| edge.root() == signed.checkpoint.root)
                    .ok_or_else(|| damaged("its hashes do not have its checkpoint's root"))?
            }
        };
        Ok(Self { trust, memory, edge })
    }

    /// What to remember.
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Reads what is new up to the log's newest checkpoint, and calls `report` for each entry. Only after the root was
    /// found to be right is anything remembered or reported.
    pub async fn follow(
        &mut self,
        log: &Reader,
        mut report: impl FnMut(Report),
    ) -> Result<SignedCheckpoint, MonitorError> {
        let signed = log.checkpoint().await?;
        verify_signatures(&signed, &self.trust)?;
        let (seen, size) = (self.edge.size(), signed.checkpoint.size);
        if size < seen {
            return Err(MonitorError::SetBack { seen, size });
        }
        let (mut edge, mut memory, mut reports) = (self.edge.clone(), self.memory.clone(), Vec::new());
        while edge.size() < size {
            let bundle =
                Tile::in_tree(Row::Entries, edge.size() / WIDTH as u64, size).map_err(ReadError::from)?;
            let known = (edge.size() % WIDTH as u64) as usize;
            for bytes in log.entries(bundle).await?.into_iter().skip(known) {
                let (index, leaf) = (edge.size(), leaf_hash(&bytes));
                edge.push(leaf, |_, _| ());
                reports.push(memory.judge(index, leaf, &bytes));
            }
        }
        if edge.root() != signed.checkpoint.root {
            return Err(MonitorError::Forked { seen, size });
        }
        memory.checkpoint = Some(signed.encode());
        memory.rows = edge.rows().iter().map(|row| row.iter().map(hex::encode).collect()).collect();
        (self.edge, self.memory) = (edge, memory);
        reports.into_iter().for_each(&mut report);
        Ok(signed)
    }
}

impl Memory {
    fn judge(&mut self, index: u64, leaf: Hash, bytes: &[u8]) -> Report {
        let mut alarms = Vec::new();
        let entry = match Entry::decode(bytes) {
            Ok(entry) => Some(entry),
            Err(error) => {
                alarms.push(error.to_string());
                None
            }
        };
        if let Some(entry) = &entry {
            let key = format!("{}/{}/{}", entry.kind(), entry.name, entry.role);
            let last = self.newest.get(&key);
            if last.is_some_and(|last| entry.version <= last.version) {
                alarms.push(format!("version {} does not follow the last one of {key}", entry.version));
            }
            if entry.previous != last.map(|last| last.leaf) {
                alarms.push(format!("it does not name the last entry of {key} as the one before it"));
            }
            if let Subject::OhttpKey(public) | Subject::IssuerKey(public) = &entry.subject {
                let times = self.key_times.entry(key.clone()).or_default();
                times.retain(|(_, end)| *end > public.not_before);
                times.push((public.not_before, public.not_after));
                // At the start of any of them, as the number of keys in use only grows there.
                let in_use =
                    |at: u64| times.iter().filter(|(start, end)| (*start..*end).contains(&at)).count();
                let most = times.iter().map(|(start, _)| in_use(*start)).max().unwrap_or_default();
                if most > MAX_KEYS_IN_USE {
                    alarms.push(format!(
                        "{most} keys of {key} are good at one time: some users may be given one of their own"
                    ));
                }
            }
            self.newest.insert(key, Newest { version: entry.version, leaf });
            if let Subject::Revocations(list) = &entry.subject {
                if list.number != self.revocations.map_or(0, |last| last + 1) {
                    alarms.push("the list of revocations is not the next one".into());
                }
                for gone in self.revoked.iter().filter(|known| !list.revoked.contains(known)) {
                    alarms.push(format!("the list of revocations leaves out {}", hex::encode(gone.leaf)));
                }
                (self.revocations, self.revoked) = (Some(list.number), list.revoked.clone());
            } else if entry.kind() != Kind::Revocations && self.revoked.iter().any(|r| r.leaf == leaf) {
                alarms.push("it was revoked before and is logged again".into());
            }
        }
        Report { index, leaf, entry, alarms }
    }
}

fn from_hex(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    hex::decode_to_slice(text, &mut hash).ok().map(|()| hash)
}
