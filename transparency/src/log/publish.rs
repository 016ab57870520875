//! From a signed checkpoint to a published one: the witnesses' cosignatures.

use super::append::Writer;
use super::reader::{CHECKPOINT, ReadError, Reader};
use super::store::StoreError;
use crate::checkpoint::SignedCheckpoint;
use crate::entry::Kind;
use crate::merkle::Hash;
use crate::note::Signature;
use crate::proof::{Leaf, Proof};
use crate::tree::{consistency_proof, inclusion_proof};
use crate::trust::Trust;
use crate::verify::{CheckpointRefused, verify_signatures};
use crate::witness::client::{Submission, WitnessError, ask};
use futures_util::future::join_all;

/// Why a checkpoint was not published, or no proof was made. What was appended is signed and safe; publish again.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Reading or writing its files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reading its files.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Too few witnesses answered as they should.
    #[error("{refused}{}", list(.failures))]
    Witnesses {
        /// What is missing.
        refused: CheckpointRefused,
        /// What each witness that failed said.
        failures: Vec<WitnessError>,
    },
    /// There is no such entry.
    #[error("the log has no entry {0} that is published; publish first")]
    NotPublished(u64),
}

fn list(failures: &[WitnessError]) -> String {
    failures.iter().map(|failure| format!("; {failure}")).collect()
}

impl Writer {
    /// Asks the witnesses to cosign the last signed checkpoint, and publishes it when enough of them did. Gives what
    /// the others said. Publishing the same checkpoint again gets it new cosignatures.
    pub async fn publish(&mut self) -> Result<Vec<WitnessError>, PublishError> {
        let reader = Reader::Store(self.store.clone());
        // The usual case: the witnesses saw what was published last.
        let guess = reader.checkpoint().await.map_or(0, |published| published.checkpoint.size);
        let asked = self.config.witnesses.iter().map(|witness| {
            let submission = Submission { signed: &self.signed, log: &reader, guess };
            ask(witness, submission)
        });
        let (mut cosigned, mut failures) = (self.signed.clone(), Vec::new());
        for answer in join_all(asked).await {
            match answer {
                Ok(signatures) => cosigned.signatures.extend(signatures),
                Err(failure) => failures.push(failure),
            }
        }
        match verify_signatures(&cosigned, &self.config.trust) {
            Ok(_) => {
                self.store.write(vec![(CHECKPOINT.into(), cosigned.encode().into_bytes())]).await?;
                for path in std::mem::take(&mut self.obsolete) {
                    self.store.remove_below(&path).await;
                }
                Ok(failures)
            }
            Err(refused) => Err(PublishError::Witnesses { refused, failures }),
        }
    }

    /// The proof of a published entry, with the newest published list of revocations.
    pub async fn prove(&self, index: u64) -> Result<Proof, PublishError> {
        let reader = Reader::Store(self.store.clone());
        let (name, role) = super::append::REVOCATIONS;
        let list = self.newest(Kind::Revocations, name, role);
        let published = reader.checkpoint().await?;
        let list = list.ok_or(PublishError::NotPublished(0))?;
        prove(&reader, published, index, list).await
    }
}

/// The same checkpoint with the cosignatures of `count` witnesses only, those who signed last. A proof that clients with this
/// threshold accept need not be larger.
pub fn with_witnesses(
    signed: &SignedCheckpoint,
    trust: &Trust,
    count: usize,
) -> Result<SignedCheckpoint, CheckpointRefused> {
    let cosigned = verify_signatures(signed, trust)?;
    if count < trust.threshold() || count > cosigned.len() {
        let (found, needed) = (cosigned.len().min(count), trust.threshold().max(count));
        return Err(CheckpointRefused::TooFewWitnesses { found, needed });
    }
    let chosen = |name: &str| cosigned[..count].iter().any(|(chosen, _)| chosen == name);
    let witnesses = trust.witnesses().iter().filter(|witness| chosen(witness.name()));
    let keys: Vec<_> = trust.keys().iter().chain(witnesses.flat_map(|witness| &witness.keys)).collect();
    let kept = |line: &&Signature| keys.iter().any(|key| line.claims(key));
    let signatures = signed.signatures.iter().filter(kept).cloned().collect();
    Ok(SignedCheckpoint { checkpoint: signed.checkpoint.clone(), signatures })
}

/// Makes the proof of an entry against a checkpoint, from the log's tiles; `revocations` is the index of the newest list.
pub async fn prove(
    reader: &Reader,
    checkpoint: SignedCheckpoint,
    index: u64,
    revocations: u64,
) -> Result<Proof, PublishError> {
    let size = checkpoint.checkpoint.size;
    let mut leaves = Vec::new();
    for index in [index, revocations] {
        if index >= size {
            return Err(PublishError::NotPublished(index));
        }
        let entry = reader.entry(index, size).await?;
        let path = inclusion_proof(index, size, reader).await?;
        leaves.push(Leaf { index, entry, path });
    }
    let [entry, revocations] =
        <[Leaf; 2]>::try_from(leaves).map_err(|_| PublishError::NotPublished(index))?;
    Ok(Proof { entry, revocations, checkpoint })
}

/// What a witness is sent (C2SP tlog-witness, "add-checkpoint").
pub(crate) async fn request(
    signed: &SignedCheckpoint,
    old: u64,
    reader: &Reader,
) -> Result<String, ReadError> {
    let proof: Vec<Hash> = consistency_proof(old, signed.checkpoint.size, reader).await?;
    let mut body = format!("old {old}\n");
    for hash in proof {
        body += &crate::text::to_base64(&hash);
        body.push('\n');
    }
    Ok(body + "\n" + &signed.encode())
}

/// The signature lines of an answer.
pub(crate) fn signature_lines(answer: &str) -> Option<Vec<Signature>> {
    let lines = answer.strip_suffix('\n')?;
    lines.split('\n').map(|line| Signature::parse(line).ok()).collect()
}
