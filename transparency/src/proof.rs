//! Proofs that travel (C2SP tlog-proof): an entry's place in the log, the signed checkpoint, and with them the newest
//! list of what was revoked, in one text that is checked offline.
//!
//! The `extra` line holds the entry itself, and the list with its own place in the same tree. None of it is trusted as
//! such: both hash to leaves that the checkpoint's tree must hold, see [`crate::verify`].

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::merkle::{Hash, MAX_PROOF};
use crate::text::{array_from_base64, decimal, from_base64, to_base64};
use wire::canonical::{NotCanonical, Reader, Writer};

const HEADER: &str = "c2sp.org/tlog-proof@v1";
const EXTRA_LABEL: &str = "cloister proof v1";

/// Most bytes of a proof's text.
pub const MAX_PROOF_TEXT: usize = 512 * 1024;

/// Why a text is not a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofFormatError {
    /// More than [`MAX_PROOF_TEXT`] bytes.
    #[error("the proof is larger than any proof can be")]
    TooLarge,
    /// Not a `tlog-proof`.
    #[error("not a proof of the form c2sp.org/tlog-proof@v1")]
    Format,
    /// No index, or one that is not a number below 2^63.
    #[error("the proof's index is missing or is not a number that a log can have")]
    Index,
    /// A line of the proof is not a hash.
    #[error("a line of the proof is not a hash in base64")]
    Hash,
    /// More hashes than a tree can have levels.
    #[error("the proof has more hashes than a tree can have levels")]
    TooLong,
    /// The `extra` line is not base64.
    #[error("the proof's extra line is not base64")]
    Extra,
    /// The checkpoint.
    #[error("the proof's checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// There is no entry or no list of revocations in it.
    #[error("the proof does not carry a Cloister entry and the list of revocations")]
    NoEntry,
}

/// Any `tlog-proof`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// What the application adds; not authenticated.
    pub extra: Option<Vec<u8>>,
    /// The entry's index.
    pub index: u64,
    /// From the leaf's sibling to the root's child.
    pub hashes: Vec<Hash>,
    /// The checkpoint, as the log served it.
    pub checkpoint: String,
}

impl TlogProof {
    /// The text.
    pub fn encode(&self) -> String {
        let mut text = format!("{HEADER}\n");
        if let Some(extra) = &self.extra {
            text += &format!("extra {}\n", to_base64(extra));
        }
        text += &format!("index {}\n", self.index);
        for hash in &self.hashes {
            text += &to_base64(hash);
            text.push('\n');
        }
        text + "\n" + &self.checkpoint
    }

    /// Reads the text; what the checkpoint holds is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFormatError> {
        use ProofFormatError as E;
        if bytes.len() > MAX_PROOF_TEXT {
            return Err(E::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| E::Format)?;
        let rest = text.strip_prefix(HEADER).and_then(|rest| rest.strip_prefix('\n')).ok_or(E::Format)?;
        let (head, checkpoint) = rest.split_once("\n\n").ok_or(E::Format)?;
        let mut lines = head.split('\n').peekable();
        let extra = match lines.next_if(|line| line.starts_with("extra ")) {
            Some(line) => Some(line.strip_prefix("extra ").and_then(from_base64).ok_or(E::Extra)?),
            None => None,
        };
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).ok_or(E::Index)?;
        let index = decimal(index).filter(|index| i64::try_from(*index).is_ok()).ok_or(E::Index)?;
        let hashes =
            lines.map(|line| array_from_base64(line).ok_or(E::Hash)).collect::<Result<Vec<_>, _>>()?;
        if hashes.len() > MAX_PROOF {
            return Err(E::TooLong);
        }
        Ok(Self { extra, index, hashes, checkpoint: checkpoint.into() })
    }
}

/// A leaf with its place in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its index.
    pub index: u64,
    /// The encoded entry.
    pub entry: Vec<u8>,
    /// Its inclusion proof.
    pub path: Vec<Hash>,
}

/// An entry's proof: all allegations, until [`crate::verify::verify`] has checked them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The entry.
    pub entry: Leaf,
    /// The newest list of revocations.
    pub revocations: Leaf,
    /// The checkpoint that both are proven against.
    pub checkpoint: SignedCheckpoint,
}

impl Proof {
    /// The text of a `.tlog-proof` file.
    pub fn encode(&self) -> String {
        let mut extra = Writer::new(EXTRA_LABEL);
        extra.bytes(&self.entry.entry);
        extra.bytes(&self.revocations.entry).number(self.revocations.index);
        extra.bytes(self.revocations.path.as_flattened());
        let proof = TlogProof {
            extra: Some(extra.finish()),
            index: self.entry.index,
            hashes: self.entry.path.clone(),
            checkpoint: self.checkpoint.encode(),
        };
        proof.encode()
    }

    /// Reads the text of a `.tlog-proof` file.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofFormatError> {
        let proof = TlogProof::parse(bytes)?;
        let checkpoint = SignedCheckpoint::parse(proof.checkpoint.as_bytes())?;
        let extra = proof.extra.ok_or(ProofFormatError::NoEntry)?;
        let (entry, revocations) = read_extra(&extra).map_err(|NotCanonical| ProofFormatError::NoEntry)?;
        if revocations.path.len() > MAX_PROOF {
            return Err(ProofFormatError::TooLong);
        }
        let entry = Leaf { index: proof.index, entry, path: proof.hashes };
        Ok(Self { entry, revocations, checkpoint })
    }
}

fn read_extra(extra: &[u8]) -> Result<(Vec<u8>, Leaf), NotCanonical> {
    let mut r = Reader::new(extra, EXTRA_LABEL)?;
    let entry = r.bytes()?.to_vec();
    let list = r.bytes()?.to_vec();
    let index = r.number()?;
    let (path, rest) = r.bytes()?.as_chunks::<32>();
    let revocations = Leaf { index, entry: list, path: path.to_vec() };
    r.finish()?;
    if rest.is_empty() { Ok((entry, revocations)) } else { Err(NotCanonical) }
}
