//! Sessions: a guest's connection, and who may write into it.

use super::guests::Claim;
use super::request::Encapsulated;
use super::{Counters, Limits};
use crate::bhttp;
use crate::body::{Body, streamed};
use crate::ohttp::{MAX_CHUNK, Sealer};
use crate::session::{SESSION_FIELD, SessionId};
use bytes::{BufMut, Bytes};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroize;

/// Bytes of a guest that go into one chunk: with the framing of binary HTTP they fill it.
const PIECE: usize = MAX_CHUNK - 4;

type Sender = mpsc::Sender<io::Result<Bytes>>;

/// All sessions of a gateway.
pub(super) struct Sessions {
    open: Mutex<HashMap<SessionId, Arc<Session>>>,
    limits: Limits,
    counters: Arc<Counters>,
    start: Instant,
}

/// One client's way to one guest.
struct Session {
    upstream: tokio::sync::Mutex<Upstream>,
    /// Milliseconds since the start of the gateway at which something moved last.
    moved: AtomicU64,
    ended: CancellationToken,
}

struct Upstream {
    guest: Option<OwnedWriteHalf>,
    /// Bytes that went to the guest.
    offset: u64,
}

/// Why bytes are not appended.
pub(super) enum AppendError {
    /// No such session.
    Unknown,
    /// They are not the next ones.
    Offset,
    /// The request broke off.
    Request,
    /// The guest does not take them.
    Guest,
}

/// Room for one more session.
pub(super) struct Place {
    sessions: Arc<Sessions>,
    id: SessionId,
    session: Arc<Session>,
}

impl Sessions {
    pub(super) fn new(limits: Limits, counters: Arc<Counters>) -> Self {
        Self { open: Mutex::default(), limits, counters, start: Instant::now() }
    }

    pub(super) fn count(&self) -> usize {
        self.table().len()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Session>>> {
        // A panic while the table was locked left it as it was: each change is one call.
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn idle(&self) -> Duration {
        Duration::from_secs(self.limits.idle_seconds)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Room for one more session, if need be that of the one which was idle longest.
    pub(super) fn place(self: &Arc<Self>) -> Option<Place> {
        let id = SessionId::draw()?;
        let now = self.now();
        let session = Arc::new(Session {
            upstream: tokio::sync::Mutex::new(Upstream { guest: None, offset: 0 }),
            moved: AtomicU64::new(now),
            ended: CancellationToken::new(),
        });
        let mut open = self.table();
        if open.len() >= self.limits.sessions {
            let (oldest, idle) = open
                .iter()
                .map(|(id, session)| (*id, now.saturating_sub(session.moved.load(Relaxed))))
                .max_by_key(|(_, idle)| *idle)?;
            if idle < self.limits.idle_seconds * 100 {
                return None;
            }
            if let Some(evicted) = open.remove(&oldest) {
                evicted.ended.cancel();
            }
        }
        open.insert(id, session.clone());
        Some(Place { sessions: self.clone(), id, session })
    }

    /// Sends a request's content to the guest, if it begins where the session stands.
    pub(super) async fn append(
        self: &Arc<Self>,
        id: SessionId,
        offset: u64,
        request: &mut Encapsulated,
    ) -> Result<(), AppendError> {
        let session = self.table().get(&id).cloned().ok_or(AppendError::Unknown)?;
        let append = async {
            // Whoever came before writes first.
            let mut upstream = session.upstream.lock().await;
            if upstream.offset != offset {
                return Err(AppendError::Offset);
            }
            self.forward(&session, &mut upstream, request).await
        };
        tokio::select! {
            result = append => result,
            () = session.ended.cancelled() => Err(AppendError::Guest),
        }
    }

    /// Sends content to the guest as it comes. What goes wrong ends the session: a part of it is missing then.
    async fn forward(
        &self,
        session: &Session,
        upstream: &mut Upstream,
        request: &mut Encapsulated,
    ) -> Result<(), AppendError> {
        loop {
            let mut piece = match request.content().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Ok(()),
                Err(_) => {
                    session.ended.cancel();
                    return Err(AppendError::Request);
                }
            };
            session.moved.store(self.now(), Relaxed);
            let guest = upstream.guest.as_mut().ok_or(AppendError::Guest)?;
            let written = guest.write_all(&piece).await;
            upstream.offset += piece.len() as u64;
            piece.zeroize();
            if written.is_err() {
                session.ended.cancel();
                return Err(AppendError::Guest);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.session.ended.cancel();
        self.sessions.table().remove(&self.id);
    }
}

impl Place {
    /// Starts the session: the request's content goes to the guest, and what the guest says becomes the body of the answer.
    pub(super) fn start(
        self,
        guest: TcpStream,
        claim: Claim,
        mut request: Encapsulated,
        nonce: Vec<u8>,
        sealer: Sealer,
    ) -> Body {
        let (reader, writer) = guest.into_split();
        let (sender, body) = streamed();
        let (sessions, session) = (self.sessions.clone(), self.session.clone());
        tokio::spawn(async move {
            let mut upstream = session.upstream.lock().await;
            upstream.guest = Some(writer);
            tokio::select! {
                // An end of this request is no end of the session: others may continue it.
                _ = sessions.forward(&session, &mut upstream, &mut request) => {}
                () = session.ended.cancelled() => {}
            }
            drop(upstream);
            session.ended.cancelled().await;
            session.upstream.lock().await.guest = None;
        });
        tokio::spawn(async move {
            let _claim = claim;
            let ended = self.answer(&reader, nonce, sealer, &sender).await;
            let (idle, counters) = (self.sessions.idle(), self.sessions.counters.clone());
            drop((self, reader));
            if let Err(error) = ended {
                counters.broken.fetch_add(1, Relaxed);
                // Whoever reads must not take this for the end.
                let _ = timeout(idle, sender.send(Err(error))).await;
            }
        });
        body
    }

    async fn answer(
        &self,
        guest: &OwnedReadHalf,
        mut out: Vec<u8>,
        mut sealer: Sealer,
        body: &Sender,
    ) -> io::Result<()> {
        let sealing = |_| io::Error::other("sealing");
        let id = self.id.to_string();
        let fields = [(SESSION_FIELD, id.as_str()), ("content-type", "application/octet-stream")];
        sealer.seal(&bhttp::response_head(200, &fields), &mut out).map_err(sealing)?;
        self.send(body, out).await?;
        loop {
            self.wait(guest, body).await?;
            // The buffer is there only while there is something for it.
            let mut piece = Vec::with_capacity(PIECE);
            match guest.try_read_buf(&mut (&mut piece).limit(PIECE)) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            self.session.moved.store(self.sessions.now(), Relaxed);
            let (mut content, mut out) =
                (Vec::with_capacity(piece.len() + 4), Vec::with_capacity(piece.len() + 32));
            bhttp::content(&piece, &mut content);
            sealer.seal(&content, &mut out).map_err(sealing)?;
            self.send(body, out).await?;
            self.session.moved.store(self.sessions.now(), Relaxed);
        }
        let mut out = Vec::new();
        sealer.finish(&bhttp::END, &mut out).map_err(sealing)?;
        self.send(body, out).await
    }

    /// Until the guest says something; errors when the session is over otherwise.
    async fn wait(&self, guest: &OwnedReadHalf, body: &Sender) -> io::Result<()> {
        let idle = self.sessions.idle();
        loop {
            let moved = self.session.moved.load(Relaxed);
            let deadline = self.sessions.start + Duration::from_millis(moved) + idle;
            tokio::select! {
                ready = guest.readable() => return ready,
                () = self.session.ended.cancelled() => return Err(io::ErrorKind::ConnectionAborted.into()),
                () = body.closed() => return Err(io::ErrorKind::BrokenPipe.into()),
                () = sleep_until(deadline) => {
                    if self.session.moved.load(Relaxed) == moved {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
    }

    /// Hands bytes to the client; one who does not take them in time loses the session.
    async fn send(&self, body: &Sender, bytes: Vec<u8>) -> io::Result<()> {
        let sent = timeout(self.sessions.idle(), body.send(Ok(bytes.into())));
        tokio::select! {
            sent = sent => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            },
            () = self.session.ended.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}
