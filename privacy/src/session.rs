//! What client and gateway say to each other inside Oblivious HTTP.
//!
//! A session is one connection to one guest. `POST` [`OPEN`] with a token opens it: the content of the request goes to the
//! guest as it comes, and what the guest says comes back as the content of the answer, until the guest closes. Either
//! is a stream, and each is whole only if it has its end. Where a relay or a proxy on the way holds requests back until
//! they are complete, the client ends its request early and sends the rest by further ones to [`APPEND`].

use std::fmt;

/// Opens a session; chunked only.
pub const OPEN: &str = "/v1/session";
/// Sends more to the guest of a session.
pub const APPEND: &str = "/v1/session/append";
/// Names a session, in answers and requests.
pub const SESSION_FIELD: &str = "cloister-session";
/// How many bytes of the session went before these, so that none is lost, doubled or misplaced.
pub const OFFSET_FIELD: &str = "cloister-offset";

/// Most bytes from a client to a guest in one request, and the other way: far more than any context holds.
pub const MAX_CONTENT: u64 = 64 * 1024 * 1024;

/// A session's name: random, and it means nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// Draws one; `None` without randomness.
    pub fn draw() -> Option<Self> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).ok()?;
        Some(Self(id))
    }

    /// Reads one from a field.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).ok()?;
        Some(Self(id))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

// Whoever has it can write into the session.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId")
    }
}
