//! The HTTP side of relay and gateway: connections with bounds.
//!
//! Nothing here knows or keeps an address: what accepts a connection drops its peer's address at once (REQUIREMENTS C5).

use crate::body::{Body, whole};
use crate::reload::Reloads;
use crate::tls::{TlsError, certificates};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Most bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;
/// Requests at a time on one HTTP/2 connection.
const STREAMS: u32 = 256;

/// What a listener may cost.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at a time; further ones are closed at once.
    pub connections: usize,
    /// Seconds for a TLS handshake, for a request's head, and for a connection without requests.
    pub idle_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 16_384, idle_seconds: 15 }
    }
}

/// Files of a TLS server; [`run`] reads them again when they may have changed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// PEM: the certificate and those between it and a root.
    pub certificate: PathBuf,
    /// PEM: its key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// The configuration: TLS 1.2 and 1.3, HTTP/2 preferred to HTTP/1.1. Paths are relative to `folder`.
    pub fn load(&self, folder: &Path) -> Result<Arc<ServerConfig>, TlsError> {
        let path = folder.join(&self.key);
        let key = PrivateKeyDer::from_pem_file(&path).map_err(|source| TlsError::Pem { path, source })?;
        let chain = certificates(&folder.join(&self.certificate))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // What was sent early can be replayed, and a ticket tells that two connections are one client's.
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Arc::new(config))
    }
}

/// Serves connections until `stop`, then lets those at work finish for as long as `grace`.
pub async fn serve<S, F>(
    listener: TcpListener,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    limits: Limits,
    service: S,
    stop: CancellationToken,
    grace: Duration,
) where
    S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    let idle = Duration::from_secs(limits.idle_seconds);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let Ok((stream, _address)) = accepted else {
            // Too many open files: what is open must end first.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let _ = stream.set_nodelay(true);
        // The newest certificate; connections keep the one that they began with.
        let acceptor = tls.as_ref().map(|tls| TlsAcceptor::from(tls.borrow().clone()));
        let (service, stop) = (service.clone(), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            match acceptor {
                None => connection(stream, idle, service, stop).await,
                Some(acceptor) => {
                    if let Ok(Ok(stream)) = timeout(idle, acceptor.accept(stream)).await {
                        connection(stream, idle, service, stop).await;
                    }
                }
            }
        });
    }
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    let _ = timeout(grace, places.acquire_many(all)).await;
}

async fn connection<T, S, F>(stream: T, idle: Duration, service: S, stop: CancellationToken)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let open = Arc::new(AtomicUsize::new(0));
    let answer = service_fn(|request| {
        let place = Place::new(&open);
        let answer = service(request);
        async move { Ok::<_, Infallible>(answer.await.map(|body| Placed { body, _place: place })) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        // What a peer that does not read can make this side keep, for each request and in all.
        .max_send_buf_size(64 * 1024)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), answer));
    let mut quiet_since = Instant::now();
    let mut ending = false;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = stop.cancelled(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(idle / 3) => {
                if open.load(Relaxed) > 0 {
                    quiet_since = Instant::now();
                } else if quiet_since.elapsed() >= idle * 2 {
                    return;
                } else if quiet_since.elapsed() >= idle && !ending {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Counts a request until its answer has gone.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Relaxed);
        Self(open.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

struct Placed {
    body: Body,
    _place: Place,
}

impl hyper::body::Body for Placed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer with a body that nobody keeps.
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("private, no-store"));
    response
}

/// A problem in the form of RFC 9457; `kind` is a URI, or `about:blank` where the status says it all.
pub fn problem(status: StatusCode, kind: &str, title: &str) -> Response<Body> {
    answer(status, PROBLEM_JSON, problem_json(kind, title))
}

/// Media type of problems.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The body of a problem. Both parts are this program's own words.
pub fn problem_json(kind: &str, title: &str) -> String {
    format!("{{\"type\":\"{kind}\",\"title\":\"{title}\"}}\n")
}

/// Where a service listens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// `ADDRESS:PORT`.
    pub address: String,
    /// Files for TLS. Without them the address must be of this machine, or `behind_tls` be set.
    pub tls: Option<TlsFiles>,
    /// Something in front of this service speaks TLS with the world.
    #[serde(default)]
    pub behind_tls: bool,
    /// `ADDRESS:PORT` at which numbers are given in the Prometheus text format, without TLS: not for the world.
    pub metrics: Option<String>,
    /// Bounds of the listener.
    #[serde(default)]
    pub limits: Limits,
}

/// Why a service does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// The address.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// An address of the open network without TLS.
    #[error(
        "{0} is not an address of this machine, so give certificate and key in [listen.tls], or set behind_tls = true"
    )]
    Plain(String),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No runtime or no signals.
    #[error("this system cannot run a service: {0}")]
    System(io::Error),
}

/// Serves at `listen` until SIGINT or SIGTERM, and then for as long as `grace` to those at work. Says where it listens on
/// standard output. `folder` is where paths of files begin.
pub async fn run<S, F>(
    listen: &Listen,
    folder: &Path,
    grace: Duration,
    service: S,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> Result<(), ListenError>
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = bind(&listen.address).await?;
    let address = listener.local_addr().map_err(ListenError::System)?;
    // Also where there is nothing to read again: the signal must not end a service.
    let reloads = Reloads::new().map_err(ListenError::System)?;
    let tls = listen.tls.clone().map(|files| reloaded(files, folder, reloads)).transpose()?;
    if tls.is_none() && !listen.behind_tls && !address.ip().is_loopback() {
        return Err(ListenError::Plain(listen.address.clone()));
    }
    let stop = CancellationToken::new();
    if let Some(at) = &listen.metrics {
        let listener = bind(at).await?;
        let answer = move |_| {
            let text = metrics();
            async move { answer(StatusCode::OK, "text/plain; version=0.0.4", text) }
        };
        let limits = Limits { connections: 16, idle_seconds: 5 };
        tokio::spawn(serve(listener, None, limits, answer, stop.clone(), Duration::ZERO));
    }
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(ListenError::System)?;
    println!("listening on {address}");
    let served = serve(listener, tls, listen.limits, service, stop.clone(), grace);
    let mut served = pin!(served);
    tokio::select! {
        () = &mut served => return Ok(()),
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    stop.cancel();
    served.await;
    Ok(())
}

/// The files' configuration, as it is now and whenever they are read again.
fn reloaded(
    files: TlsFiles,
    folder: &Path,
    mut reloads: Reloads,
) -> Result<watch::Receiver<Arc<ServerConfig>>, TlsError> {
    let (sender, receiver) = watch::channel(files.load(folder)?);
    let folder = folder.to_owned();
    tokio::spawn(async move {
        loop {
            reloads.next().await;
            match files.load(&folder) {
                Ok(config) => {
                    sender.send_replace(config);
                }
                Err(error) => eprintln!("error: {error}; the certificate that was read before stays in use"),
            }
        }
    });
    Ok(receiver)
}

async fn bind(address: &str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError::Address { address: address.to_owned(), source })
}
