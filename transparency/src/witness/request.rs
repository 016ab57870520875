//! The body of an `add-checkpoint` request (C2SP tlog-witness).

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::merkle::{Hash, MAX_PROOF};
use crate::text::{array_from_base64, decimal};

/// Why a body is not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not text of the form.
    #[error("the request is not an old size, a proof and a checkpoint")]
    Format,
    /// The old size.
    #[error("the old size is not a number")]
    OldSize,
    /// A line of the proof, or too many.
    #[error("the consistency proof is not at most 63 lines of one hash each")]
    Proof,
    /// The checkpoint.
    #[error("{0}")]
    Checkpoint(#[from] CheckpointError),
    /// The old size is above the checkpoint's.
    #[error("the old size is larger than the checkpoint's")]
    OldIsNewer,
}

/// A request: all of it the log's word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The size that the log believes the witness to have cosigned.
    pub old: u64,
    /// The consistency proof from there.
    pub proof: Vec<Hash>,
    /// The checkpoint.
    pub signed: SignedCheckpoint,
}

impl Request {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let body = std::str::from_utf8(body).map_err(|_| RequestError::Format)?;
        let (head, note) = body.split_once("\n\n").ok_or(RequestError::Format)?;
        let mut lines = head.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).ok_or(RequestError::Format)?;
        let old = decimal(old).ok_or(RequestError::OldSize)?;
        let proof: Vec<Hash> = lines
            .take(MAX_PROOF + 1)
            .map(|line| array_from_base64(line).ok_or(RequestError::Proof))
            .collect::<Result<_, _>>()?;
        if proof.len() > MAX_PROOF {
            return Err(RequestError::Proof);
        }
        let signed = SignedCheckpoint::parse(note.as_bytes())?;
        if old > signed.checkpoint.size {
            Err(RequestError::OldIsNewer)
        } else {
            Ok(Self { old, proof, signed })
        }
    }
}
