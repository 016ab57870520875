//! The gateway: opens what the relay hands on, takes a token for each session, and carries the session's bytes to a guest
//! and back.
//!
//! It knows neither who asks (the relay does) nor what (the session is TLS between client and guest). Nothing of a request
//! is logged; [`Counters`] are numbers.

mod guests;
pub mod keys;
mod replay;
mod session;
pub mod slices;

#[cfg(test)]
mod tests;

use crate::bhttp;
use crate::body::{Body, whole};
use crate::ohttp::{self, Form, Header, PROBLEM_KEY, SecretKey, ServerExchange, WELL_KNOWN};
use crate::serve::{PROBLEM_JSON, answer, problem, problem_json};
use crate::session::{APPEND, MAX_CONTENT, OFFSET_FIELD, OPEN, SESSION_FIELD, SessionId};
use crate::token::redeem::{Redeem, Refusal};
use crate::token::structure::Token;
use bytes::Bytes;
pub use guests::Guests;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use replay::Replays;
use serde::Deserialize;
use session::{AppendError, Sessions};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::time::timeout;

/// Most bytes of a request that is not chunked, and of its parts in front of the content.
const MAX_WHOLE: u64 = 64 * 1024;

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
    challenge: String,
    guests: Arc<Guests>,
    sessions: Arc<Sessions>,
    replays: Replays,
    limits: Limits,
    counters: Arc<Counters>,
}

/// Why a request gets no encapsulated answer.
enum Outer {
    Ohttp(ohttp::Error),
    Replayed,
    Late,
    /// The connection broke: nobody is there to be answered.
    Gone,
}

impl From<ohttp::Error> for Outer {
    fn from(error: ohttp::Error) -> Self {
        Self::Ohttp(error)
    }
}

/// An answer inside the encapsulation.
struct Inner {
    status: u16,
    /// `WWW-Authenticate`.
    challenge: Option<String>,
    kind: &'static str,
    title: &'static str,
}

const fn refusal(status: u16, title: &'static str) -> Inner {
    Inner { status, challenge: None, kind: "about:blank", title }
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
            challenge,
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
            Err(outer) => self.refuse(&outer),
        }
    }

    /// Refuses outside of the encapsulation: there is none.
    fn refuse(&self, outer: &Outer) -> Response<Body> {
        use ohttp::Error;
        let (counter, status, kind, title) = match outer {
            Outer::Ohttp(Error::UnknownKey | Error::Algorithms | Error::Encapsulation) => (
                &self.counters.stale_keys,
                StatusCode::BAD_REQUEST,
                PROBLEM_KEY,
                "fetch the key configuration again",
            ),
            Outer::Ohttp(Error::TooLarge) => (
                &self.counters.malformed,
                StatusCode::PAYLOAD_TOO_LARGE,
                "about:blank",
                "the request is too large",
            ),
            // A key that was replaced under the same identifier shows like this.
            Outer::Ohttp(Error::Decrypt) => (
                &self.counters.malformed,
                StatusCode::BAD_REQUEST,
                PROBLEM_KEY,
                "the request does not decrypt",
            ),
            Outer::Ohttp(_) | Outer::Gone => {
                (&self.counters.malformed, StatusCode::BAD_REQUEST, "about:blank", "the request is malformed")
            }
            Outer::Replayed => (
                &self.counters.replayed,
                StatusCode::BAD_REQUEST,
                "about:blank",
                "the request was answered before",
            ),
            Outer::Late => (
                &self.counters.malformed,
                StatusCode::REQUEST_TIMEOUT,
                "about:blank",
                "the request did not come in time",
            ),
        };
        counter.fetch_add(1, Relaxed);
        problem(status, kind, title)
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
                Err((inner, exchange)) => return self.whole(exchange, form, &inner),
            },
            Ok(Routed::Append(session, offset)) => {
                let appended = self.sessions.append(session, offset, &mut request).await;
                let inner = match appended {
                    Ok(()) => refusal(204, ""),
                    Err(AppendError::Unknown) => refusal(404, "there is no such session: open a new one"),
                    Err(AppendError::Offset) => refusal(409, "these bytes do not continue the session"),
                    Err(AppendError::Request) => return self.refuse(&Outer::Ohttp(ohttp::Error::Truncated)),
                    Err(AppendError::Guest) => refusal(410, "the session is over: open a new one"),
                };
                self.counters.appended.fetch_add(1, Relaxed);
                inner
            }
            Err(inner) => inner,
        };
        self.whole(exchange, form, &inner)
    }

    /// What is asked for; a session only with a token, which is spent then.
    async fn route(&self, request: &mut Encapsulated, form: Form) -> Result<Routed, Inner> {
        if request.malformed {
            self.counters.malformed.fetch_add(1, Relaxed);
            return Err(refusal(400, "the binary HTTP request is malformed"));
        }
        let head = request.decoder.head().ok_or(refusal(400, "the binary HTTP request is malformed"))?;
        let bhttp::Control::Request { method, path, .. } = &head.control else {
            return Err(refusal(400, "the binary HTTP request is malformed"));
        };
        let post = method == b"POST";
        match path.as_slice() {
            path if path == OPEN.as_bytes() && post => {
                let authorization =
                    head.field("authorization").and_then(|value| std::str::from_utf8(value).ok());
                let token = authorization.and_then(|value| Token::from_authorization(value).ok());
                let spent = match token {
                    Some(token) => {
                        self.redeem.redeem(token.bytes()).await.map_err(|refusal| self.token_refused(refusal))
                    }
                    None => Err(self.token_refused(Refusal::Malformed)),
                };
                spent?;
                if form == Form::Whole {
                    return Err(refusal(400, "sessions are opened in the chunked form"));
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
                    .ok_or(refusal(400, "name the session, and the offset in it"))
            }
            path if path == OPEN.as_bytes() || path == APPEND.as_bytes() => {
                Err(refusal(405, "this path takes POST only"))
            }
            _ => Err(refusal(404, "there is no such path")),
        }
    }

    fn token_refused(&self, why: Refusal) -> Inner {
        self.counters.refused_tokens.fetch_add(1, Relaxed);
        if why == Refusal::Unavailable {
            return refusal(
                503,
                "the store of spent tokens does not answer: try again later with another token",
            );
        }
        let title = match why {
            Refusal::Malformed => "a session needs a token that can be read",
            Refusal::UnknownKey => "the token's issuer key is not in use: fetch new tokens",
            Refusal::OtherChallenge => "the token was not made for this gateway",
            Refusal::Signature => "the token's signature does not hold",
            Refusal::Spent => "the token was spent before: take another",
            Refusal::Unavailable => "",
        };
        Inner { challenge: Some(self.challenge.clone()), ..refusal(401, title) }
    }

    /// Opens a session and answers with what its guest says.
    async fn open(
        &self,
        request: Encapsulated,
        exchange: ServerExchange,
    ) -> Result<Response<Body>, (Inner, ServerExchange)> {
        let full = refusal(503, "the gateway is full: try again later");
        let Some(place) = self.sessions.place() else { return Err((full, exchange)) };
        let Some((stream, claim)) = self.guests.connect().await else {
            self.counters.no_guest.fetch_add(1, Relaxed);
            return Err((refusal(503, "no guest can be reached: try again later"), exchange));
        };
        let Ok((nonce, sealer)) = exchange.respond() else {
            return Ok(problem(StatusCode::INTERNAL_SERVER_ERROR, "about:blank", "no randomness"));
        };
        self.counters.sessions.fetch_add(1, Relaxed);
        let body = place.start(stream, claim, request, nonce, sealer);
        Ok(encapsulated(Form::Chunked, body))
    }

    fn whole(&self, exchange: ServerExchange, form: Form, inner: &Inner) -> Response<Body> {
        let body = if inner.status == 204 { String::new() } else { problem_json(inner.kind, inner.title) };
        let mut fields = Vec::new();
        if !body.is_empty() {
            fields.push(("content-type", PROBLEM_JSON));
        }
        if let Some(challenge) = &inner.challenge {
            fields.push(("www-authenticate", challenge));
        }
        let message = bhttp::response(inner.status, &fields, body.as_bytes());
        let sealed = exchange.respond().and_then(|(mut out, sealer)| {
            sealer.finish(&message, &mut out)?;
            Ok(out)
        });
        match sealed {
            Ok(bytes) => encapsulated(form, whole(bytes)),
            Err(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, "about:blank", "no randomness"),
        }
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

/// A request that is still arriving.
struct Encapsulated {
    body: Incoming,
    /// `None` once the message was whole.
    opener: Option<ohttp::Opener>,
    decoder: bhttp::Decoder,
    /// Content that has arrived and was not yet taken.
    content: Vec<u8>,
    /// What was decrypted is no binary HTTP.
    malformed: bool,
}

impl Encapsulated {
    /// Reads as far as the head of the request.
    async fn open(
        mut body: Incoming,
        form: Form,
        keys: &[SecretKey],
        replays: &Replays,
    ) -> Result<(Self, ServerExchange), Outer> {
        let mut start = Vec::new();
        let (header, length) = loop {
            if let Some(parsed) = Header::parse(&start, keys)? {
                break parsed;
            }
            start.extend_from_slice(&frame(&mut body).await?.ok_or(ohttp::Error::Truncated)?);
        };
        let limit = if form == Form::Whole { MAX_WHOLE } else { MAX_CONTENT };
        let (opener, exchange) = ServerExchange::accept(&header, form, keys, limit)?;
        let mut request = Self {
            body,
            opener: Some(opener),
            decoder: bhttp::Decoder::request(),
            content: Vec::new(),
            malformed: false,
        };
        let mut plain = Vec::new();
        request.take(start.get(length..).unwrap_or_default(), &mut plain)?;
        while request.decoder.head().is_none() && !request.malformed {
            if !request.read(&mut plain).await? {
                break;
            }
        }
        if !replays.is_first(&header.encapsulated) {
            return Err(Outer::Replayed);
        }
        Ok((request, exchange))
    }

    /// Takes bytes of the message.
    fn take(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Outer> {
        let Some(opener) = &mut self.opener else { return Ok(()) };
        opener.push(bytes, plain)?;
        self.decode(plain);
        Ok(())
    }

    fn decode(&mut self, plain: &mut Vec<u8>) {
        if self.decoder.push(plain, &mut self.content).is_err() {
            self.malformed = true;
        }
        plain.clear();
    }

    /// Reads more; `false` at the end of a message that is whole.
    async fn read(&mut self, plain: &mut Vec<u8>) -> Result<bool, Outer> {
        match frame(&mut self.body).await? {
            Some(bytes) => {
                self.take(&bytes, plain)?;
                Ok(true)
            }
            None => {
                if let Some(opener) = self.opener.take() {
                    opener.finish(plain)?;
                    self.decode(plain);
                    if !self.malformed && self.decoder.finish().is_err() {
                        self.malformed = true;
                    }
                }
                Ok(false)
            }
        }
    }

    /// The next piece of content; `None` at its end. Errors: it will never be whole.
    async fn content(&mut self) -> Result<Option<Vec<u8>>, Outer> {
        let mut plain = Vec::new();
        loop {
            if self.malformed {
                return Err(Outer::Ohttp(ohttp::Error::Truncated));
            }
            if !self.content.is_empty() {
                return Ok(Some(std::mem::take(&mut self.content)));
            }
            if self.opener.is_none() {
                return Ok(None);
            }
            self.read(&mut plain).await?;
        }
    }
}

async fn frame(body: &mut Incoming) -> Result<Option<Bytes>, Outer> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(_)) => return Err(Outer::Gone),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(_) => return Ok(None),
            },
        }
    }
}
