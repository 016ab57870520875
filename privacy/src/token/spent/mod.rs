//! Where spent tokens are remembered: on this machine or in a store that gateways share, by URL.
//!
//! | URL | store | for |
//! |---|---|---|
//! | `redb:PATH` | a file | one gateway |
//! | `redis://`, `rediss://` | Redis or Valkey | many gateways |
//! | `postgres://` | PostgreSQL | many gateways |
//!
//! A token counts as spent before a gateway acts on it, and the store has it on disk by then. Whatever goes wrong, a time-out
//! included, is [`Refusal::Unavailable`]: the token is lost to its owner then, but never taken twice.

mod embedded;
mod postgres;
mod redis;

use super::redeem::Refusal;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Most tokens that are written at once.
const MAX_WRITE: usize = 512;
/// Most spends that wait; more are refused at once.
const MAX_WAITING: usize = 8192;
/// Longest time that a spend waits for the store.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time that the store may take for one write, or for a connection.
const STORE_PATIENCE: Duration = Duration::from_secs(3);
/// How long after its epoch's end a token is remembered, in seconds: gateways' clocks may differ by that much.
pub const KEPT: u64 = 24 * 3600;

/// A token to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spend {
    /// SHA-256 of what is signed.
    pub id: [u8; 32],
    /// End of its issuer key's time, in seconds since 1970; the same for all tokens of an epoch.
    pub epoch_end: u64,
}

impl Spend {
    /// When it may be forgotten, in seconds since 1970.
    const fn forget(&self) -> u64 {
        self.epoch_end.saturating_add(KEPT)
    }
}

/// Why a store cannot be used, for its operator. Nothing of it goes to clients.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL.
    #[error(
        "`{0}` is not a store: use redb:PATH, redis://HOST, rediss://HOST or postgres://USER@HOST/DATABASE"
    )]
    Url(String),
    /// It cannot be opened, reached, or written.
    #[error("the store of spent tokens: {0}")]
    Failed(String),
    /// What is old enough to be forgotten cannot be told.
    #[error(transparent)]
    Clock(#[from] crate::clock::ClockError),
    /// It would forget.
    #[error("the store of spent tokens would forget them: {0}")]
    Forgets(String),
    /// It took too long.
    #[error("the store of spent tokens did not answer within {} seconds", STORE_PATIENCE.as_secs())]
    TimeOut,
}

type Written<'a> = Pin<Box<dyn Future<Output = Result<Vec<bool>, StoreError>> + Send + 'a>>;

/// A store. `spend` writes all of them, durably, and says of each whether it was new; the ids are different and ascend.
trait Store: Send {
    fn spend<'a>(&'a mut self, spends: &'a [Spend]) -> Written<'a>;
}

type Waiting = (Spend, oneshot::Sender<Result<(), Refusal>>);

/// The store, with those who wait written together: one write to disk serves many.
#[derive(Clone)]
pub struct Spent {
    queue: mpsc::Sender<Waiting>,
    kind: &'static str,
}

impl fmt::Debug for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spent({})", self.kind)
    }
}

impl Spent {
    /// Opens the store at a URL, and checks that it keeps what is written. Needs a tokio runtime.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let unknown = || StoreError::Url(url.split('@').next_back().unwrap_or_default().into());
        let (scheme, rest) = url.split_once(':').ok_or_else(unknown)?;
        let (kind, store): (_, Box<dyn Store>) = match scheme {
            "redb" if !rest.is_empty() => {
                ("redb", Box::new(embedded::Embedded::open(PathBuf::from(rest)).await?))
            }
            "redis" | "rediss" => ("redis", Box::new(redis::Redis::open(url).await?)),
            "postgres" | "postgresql" => ("postgres", Box::new(postgres::Postgres::open(url).await?)),
            _ => return Err(unknown()),
        };
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(write(store, waiting));
        Ok(Self { queue, kind })
    }

    /// Spends a token. `Ok` once, ever; [`Refusal::Spent`] if it was spent before, [`Refusal::Unavailable`] in any doubt.
    pub async fn spend(&self, spend: Spend) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send((spend, answer)).map_err(|_| Refusal::Unavailable)?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Refusal::Unavailable),
        }
    }
}

async fn write(mut store: Box<dyn Store>, mut waiting: mpsc::Receiver<Waiting>) {
    let mut batch: Vec<Waiting> = Vec::with_capacity(MAX_WRITE);
    let mut failing = false;
    while waiting.recv_many(&mut batch, MAX_WRITE).await > 0 {
        // Who has given up must not have its token spent for nothing.
        batch.retain(|(_, answer)| !answer.is_closed());
        if batch.is_empty() {
            continue;
        }
        batch.sort_by_key(|(spend, _)| spend.id);
        let mut spends: Vec<Spend> = batch.iter().map(|(spend, _)| *spend).collect();
        spends.dedup_by_key(|spend| spend.id);
        let written = tokio::time::timeout(STORE_PATIENCE, store.spend(&spends)).await;
        let written = written.unwrap_or(Err(StoreError::TimeOut)).and_then(|new| {
            let complete = new.len() == spends.len();
            complete
                .then_some(new)
                .ok_or_else(|| StoreError::Failed("it answered of another number of tokens".into()))
        });
        match written {
            Ok(new) => {
                if std::mem::take(&mut failing) {
                    eprintln!("the store of spent tokens answers again");
                }
                let mut new = spends.iter().zip(new).peekable();
                let mut last = None;
                for (spend, answer) in batch.drain(..) {
                    // Of equal ones that came together, the first may be new; the others never are.
                    let first = last.replace(spend.id) != Some(spend.id);
                    let fresh =
                        first && new.next().is_some_and(|(known, fresh)| known.id == spend.id && fresh);
                    let _ = answer.send(if fresh { Ok(()) } else { Err(Refusal::Spent) });
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    eprintln!("error: {error}; all tokens are refused until it answers");
                }
                for (_, answer) in batch.drain(..) {
                    let _ = answer.send(Err(Refusal::Unavailable));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes everything, and does not like to be asked for nothing.
    struct Picky;

    impl Store for Picky {
        fn spend<'a>(&'a mut self, spends: &'a [Spend]) -> Written<'a> {
            let empty = spends.is_empty();
            Box::pin(async move {
                assert!(!empty, "there was nothing to write");
                Ok(vec![true; spends.len()])
            })
        }
    }

    #[tokio::test]
    async fn c3_those_who_gave_up_cost_the_store_and_the_others_nothing() {
        let (queue, waiting) = mpsc::channel(4);
        let spend = |number| Spend { id: [number; 32], epoch_end: 1 };
        let (gone, _) = oneshot::channel();
        queue.send((spend(1), gone)).await.unwrap();
        let writer = tokio::spawn(write(Box::new(Picky), waiting));
        // The first is taken up before the second comes.
        tokio::task::yield_now().await;
        let (answer, answered) = oneshot::channel();
        queue.send((spend(2), answer)).await.unwrap();
        answered.await.unwrap().unwrap();
        drop(queue);
        writer.await.unwrap();
    }
}
