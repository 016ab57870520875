//! What is answered where nothing is opened: outside of the encapsulation, and inside.
//!
//! Titles are this program's own words; nothing of a request is in them.

use super::{Counters, encapsulated};
use crate::bhttp;
use crate::body::{Body, whole};
use crate::ohttp::{self, Form, PROBLEM_KEY, ServerExchange};
use crate::serve::{PROBLEM_JSON, problem, problem_json};
use crate::token::redeem::Refusal;
use hyper::{Response, StatusCode};
use std::sync::atomic::Ordering::Relaxed;

/// Why a request gets no encapsulated answer.
pub(super) enum Outer {
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

impl Outer {
    /// The answer outside of the encapsulation: there is none.
    pub(super) fn answer(&self, counters: &Counters) -> Response<Body> {
        use ohttp::Error;
        let (counter, status, kind, title) = match self {
            Self::Ohttp(Error::UnknownKey | Error::Algorithms | Error::Encapsulation) => (
                &counters.stale_keys,
                StatusCode::BAD_REQUEST,
                PROBLEM_KEY,
                "fetch the key configuration again",
            ),
            Self::Ohttp(Error::TooLarge) => (
                &counters.malformed,
                StatusCode::PAYLOAD_TOO_LARGE,
                "about:blank",
                "the request is too large",
            ),
            // A key that was replaced under the same identifier shows like this.
            Self::Ohttp(Error::Decrypt) => {
                (&counters.malformed, StatusCode::BAD_REQUEST, PROBLEM_KEY, "the request does not decrypt")
            }
            Self::Ohttp(_) | Self::Gone => {
                (&counters.malformed, StatusCode::BAD_REQUEST, "about:blank", "the request is malformed")
            }
            Self::Replayed => (
                &counters.replayed,
                StatusCode::BAD_REQUEST,
                "about:blank",
                "the request was answered before",
            ),
            Self::Late => (
                &counters.malformed,
                StatusCode::REQUEST_TIMEOUT,
                "about:blank",
                "the request did not come in time",
            ),
        };
        counter.fetch_add(1, Relaxed);
        problem(status, kind, title)
    }
}

/// An answer inside the encapsulation.
pub(super) struct Inner {
    status: u16,
    /// `WWW-Authenticate`.
    challenge: Option<String>,
    kind: &'static str,
    title: &'static str,
}

impl Inner {
    /// A problem that its status explains, or 204.
    pub(super) const fn new(status: u16, title: &'static str) -> Self {
        Self { status, challenge: None, kind: "about:blank", title }
    }

    /// Why the token was not taken; `challenge` says what one must be made for.
    pub(super) fn token(why: Refusal, challenge: &str) -> Self {
        if why == Refusal::Unavailable {
            return Self::new(
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
        Self { challenge: Some(challenge.to_owned()), ..Self::new(401, title) }
    }

    /// Sealed for who asked.
    pub(super) fn answer(&self, exchange: ServerExchange, form: Form) -> Response<Body> {
        let body = if self.status == 204 { String::new() } else { problem_json(self.kind, self.title) };
        let mut fields = Vec::new();
        if !body.is_empty() {
            fields.push(("content-type", PROBLEM_JSON));
        }
        if let Some(challenge) = &self.challenge {
            fields.push(("www-authenticate", challenge));
        }
        let message = bhttp::response(self.status, &fields, body.as_bytes());
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
