//! The relay (RFC 9458 §2): it knows who asks, and nothing of what.
//!
//! It takes encapsulated requests for the gateways on its list and hands them on as they come, both ways, without keeping
//! them (`Incremental: ?1`, draft-ietf-httpbis-incremental). Of a request's head it passes on media type, length and
//! `Incremental`; everything else stays here: addresses, cookies, `Forwarded`, user agents. It logs nothing of a request.

mod resolve;

use crate::body::Body;
use crate::keepalive;
use crate::ohttp::Form;
use crate::serve::problem;
use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use resolve::Addresses;
use serde::Deserialize;
use std::fmt::Write;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, timeout};

/// Passed on in both directions, with the media type.
const INCREMENTAL: HeaderName = HeaderName::from_static("incremental");
/// Media type of problems, which gateways answer with outside of the encapsulation.
const PROBLEM: &str = "application/problem+json";

/// A gateway that this relay serves, or several of them that have one name and the same keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayAt {
    /// Path of the relay's own under which clients reach it.
    pub path: String,
    /// Where it is.
    pub url: String,
    /// PEM file with the roots that its certificate must chain to; without it, those of the system.
    pub roots: Option<PathBuf>,
    /// Addresses in place of those that the URL's name has.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// What an exchange may cost.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Exchanges at a time; further ones get 503.
    pub exchanges: usize,
    /// Most bytes of a request or response.
    pub bytes: u64,
    /// Seconds after which a request or response in which nothing moves is broken off.
    pub idle_seconds: u64,
    /// Seconds for a gateway to begin its answer.
    pub answer_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { exchanges: 16_384, bytes: 80 * 1024 * 1024, idle_seconds: 300, answer_seconds: 30 }
    }
}

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Not a URL that can be relayed to.
    #[error("{0} is no http or https URL of a gateway")]
    Url(String),
    /// Two gateways have one path, or one has none.
    #[error("{0:?} is no path, or two gateways have it; each needs its own, beginning with a slash")]
    Path(String),
    /// No gateway.
    #[error("the relay's list of gateways is empty")]
    Empty,
    /// Roots cannot be read.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
}

type Outgoing = UnsyncBoxBody<Bytes, io::Error>;

struct Target {
    path: String,
    uri: Uri,
    client: Client<HttpsConnector<HttpConnector<Addresses>>, Outgoing>,
}

/// What has happened, in numbers.
#[derive(Debug, Default)]
struct Counters {
    exchanges: AtomicU64,
    refused: AtomicU64,
    full: AtomicU64,
    gateway: AtomicU64,
}

/// A relay, independent of how it is reached.
pub struct Relay {
    targets: Vec<Target>,
    places: Arc<Semaphore>,
    limits: Limits,
    counters: Counters,
}

impl Relay {
    /// A relay for these gateways; paths of files are relative to `folder`.
    pub fn new(gateways: &[GatewayAt], folder: &Path, limits: Limits) -> Result<Self, RelayError> {
        let mut targets: Vec<Target> = Vec::new();
        for gateway in gateways {
            if !gateway.path.starts_with('/') || targets.iter().any(|target| target.path == gateway.path) {
                return Err(RelayError::Path(gateway.path.clone()));
            }
            targets.push(target(gateway, folder)?);
        }
        if targets.is_empty() {
            return Err(RelayError::Empty);
        }
        let places = Arc::new(Semaphore::new(limits.exchanges));
        Ok(Self { targets, places, limits, counters: Counters::default() })
    }

    /// Numbers in the Prometheus text format.
    pub fn metrics(&self) -> String {
        let counters = &self.counters;
        let open = self.limits.exchanges.saturating_sub(self.places.available_permits());
        let mut text = String::new();
        for (name, value) in [
            ("exchanges_total", counters.exchanges.load(Relaxed)),
            ("refused_total", counters.refused.load(Relaxed)),
            ("full_total", counters.full.load(Relaxed)),
            ("gateway_failures_total", counters.gateway.load(Relaxed)),
            ("open_exchanges", open as u64),
        ] {
            let _ = writeln!(text, "cloister_relay_{name} {value}");
        }
        text
    }

    /// Relays one request.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let refuse = |status, title| {
            self.counters.refused.fetch_add(1, Relaxed);
            problem(status, "about:blank", title)
        };
        let Some(target) = self.targets.iter().find(|target| target.path == request.uri().path()) else {
            return refuse(StatusCode::NOT_FOUND, "this relay serves no such gateway");
        };
        if request.method() != Method::POST {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "POST an encapsulated request");
        }
        let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let Some(form) = media_type.and_then(Form::of_request) else {
            return refuse(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the media type is message/ohttp-req or message/ohttp-chunked-req",
            );
        };
        if request.body().size_hint().lower() > self.limits.bytes {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large");
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.counters.full.fetch_add(1, Relaxed);
            return problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "about:blank",
                "the relay is full: try again later",
            );
        };
        let failed = |status, title| {
            self.counters.gateway.fetch_add(1, Relaxed);
            problem(status, "about:blank", title)
        };
        let (head, body) = request.into_parts();
        let Ok(outgoing) = outgoing(target, form, &head.headers, self.passed(body, None)) else {
            return failed(StatusCode::INTERNAL_SERVER_ERROR, "the request cannot be relayed");
        };
        let wait = Duration::from_secs(self.limits.answer_seconds);
        match timeout(wait, target.client.request(outgoing)).await {
            Err(_) => failed(StatusCode::GATEWAY_TIMEOUT, "the gateway did not answer in time"),
            Ok(Err(_)) => failed(StatusCode::BAD_GATEWAY, "the gateway cannot be reached"),
            Ok(Ok(response)) => {
                self.counters.exchanges.fetch_add(1, Relaxed);
                self.response(form, response, place).unwrap_or_else(|| {
                    failed(StatusCode::BAD_GATEWAY, "the gateway's answer is not in the expected form")
                })
            }
        }
    }

    fn response(
        &self,
        form: Form,
        response: Response<Incoming>,
        place: OwnedSemaphorePermit,
    ) -> Option<Response<Body>> {
        let (head, body) = response.into_parts();
        let media_type = head.headers.get(CONTENT_TYPE)?;
        // An encapsulated answer, or a problem: a relay carries nothing else.
        if media_type != form.response_type() && media_type != PROBLEM {
            return None;
        }
        let length = body.size_hint().exact();
        let mut response = Response::new(self.passed(body, Some(place)));
        *response.status_mut() = head.status;
        for name in [CONTENT_TYPE, CACHE_CONTROL, RETRY_AFTER, INCREMENTAL] {
            if let Some(value) = head.headers.get(&name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        if let Some(length) = length {
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        Some(response)
    }

    fn passed(&self, body: Incoming, place: Option<OwnedSemaphorePermit>) -> Outgoing {
        let idle = Duration::from_secs(self.limits.idle_seconds);
        let (left, sleep) = (self.limits.bytes, Box::pin(tokio::time::sleep(idle)));
        Passed { body, left, idle, sleep, _place: place }.boxed_unsync()
    }
}

fn target(gateway: &GatewayAt, folder: &Path) -> Result<Target, RelayError> {
    let refuse = || RelayError::Url(gateway.url.clone());
    let uri: Uri = gateway.url.parse().map_err(|_| refuse())?;
    let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme)).ok_or_else(refuse)?;
    let plain = scheme == "http";
    uri.host().ok_or_else(refuse)?;
    let tls = match (&gateway.roots, plain) {
        (Some(roots), _) => crate::tls::client(Some(&folder.join(roots)))?,
        (None, false) => crate::tls::client(None)?,
        // Never used: without TLS there is no certificate to check.
        (None, true) => crate::tls::client_without_roots()?,
    };
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let mut http = HttpConnector::new_with_resolver(Addresses::new(&gateway.addresses));
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(Duration::from_secs(5)));
    http.set_keepalive(Some(keepalive::IDLE));
    http.set_keepalive_interval(Some(keepalive::INTERVAL));
    http.set_keepalive_retries(Some(keepalive::RETRIES));
    // HTTP/1.1, a connection for each exchange: on one HTTP/2 connection those who read slowly would use up the window of all,
    // and a load balancer could not spread them over gateways.
    let connector = connector.enable_http1().wrap_connector(http);
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .http1_max_buf_size(64 * 1024)
        // RFC 9458 §6.5: a relay repeats nothing.
        .retry_canceled_requests(false);
    Ok(Target { path: gateway.path.clone(), uri, client: builder.build(connector) })
}

fn outgoing(
    target: &Target,
    form: Form,
    received: &HeaderMap,
    body: Outgoing,
) -> Result<Request<Outgoing>, hyper::http::Error> {
    let mut request = Request::post(target.uri.clone()).header(CONTENT_TYPE, form.request_type());
    if let Some(incremental) = received.get(INCREMENTAL).filter(|value| *value == "?1") {
        request = request.header(INCREMENTAL, incremental);
    }
    request.body(body)
}

/// A body that is passed on piece by piece, within its limits.
struct Passed {
    body: Incoming,
    left: u64,
    idle: Duration,
    sleep: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl hyper::body::Body for Passed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            ready!(self.sleep.as_mut().poll(context));
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        };
        let deadline = Instant::now() + self.idle;
        self.sleep.as_mut().reset(deadline);
        let Some(frame) = frame else { return Poll::Ready(None) };
        // What broke, and where, is nobody's business on the other side.
        let Ok(frame) = frame else { return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))) };
        // Trailers are passed on by no relay: nothing in OHTTP has any.
        let Ok(data) = frame.into_data() else { return Poll::Ready(None) };
        let Some(left) = self.left.checked_sub(data.len() as u64) else {
            return Poll::Ready(Some(Err(io::ErrorKind::FileTooLarge.into())));
        };
        self.left = left;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
