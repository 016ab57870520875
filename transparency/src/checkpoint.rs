//! Checkpoints (C2SP tlog-checkpoint): a log's origin, its size and its root, as the text of a signed note.

use crate::key::{CryptoFailed, SignerKey, VerifierKey};
use crate::merkle::{Hash, empty_root};
pub use crate::note::SignedBy;
use crate::note::{Note, NoteError, Signature, signed_by};
use crate::text::{array_from_base64, decimal, is_name, to_base64};

/// What a log says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// Number of its entries.
    pub size: u64,
    /// Root of its tree.
    pub root: Hash,
    /// Further lines, each with its newline. They say nothing that anyone could audit, and are only kept because
    /// signatures are over them.
    pub extension: String,
}

/// Why bytes are not a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Not an origin, a size and a root.
    #[error("the note is not a checkpoint: an origin, a size and a root, each on its line")]
    Format,
    /// A tree without leaves has one root only.
    #[error("the checkpoint gives the empty tree another root than it has")]
    EmptyRoot,
}

impl Checkpoint {
    /// Reads the text of a note.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.splitn(4, '\n');
        let (Some(origin), Some(size), Some(root), Some(extension)) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Format);
        };
        let whole_lines = extension.is_empty() || extension.ends_with('\n');
        if !whole_lines || extension.starts_with('\n') || extension.contains("\n\n") {
            return Err(CheckpointError::Format);
        }
        // An origin should hold neither space nor plus, and older logs' do; what is signed is what counts.
        if !is_name(&origin.replace([' ', '+'], "-")) {
            return Err(CheckpointError::Format);
        }
        let size =
            decimal(size).filter(|size| i64::try_from(*size).is_ok()).ok_or(CheckpointError::Format)?;
        let root = array_from_base64(root).ok_or(CheckpointError::Format)?;
        if size == 0 && root != empty_root() {
            return Err(CheckpointError::EmptyRoot);
        }
        Ok(Self { origin: origin.into(), size, root, extension: extension.into() })
    }

    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n{}", self.origin, self.size, to_base64(&self.root), self.extension)
    }

    /// Signs it; the signature's line.
    pub fn sign(&self, key: &SignerKey, time: u64) -> Result<Signature, CryptoFailed> {
        let public = key.public();
        Ok(Signature { name: public.name().into(), id: public.id(), bytes: key.sign(self, time)? })
    }
}

/// A checkpoint with claims about who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// The checkpoint: an allegation, until [`SignedCheckpoint::signed_by`] says otherwise.
    pub checkpoint: Checkpoint,
    /// The signature lines.
    pub signatures: Vec<Signature>,
}

impl SignedCheckpoint {
    /// Reads a signed note whose text is a checkpoint.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let note = Note::parse(bytes)?;
        Ok(Self { checkpoint: Checkpoint::parse(&note.text)?, signatures: note.signatures })
    }

    /// The note's bytes.
    pub fn encode(&self) -> String {
        Note { text: self.checkpoint.text(), signatures: self.signatures.clone() }.encode()
    }

    /// Checks whether this key signed.
    pub fn signed_by(&self, key: &VerifierKey) -> SignedBy {
        signed_by(&self.signatures, key, |bytes| key.verify(&self.checkpoint, bytes))
    }
}
