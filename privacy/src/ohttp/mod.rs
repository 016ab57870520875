//! Oblivious HTTP: RFC 9458, and draft-ietf-ohai-chunked-ohttp-08 for messages in chunks.
//!
//! No I/O: bytes in, bytes out. HPKE is the `hpke` crate's; what is here is the framing around it. Why not the `ohttp`
//! crate: docs/DEPENDENCIES.md. It is the judge in the tests instead.

mod chunks;
mod config;
mod exchange;
mod suite;
mod varint;

#[cfg(test)]
mod tests;

pub use chunks::{MAX_CHUNK, Opener, Sealer};
pub use config::{ConfigError, KeyConfig, SecretKey, decode_list, encode_list};
pub use exchange::{ClientExchange, Header, ServerExchange};
pub use suite::{Aead, Kem, Suite};
pub(crate) use varint::{read_varint, write_varint};

/// Media type of key configurations (RFC 9458 §3.2).
pub const KEYS: &str = "application/ohttp-keys";
/// Problem type for a key that the gateway does not have (RFC 9458 §5.3).
pub const PROBLEM_KEY: &str = "https://iana.org/assignments/http-problem-types#ohttp-key";
/// Where a gateway serves its key configurations (RFC 9540 §4).
pub const WELL_KNOWN: &str = "/.well-known/ohttp-gateway";

/// Whether a message comes as one piece or in chunks; both ends of an exchange use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// RFC 9458.
    Whole,
    /// draft-ietf-ohai-chunked-ohttp.
    Chunked,
}

impl Form {
    /// Media type of requests.
    pub const fn request_type(self) -> &'static str {
        match self {
            Self::Whole => "message/ohttp-req",
            Self::Chunked => "message/ohttp-chunked-req",
        }
    }

    /// Media type of responses.
    pub const fn response_type(self) -> &'static str {
        match self {
            Self::Whole => "message/ohttp-res",
            Self::Chunked => "message/ohttp-chunked-res",
        }
    }

    /// The form whose requests have this media type.
    pub fn of_request(media_type: &str) -> Option<Self> {
        [Self::Whole, Self::Chunked]
            .into_iter()
            .find(|form| media_type.eq_ignore_ascii_case(form.request_type()))
    }

    /// `info` of the HPKE context begins with it (RFC 9458 §4.3, draft §6.1).
    const fn request_label(self) -> &'static [u8] {
        match self {
            Self::Whole => b"message/bhttp request",
            Self::Chunked => b"message/bhttp chunked request",
        }
    }

    /// What the response's secret is exported under (RFC 9458 §4.4, draft §6.2).
    const fn response_label(self) -> &'static [u8] {
        match self {
            Self::Whole => b"message/bhttp response",
            Self::Chunked => b"message/bhttp chunked response",
        }
    }
}

/// Why an encapsulated message is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It ends before its end: what was read of it is not to be used as a whole.
    #[error("the encapsulated message ends early")]
    Truncated,
    /// It does not decrypt: altered, reordered, or made for another key or exchange.
    #[error("the encapsulated message does not decrypt")]
    Decrypt,
    /// A chunk that is not the last one and holds nothing (draft §6; REQUIREMENTS C4).
    #[error("the encapsulated message has an empty chunk before its end")]
    EmptyChunk,
    /// A chunk or message is longer than is accepted.
    #[error("the encapsulated message is longer than is accepted")]
    TooLarge,
    /// No key has this identifier.
    #[error("the encapsulated message is for a key that is not in use")]
    UnknownKey,
    /// The key exists, but not for these algorithms.
    #[error("the encapsulated message uses algorithms that its key configuration does not name")]
    Algorithms,
    /// The encapsulated key is not one.
    #[error("the encapsulated key cannot be used")]
    Encapsulation,
    /// No randomness, or more chunks than an AEAD key may protect.
    #[error("the message cannot be encrypted")]
    Seal,
}
