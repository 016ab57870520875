//! The client's way to a guest: through a relay and a gateway, as if it were a connection.
//!
//! [`Way::open`] gives a byte stream at once. What goes wrong on the way (a stale key, a token that is not taken, a relay
//! that is not there) shows when the stream is read, as an [`io::Error`] around a [`TransportError`]. Reading ends without
//! an error only where all that the gateway sent was whole (REQUIREMENTS C4).

mod tunnel;

#[cfg(all(test, feature = "services"))]
pub(crate) mod tests;

use crate::ohttp::KeyConfig;
use crate::tls::{self, TlsError};
use crate::token::structure::Token;
use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
pub use tunnel::Tunnel;

use crate::body::Body;

/// Why there is no way, or why it ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The relay does not answer.
    #[error("cannot reach the relay")]
    Relay,
    /// The relay or the gateway refused outside of the encapsulation.
    #[error("the relay or the gateway refused with HTTP status {0}")]
    Refused(u16),
    /// The gateway has another key now.
    #[error("the gateway does not have this key any more: fetch its key configuration again")]
    StaleKey,
    /// The gateway did not take the token.
    #[error("the gateway did not take the token (HTTP status {0}); it is not used again")]
    Token(u16),
    /// The gateway has no place, or no guest.
    #[error("the gateway has no guest for this session now (HTTP status {0}); try again later")]
    Unavailable(u16),
    /// What came was not whole.
    #[error(
        "what came through the relay was cut off, as a guest, the gateway or the relay went away; try again with another one"
    )]
    Truncated,
    /// What came was altered, or is not what a gateway says.
    #[error("what came through the relay is not what the gateway sent")]
    Malformed,
    /// No randomness, or too much was sent.
    #[error("nothing more can be encrypted on this way")]
    Seal,
}

impl TransportError {
    /// What an error of the stream, or one that came of it, was at first.
    pub fn of(error: &io::Error) -> Option<&Self> {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error.get_ref()?);
        while let Some(error) = source {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            source = match error.downcast_ref::<io::Error>() {
                Some(error) => error.get_ref().map(|error| error as _),
                None => error.source(),
            };
        }
        None
    }
}

impl From<TransportError> for io::Error {
    fn from(error: TransportError) -> Self {
        let kind = match error {
            TransportError::Relay => io::ErrorKind::NotConnected,
            TransportError::Truncated => io::ErrorKind::UnexpectedEof,
            TransportError::Malformed => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::ConnectionRefused,
        };
        Self::new(kind, error)
    }
}

/// Why a way cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WayError {
    /// Not a relay's URL.
    #[error("{0} is no https URL of a relay (http is for relays on this machine)")]
    Url(String),
    /// Its roots cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Whether the answer may begin before the request has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One exchange, both ways at once.
    #[default]
    Duplex,
    /// For relays that hold requests back until they are whole: one request for each piece that is sent.
    Requests,
}

/// A relay, and the gateway behind it.
#[derive(Clone, Debug)]
pub struct Way {
    relay: Uri,
    gateway: KeyConfig,
    mode: Mode,
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

impl Way {
    /// A way through `relay` to the gateway with this key, which must have been proven to be everyone's. `roots` are what
    /// the relay's certificate is checked with; without them, those of the system.
    pub fn new(relay: &str, roots: Option<&Path>, gateway: KeyConfig, mode: Mode) -> Result<Self, WayError> {
        let refuse = || WayError::Url(relay.to_owned());
        let uri: Uri = relay.parse().map_err(|_| refuse())?;
        let tls = match uri.scheme_str() {
            Some("https") => tls::client(roots)?,
            Some("http") if uri.host().is_some_and(is_loopback) => tls::client_without_roots()?,
            _ => return Err(refuse()),
        };
        let plain = uri.scheme_str() == Some("http");
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(Duration::from_secs(10)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_only(plain)
            // RFC 9458 §6.5: nothing is repeated.
            .retry_canceled_requests(false)
            .build(connector);
        Ok(Self { relay: uri, gateway, mode, client })
    }

    /// Starts a session that is paid for with `token`. Must be called within a tokio runtime.
    pub fn open(&self, token: &Token) -> Result<Tunnel, TransportError> {
        Tunnel::open(self, token)
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
