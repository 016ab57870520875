//! The log's side: asking a witness for its cosignatures.

use crate::checkpoint::{SignedBy, SignedCheckpoint};
use crate::log::config::WitnessAt;
use crate::log::reader::{ReadError, Reader};
use crate::log::request;
use crate::log::signature_lines;
use crate::note::Signature;
use crate::text::decimal;
use std::time::Duration;

/// Longest wait for a witness.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most bytes of a witness's answer: several post-quantum signatures.
const MAX_ANSWER: usize = 64 * 1024;
/// Conflicts that are answered with another proof before giving up.
const ATTEMPTS: usize = 3;

/// Why a witness did not cosign.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// It does not answer.
    #[error("the witness {name} does not answer: {problem}")]
    Unreachable {
        /// Its name.
        name: String,
        /// Why.
        problem: String,
    },
    /// It refuses.
    #[error("the witness {name} refuses, with status {status}: {message}")]
    Refused {
        /// Its name.
        name: String,
        /// HTTP status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// It has cosigned a larger tree than this log has: the log was set back to an old copy.
    #[error(
        "the witness {name} has cosigned {seen} entries of this log, which has {own}: the log was set back to an old copy, \
         and must not go on from there"
    )]
    SetBack {
        /// Its name.
        name: String,
        /// The size that it cosigned.
        seen: u64,
        /// The log's size.
        own: u64,
    },
    /// Its answer holds no good signature by each of its keys.
    #[error("the answer of the witness {0} holds no good cosignature by each of its keys")]
    BadCosignature(String),
    /// The log's own files.
    #[error("no consistency proof could be made: {0}")]
    Log(#[from] ReadError),
}

/// What is submitted.
#[derive(Clone, Copy)]
pub(crate) struct Submission<'a> {
    pub signed: &'a SignedCheckpoint,
    pub log: &'a Reader,
    /// The size that the witness probably saw last.
    pub guess: u64,
}

/// Submits a checkpoint; gives the witness's cosignatures, checked.
pub(crate) async fn ask(
    witness: &WitnessAt,
    submission: Submission<'_>,
) -> Result<Vec<Signature>, WitnessError> {
    let name = witness.keys.first().map_or_else(String::new, |key| key.name().into());
    let unreachable = |error: reqwest::Error| WitnessError::Unreachable {
        name: name.clone(),
        problem: error.without_url().to_string(),
    };
    let client = reqwest::Client::builder().timeout(PATIENCE).build().map_err(unreachable)?;
    let url = format!("{}/add-checkpoint", witness.url.as_str().trim_end_matches('/'));
    let size = submission.signed.checkpoint.size;
    let mut old = submission.guess;
    for _ in 0..ATTEMPTS {
        let body = request(submission.signed, old, submission.log).await?;
        let mut response = client.post(&url).body(body).send().await.map_err(unreachable)?;
        let status = response.status();
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            answer.extend_from_slice(&chunk);
            if answer.len() > MAX_ANSWER {
                return Err(WitnessError::BadCosignature(name));
            }
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        match status.as_u16() {
            200 => {
                return cosignatures(&answer, witness, submission.signed)
                    .ok_or(WitnessError::BadCosignature(name));
            }
            409 => match answer.strip_suffix('\n').and_then(decimal) {
                Some(seen) if seen > size => return Err(WitnessError::SetBack { name, seen, own: size }),
                Some(seen) => old = seen,
                None => break,
            },
            status => {
                let message = answer.chars().filter(|c| !c.is_control()).take(200).collect();
                return Err(WitnessError::Refused { name, status, message });
            }
        }
    }
    Err(WitnessError::Refused { name, status: 409, message: "its last size could not be agreed on".into() })
}

fn cosignatures(answer: &str, witness: &WitnessAt, signed: &SignedCheckpoint) -> Option<Vec<Signature>> {
    let signatures = signature_lines(answer)?;
    let claimed = SignedCheckpoint { checkpoint: signed.checkpoint.clone(), signatures };
    let good = |key| matches!(claimed.signed_by(key), SignedBy::Signed(Some(_)));
    if !witness.keys.iter().all(good) {
        return None;
    }
    // Lines by keys that the log does not know are of no use to its clients.
    let known = |line: &Signature| witness.keys.iter().any(|key| line.claims(key));
    Some(claimed.signatures.into_iter().filter(known).collect())
}
