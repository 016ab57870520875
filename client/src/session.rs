//! An attested TLS session with a guest.

use crate::policy::{ClientPolicy, ProofError, Resolved};
use crate::shape;
use crate::text::printable;
use attestation::report_data::{EXPORTER_LABEL, EXPORTER_LEN, Exporter, NONCE_LEN, Nonce};
use attestation::verifier::{Check, Verdict, VerifyError, stapled_proof, verify_certificate, verify_fresh};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use privacy::token::structure::Token;
use privacy::transport::{TransportError, Way};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, NamedGroup, SignatureScheme};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use transparency::verify::Logged;
use wire::task::{ErrorBody, ErrorCode};

/// Most bytes of an answer that is not a stream: evidence with its certificates, or an error.
const ANSWER_BYTES: usize = 2 * attestation::evidence::MAX_ENCODED;
/// Most characters that are shown of what a guest says about a refusal.
const REASON_CHARS: usize = 300;

/// Why there is no session, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Nothing answers at the address.
    #[error("cannot reach {server}: {source}; is the guest running and listening there?")]
    Connect {
        /// The address.
        server: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Something answers, but does not complete a TLS 1.3 handshake.
    #[error("no TLS 1.3 session with {server}: {source}; is this a Cloister guest?")]
    Handshake {
        /// The address.
        server: String,
        /// The reason.
        source: io::Error,
    },
    /// There is no way through relay and gateway, or it ended.
    #[error("on the way to the guest: {0}")]
    Way(TransportError),
    /// The evidence does not satisfy the policy. Nothing was sent.
    #[error("the guest's evidence was rejected, nothing was sent: {0}")]
    Evidence(#[from] VerifyError),
    /// The log does not vouch for the image. Nothing was sent.
    #[error("the guest's image was rejected, nothing was sent: {0}")]
    Proof(#[from] ProofError),
    /// The random number generator of this device failed.
    #[error("this device's random number generator failed; no nonce, no session")]
    Random,
    /// The guest refused a request.
    #[error("the guest refused the request: {message}")]
    Refused {
        /// For programs; `None` if the answer was not in the expected form.
        code: Option<ErrorCode>,
        /// For people.
        message: String,
    },
    /// The connection broke off.
    #[error(
        "the guest went away before the answer was complete; what was shown so far may be cut off; try again: through a gateway, \
         another guest answers"
    )]
    Broken,
    /// The guest fell silent.
    #[error("the guest did not answer for {} s; it may be overloaded, try again later", .0.as_secs())]
    Silent(Duration),
    /// The answer is not one that a guest gives.
    #[error("the guest's answer is not in the expected form; client and image may be of different versions")]
    Malformed,
}

impl From<hyper::Error> for SessionError {
    fn from(error: hyper::Error) -> Self {
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
        match source.and_then(TransportError::of) {
            Some(way) => Self::Way(way.clone()),
            None if error.is_parse() => Self::Malformed,
            None => Self::Broken,
        }
    }
}

impl SessionError {
    /// The same refusal in this program's words: whoever refuses evidence is not known to be a guest, and has no say
    /// in what a person reads.
    fn in_own_words(self) -> Self {
        match self {
            Self::Refused { code, .. } => {
                let message = match code {
                    Some(ErrorCode::Busy) => "it is busy; try again later",
                    _ => "it gave no evidence, so nothing was sent; its operator's events say more",
                };
                Self::Refused { code, message: message.into() }
            }
            other => other,
        }
    }
}

/// A step on the way to a session, for showing progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// TCP.
    Connecting,
    /// TLS, with the evidence in the certificate.
    Handshake,
    /// Fresh evidence, bound to this connection.
    Evidence,
}

/// An attested session: it exists only after all evidence was accepted.
pub struct Session {
    sender: SendRequest<Full<Bytes>>,
    host: String,
    verdict: Verdict,
    logged: Option<Logged>,
    key_exchange: NamedGroup,
    patience: Duration,
    padded: bool,
}

impl Session {
    /// Connects to `server` (`HOST:PORT`) and appraises its evidence under `policy`, with this device's clock.
    /// No single wait is longer than `patience`.
    pub async fn connect(
        server: &str,
        policy: Arc<ClientPolicy>,
        patience: Duration,
        mut progress: impl FnMut(Step),
    ) -> Result<Self, SessionError> {
        progress(Step::Connecting);
        let connect_error = |source| SessionError::Connect { server: server.to_owned(), source };
        let tcp = timeout(patience, TcpStream::connect(server))
            .await
            .map_err(|_| SessionError::Silent(patience))?
            .map_err(connect_error)?;
        tcp.set_nodelay(true).map_err(connect_error)?;
        Self::over(tcp, server, policy, patience, progress).await
    }

    /// The same through a relay and a gateway, which know the client's address and the guest, each one of them. `token` pays
    /// for the session and is not used again, whatever comes of it.
    pub async fn through(
        way: &Way,
        token: &Token,
        policy: Arc<ClientPolicy>,
        patience: Duration,
        mut progress: impl FnMut(Step),
    ) -> Result<Self, SessionError> {
        progress(Step::Connecting);
        let tunnel = way.open(token).map_err(SessionError::Way)?;
        Self::over(tunnel, "a guest behind the gateway", policy, patience, progress).await
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        server: &str,
        policy: Arc<ClientPolicy>,
        patience: Duration,
        mut progress: impl FnMut(Step),
    ) -> Result<Self, SessionError> {
        progress(Step::Handshake);
        let verifier = Arc::new(EvidenceVerifier::new(policy));
        let random = Arc::new(ClientRandom::default());
        let connector = TlsConnector::from(Arc::new(configuration(verifier.clone(), random.clone())?));
        // The name is not what is checked, the evidence is; it must only be a valid one.
        let name = ServerName::try_from("cloister.invalid").map_err(|_| SessionError::Malformed)?;
        let mut stream = timeout(patience, connector.connect(name, stream))
            .await
            .map_err(|_| SessionError::Silent(patience))?
            .map_err(|source| match (verifier.outcome(), TransportError::of(&source)) {
                (Some(Err(rejection)), _) => rejection.into(),
                (_, Some(way)) => SessionError::Way(way.clone()),
                _ => SessionError::Handshake { server: server.to_owned(), source },
            })?;
        let (in_handshake, Resolved { policy, logged }) =
            verifier.outcome().ok_or(SessionError::Malformed)??;
        let (_, tls) = stream.get_ref();
        let key_exchange = tls.negotiated_key_exchange_group().ok_or(SessionError::Malformed)?.name();
        let exporter: Exporter = tls
            .export_keying_material([0; EXPORTER_LEN], EXPORTER_LABEL, None)
            .map_err(|_| SessionError::Malformed)?;
        let certificate = tls
            .peer_certificates()
            .and_then(|chain| chain.first())
            .ok_or(SessionError::Malformed)?
            .clone()
            .into_owned();

        progress(Step::Evidence);
        let pushed = if tls.alpn_protocol() == Some(wire::path::EVIDENCE_FIRST) {
            let evidence = timeout(patience, pushed_evidence(&mut stream));
            Some(evidence.await.map_err(|_| SessionError::Silent(patience))??)
        } else {
            None
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        // The name of the host is not what is checked, and of a guest behind a gateway it is not known.
        let host = if server.contains(' ') { "cloister.invalid" } else { server }.to_owned();
        if let Some(evidence) = pushed {
            let nonce = random.0.lock().map_or(None, |random| *random).ok_or(SessionError::Malformed)?;
            let verdict =
                verify_fresh(&evidence, &nonce, &certificate, &exporter, &policy, SystemTime::now())?
                    .after(&in_handshake);
            return Ok(Self { sender, host, verdict, logged, key_exchange, patience, padded: true });
        }
        let mut nonce: Nonce = [0; NONCE_LEN];
        aws_lc_rs::default_provider().secure_random.fill(&mut nonce).map_err(|_| SessionError::Random)?;
        let response = send(
            &mut sender,
            &host,
            patience,
            wire::path::EVIDENCE,
            "application/octet-stream",
            nonce.to_vec(),
        )
        .await
        .map_err(SessionError::in_own_words)?;
        let evidence = whole(response, patience).await?;
        let verdict = verify_fresh(&evidence, &nonce, &certificate, &exporter, &policy, SystemTime::now())?
            .after(&in_handshake);
        Ok(Self { sender, host, verdict, logged, key_exchange, patience, padded: true })
    }

    /// The key exchange of the TLS session.
    pub fn key_exchange(&self) -> NamedGroup {
        self.key_exchange
    }

    /// What was checked, and what the policy relaxed.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// What the log says of the image; `None` if the policy pins it.
    pub fn logged(&self) -> Option<&Logged> {
        self.logged.as_ref()
    }

    /// Sends requests as long as they are, to measure what padding them is worth. An observer of the network then sees
    /// how much is asked.
    #[must_use]
    pub fn without_padding(self) -> Self {
        Self { padded: false, ..self }
    }

    /// Sends a JSON body to `path`, padded to one of a few sizes (REQUIREMENTS C6); the answer's status is 200.
    pub(crate) async fn post(&mut self, path: &str, body: Vec<u8>) -> Result<Incoming, SessionError> {
        let body = if self.padded { shape::padded(path, body) } else { body };
        let response =
            send(&mut self.sender, &self.host, self.patience, path, "application/json", body).await?;
        Ok(response.into_body())
    }

    /// The longest single wait.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }
}

async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    host: &str,
    patience: Duration,
    path: &str,
    media_type: &str,
    body: Vec<u8>,
) -> Result<Response<Incoming>, SessionError> {
    let request = Request::post(path)
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, media_type)
        .body(Full::from(body))
        .map_err(|_| SessionError::Malformed)?;
    let waiting = async {
        sender.ready().await?;
        sender.send_request(request).await
    };
    let response = timeout(patience, waiting).await.map_err(|_| SessionError::Silent(patience))??;
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    let status = response.status();
    let body = whole(response, patience).await?;
    Err(match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(ErrorBody { error }) => {
            let message = printable(&error.message).chars().take(REASON_CHARS).collect();
            SessionError::Refused { code: Some(error.code), message }
        }
        Err(_) => SessionError::Refused { code: None, message: format!("HTTP status {}", status.as_u16()) },
    })
}

async fn whole(response: Response<Incoming>, patience: Duration) -> Result<Bytes, SessionError> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES);
    let collected = timeout(patience, body.collect()).await.map_err(|_| SessionError::Silent(patience))?;
    let collected = collected.map_err(|error| {
        if error.is::<LengthLimitError>() { SessionError::Malformed } else { SessionError::Broken }
    })?;
    Ok(collected.to_bytes())
}

/// Evidence that came with the guest's first flight ([`wire::path::EVIDENCE_FIRST`]).
async fn pushed_evidence(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, SessionError> {
    let broken = |error: io::Error| match TransportError::of(&error) {
        Some(way) => SessionError::Way(way.clone()),
        None => SessionError::Broken,
    };
    let length = stream.read_u32().await.map_err(broken)? as usize;
    if length == 0 {
        let refused = SessionError::Refused { code: Some(ErrorCode::Internal), message: String::new() };
        return Err(refused.in_own_words());
    }
    if length > ANSWER_BYTES {
        return Err(SessionError::Malformed);
    }
    let mut evidence = vec![0; length];
    stream.read_exact(&mut evidence).await.map_err(broken)?;
    Ok(evidence)
}

/// Notes `ClientHello.random`, which rustls tells a key log, and lets no secret in.
#[derive(Debug, Default)]
struct ClientRandom(Mutex<Option<Nonce>>);

impl rustls::KeyLog for ClientRandom {
    fn log(&self, _: &str, client_random: &[u8], _: &[u8]) {
        if let (Ok(mut random), Ok(known)) = (self.0.lock(), client_random.try_into()) {
            *random = Some(known);
        }
    }
}

/// TLS 1.3 only, the hybrid key exchange first, nothing resumed (REQUIREMENTS B11).
fn configuration(
    verifier: Arc<EvidenceVerifier>,
    random: Arc<ClientRandom>,
) -> Result<ClientConfig, SessionError> {
    let provider = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut configuration = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| SessionError::Malformed)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    configuration.resumption = rustls::client::Resumption::disabled();
    configuration.enable_sni = false;
    configuration.alpn_protocols = vec![wire::path::EVIDENCE_FIRST.to_vec(), b"http/1.1".to_vec()];
    configuration.key_log = random;
    Ok(configuration)
}

/// Appraises the evidence in the certificate during the handshake, in place of a web PKI.
#[derive(Debug)]
struct EvidenceVerifier {
    policy: Arc<ClientPolicy>,
    algorithms: WebPkiSupportedAlgorithms,
    outcome: Mutex<Option<Outcome>>,
}

/// What came of a certificate: what was found, and the policy that it was found under.
type Outcome = Result<(Verdict, Resolved), Rejection>;

/// Why a certificate was rejected.
#[derive(Clone, Debug)]
enum Rejection {
    Evidence(VerifyError),
    Proof(ProofError),
}

impl From<VerifyError> for Rejection {
    fn from(error: VerifyError) -> Self {
        Self::Evidence(error)
    }
}

impl From<ProofError> for Rejection {
    fn from(error: ProofError) -> Self {
        Self::Proof(error)
    }
}

impl From<Rejection> for SessionError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Evidence(error) => Self::Evidence(error),
            Rejection::Proof(error) => Self::Proof(error),
        }
    }
}

impl EvidenceVerifier {
    fn new(policy: Arc<ClientPolicy>) -> Self {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Self { policy, algorithms, outcome: Mutex::new(None) }
    }

    /// What came of the certificate, if one was shown.
    fn outcome(&self) -> Option<Outcome> {
        self.outcome.lock().ok()?.take()
    }

    /// The proof first: it says which image the evidence must be of.
    fn appraise(&self, certificate: &[u8], now: SystemTime) -> Outcome {
        let stapled = || stapled_proof(certificate).map_err(Rejection::Evidence);
        let resolved = self.policy.resolve(stapled, now)?;
        let mut verdict = verify_certificate(certificate, &resolved.policy, now)?;
        if resolved.logged.is_some() {
            verdict.checked.insert(0, Check::Log);
        }
        Ok((verdict, resolved))
    }
}

impl ServerCertVerifier for EvidenceVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !intermediates.is_empty() {
            return Err(rustls::Error::General("a guest sends one certificate".into()));
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let outcome = self.appraise(certificate, now);
        let refused =
            rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure);
        let answer = if outcome.is_ok() { Ok(ServerCertVerified::assertion()) } else { Err(refused) };
        if let Ok(mut slot) = self.outcome.lock() {
            *slot = Some(outcome);
        }
        answer
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
