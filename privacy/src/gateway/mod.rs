//! The gateway: opens what the relay hands on, takes a token for each session, and carries the session's bytes to a guest
//! and back.
//!
//! It knows neither who asks (the relay does) nor what (the session is TLS between client and guest). Nothing of a request
//! is logged; [`Counters`] are numbers.

mod guests;
pub mod keys;
mod refusal;
mod replay;
mod request;
mod session;
pub mod slices;

#[cfg(test)]
mod tests;

use crate::bhttp;
use crate::body::Body;
use crate::ohttp::{self, Form, SecretKey, ServerExchange, WELL_KNOWN};
use crate::serve::{answer, problem};
use crate::session::{APPEND, OFFSET_FIELD, OPEN, SESSION_FIELD, SessionId};
use crate::token::redeem::{Redeem, Refusal};
use crate::token::structure::Token;
use bytes::Bytes;
pub use guests::Guests;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use refusal::{Inner, Outer};
use replay::Replays;
use request::Encapsulated;
use serde::Deserialize;
use session::{AppendError, Sessions};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::time::timeout;

/// What sessions may cost.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Sessions at a time. When all are taken, the one idle longest makes room if it was idle for a tenth of `idle_seconds`.
    pub sessions: usize,
    /// Seconds after which a session in which nothing moves ends.
    pub idle_seconds: u64,
    /// Seconds for the head of a request to arrive, encapsulated as it is.
    pub head_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions: 16_384, idle_seconds: 300, head_seconds: 10 }
    }
}

/// What has happened, in numbers.
#[derive(Debug, Default)]
pub struct Counters {
    sessions: AtomicU64,
    appended: AtomicU64,
    refused_tokens: AtomicU64,
    stale_keys: AtomicU64,
    malformed: AtomicU64,
    replayed: AtomicU64,
    no_guest: AtomicU64,
    broken: AtomicU64,
}

/// A gateway, independent of how it is reached.
pub struct Gateway {
    keys: RwLock<Arc<Vec<SecretKey>>>,
    redeem: Arc<dyn Redeem>,
    /// Value of `WWW-Authenticate` in answers to requests without a good token.
    challenge: RwLock<Arc<str>>,
    guests: Arc<Guests>,
    sessions: Arc<Sessions>,
    replays: Replays,
    limits: Limits,
    counters: Arc<Counters>,
}

impl Gateway {
    /// A gateway with these keys, the newest first.
    pub fn new(
        keys: Vec<SecretKey>,
        redeem: Arc<dyn Redeem>,
        challenge: String,
        guests: Arc<Guests>,
        limits: Limits,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        Self {
            keys: RwLock::new(Arc::new(keys)),
            redeem,
            challenge: RwLock::new(challenge.into()),
            guests,
            sessions: Arc::new(Sessions::new(limits, counters.clone())),
            replays: Replays::default(),
            limits,
            counters,
        }
    }

    /// Replaces the keys, the newest first. Requests for a key that is no longer among them are told to fetch new ones.
    pub fn set_keys(&self, keys: Vec<SecretKey>) {
        if let Ok(mut current) = self.keys.write() {
            *current = Arc::new(keys);
        }
    }

    /// Replaces the value of `WWW-Authenticate`, as when the issuer has another key.
    pub fn set_challenge(&self, challenge: String) {
        if let Ok(mut current) = self.challenge.write() {
            *current = challenge.into();
        }
    }

    /// Replaces the list of guests; those that are no longer on it keep the sessions that they have.
    pub fn set_guests(&self, names: Vec<String>) {
        self.guests.rename(names);
    }

    fn keys(&self) -> Arc<Vec<SecretKey>> {
        self.keys.read().map(|keys| keys.clone()).unwrap_or_default()
    }

    /// Numbers in the Prometheus text format.
    pub fn metrics(&self) -> String {
        let counters = &self.counters;
        let (up, guests) = self.guests.count();
        let mut text = String::new();
        for (name, value) in [
            ("sessions_total", counters.sessions.load(Relaxed)),
            ("appended_total", counters.appended.load(Relaxed)),
            ("refused_tokens_total", counters.refused_tokens.load(Relaxed)),
            ("stale_keys_total", counters.stale_keys.load(Relaxed)),
            ("malformed_total", counters.malformed.load(Relaxed)),
            ("replayed_total", counters.replayed.load(Relaxed)),
            ("no_guest_total", counters.no_guest.load(Relaxed)),
            ("broken_sessions_total", counters.broken.load(Relaxed)),
            ("open_sessions", self.sessions.count() as u64),
            ("guests", guests as u64),
            ("guests_up", up as u64),
        ] {
            let _ = writeln!(text, "cloister_gateway_{name} {value}");
        }
        text
    }

    /// Answers one HTTP request, as the relay (or who plays it) sends it.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() == WELL_KNOWN && request.method() == Method::GET {
            let keys = self.keys();
            return answer(
                StatusCode::OK,
                ohttp::KEYS,
                ohttp::encode_list(keys.iter().map(SecretKey::config)),
            );
        }
        if request.method() != Method::POST {
            return problem(StatusCode::METHOD_NOT_ALLOWED, "about:blank", "POST an encapsulated request");
        }
        let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let Some(form) = media_type.and_then(Form::of_request) else {
            return problem(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "about:blank",
                "the media type is message/ohttp-req or message/ohttp-chunked-req",
            );
        };
        let keys = self.keys();
        let head = timeout(
            Duration::from_secs(self.limits.head_seconds),
            Encapsulated::open(request.into_body(), form, &keys, &self.replays),
        );
        match head.await.unwrap_or(Err(Outer::Late)) {
            Ok((request, exchange)) => self.answer(request, exchange, form).await,
            Err(outer) => outer.answer(&self.counters),
        }
    }

    async fn answer(
        &self,
        mut request: Encapsulated,
        exchange: ServerExchange,
        form: Form,
    ) -> Response<Body> {
        let inner = match self.route(&mut request, form).await {
            Ok(Routed::Open) => match self.open(request, exchange).await {
                Ok(response) => return response,
                Err((inner, exchange)) => return inner.answer(exchange, form),
            },
            Ok(Routed::Append(session, offset)) => {
                let appended = self.sessions.append(session, offset, &mut request).await;
                let inner = match appended {
                    Ok(()) => Inner::new(204, ""),
                    Err(AppendError::Unknown) => Inner::new(404, "there is no such session: open a new one"),
                    Err(AppendError::Offset) => Inner::new(409, "these bytes do not continue the session"),
                    Err(AppendError::Request) => {
                        return Outer::Ohttp(ohttp::Error::Truncated).answer(&self.counters);
                    }
                    Err(AppendError::Guest) => Inner::new(410, "the session is over: open a new one"),
                };
                self.counters.appended.fetch_add(1, Relaxed);
                inner
            }
            Err(inner) => inner,
        };
        inner.answer(exchange, form)
    }

    /// What is asked for; a session only with a token, which is spent then.
    async fn route(&self, request: &mut Encapsulated, form: Form) -> Result<Routed, Inner> {
        if request.malformed {
            self.counters.malformed.fetch_add(1, Relaxed);
            return Err(Inner::new(400, "the binary HTTP request is malformed"));
        }
        let head = request.decoder.head().ok_or(Inner::new(400, "the binary HTTP request is malformed"))?;
        let bhttp::Control::Request { method, path, .. } = &head.control else {
            return Err(Inner::new(400, "the binary HTTP request is malformed"));
        };
        let post = method == b"POST";
        match path.as_slice() {
            path if path == OPEN.as_bytes() && post => {
                let authorization =
                    head.field("authorization").and_then(|value| std::str::from_utf8(value).ok());
                let token = authorization.and_then(|value| Token::from_authorization(value).ok());
                let spent = match token {
                    Some(token) => self.redeem.redeem(token.bytes()).await,
                    None => Err(Refusal::Malformed),
                };
                spent.map_err(|why| {
                    self.counters.refused_tokens.fetch_add(1, Relaxed);
                    let challenge = self.challenge.read().map(|value| value.clone()).unwrap_or_default();
                    Inner::token(why, &challenge)
                })?;
                if form == Form::Whole {
                    return Err(Inner::new(400, "sessions are opened in the chunked form"));
                }
                Ok(Routed::Open)
            }
            path if path == APPEND.as_bytes() && post => {
                let session = head.field(SESSION_FIELD).and_then(SessionId::parse);
                let offset =
                    head.field(OFFSET_FIELD).and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
                session
                    .zip(offset)
                    .map(|(session, offset)| Routed::Append(session, offset))
                    .ok_or(Inner::new(400, "name the session, and the offset in it"))
            }
            path if path == OPEN.as_bytes() || path == APPEND.as_bytes() => {
                Err(Inner::new(405, "this path takes POST only"))
            }
            _ => Err(Inner::new(404, "there is no such path")),
        }
    }

    /// Opens a session and answers with what its guest says.
    async fn open(
        &self,
        request: Encapsulated,
        exchange: ServerExchange,
    ) -> Result<Response<Body>, (Inner, ServerExchange)> {
        let full = Inner::new(503, "the gateway is full: try again later");
        let Some(place) = self.sessions.place() else { return Err((full, exchange)) };
        let Some((stream, claim)) = self.guests.connect().await else {
            self.counters.no_guest.fetch_add(1, Relaxed);
            return Err((Inner::new(503, "no guest can be reached: try again later"), exchange));
        };
        let Ok((nonce, sealer)) = exchange.respond() else {
            return Ok(problem(StatusCode::INTERNAL_SERVER_ERROR, "about:blank", "no randomness"));
        };
        self.counters.sessions.fetch_add(1, Relaxed);
        let body = place.start(stream, claim, request, nonce, sealer);
        Ok(encapsulated(Form::Chunked, body))
    }
}

/// 200, whatever the answer inside says (RFC 9458 §5.2).
fn encapsulated(form: Form, body: Body) -> Response<Body> {
    let mut response = answer(StatusCode::OK, form.response_type(), Bytes::new());
    if form == Form::Chunked {
        response.headers_mut().insert("incremental", HeaderValue::from_static("?1"));
    }
    response.map(|_| body)
}

enum Routed {
    Open,
    Append(SessionId, u64),
}
