//! A client: rustls over aws-lc-rs, which shares no cryptographic code with the service.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};
use std::io::{Read, Write};
use std::sync::Arc;

/// Takes any certificate, but checks the handshake's signature with it. What the certificate says is checked apart.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 was negotiated".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The client's default configuration.
pub fn config() -> ClientConfig {
    config_with(aws_lc_rs::default_provider(), &[&rustls::version::TLS13])
}

pub fn config_with(
    provider: CryptoProvider,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let provider = Arc::new(provider);
    ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .expect("the versions fit the provider")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth()
}

/// One TLS connection, not tied to any transport.
pub struct Client {
    pub tls: ClientConnection,
    /// Application data so far.
    pub received: Vec<u8>,
    /// Why TLS broke off, if it did.
    pub error: Option<Error>,
    pub closed: bool,
}

impl Client {
    pub fn new(config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("guest.invalid").expect("a name");
        let tls = ClientConnection::new(config.clone(), name).expect("a client");
        Self { tls, received: Vec::new(), error: None, closed: false }
    }

    /// Bytes for the network.
    pub fn outgoing(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut bytes).expect("a Vec takes everything");
        }
        bytes
    }

    /// Takes bytes from the network.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.error.is_none() {
            self.tls.read_tls(&mut bytes).expect("a slice gives everything");
            match self.tls.process_new_packets() {
                Ok(state) => self.closed |= state.peer_has_closed(),
                Err(error) => self.error = Some(error),
            }
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = self.tls.reader().read(&mut chunk) {
                self.received.extend_from_slice(&chunk[..count]);
            }
        }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).expect("the client buffers");
    }

    /// The exporter that evidence is bound to.
    pub fn exporter(&self) -> [u8; 32] {
        let label = attestation::report_data::EXPORTER_LABEL;
        self.tls.export_keying_material([0; 32], label, None).expect("the handshake is complete")
    }

    pub fn certificate(&self) -> &[u8] {
        self.tls.peer_certificates().expect("the handshake is complete")[0].as_ref()
    }

    /// Takes one whole response off what was received: status, head and body, chunks joined.
    pub fn response(&mut self) -> Option<Response> {
        let (response, used) = Response::parse(&self.received)?;
        self.received.drain(..used);
        Some(response)
    }
}

pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: guest\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The `code` of an error.
    pub fn error(&self) -> wire::task::ErrorCode {
        serde_json::from_slice::<wire::task::ErrorBody>(&self.body).expect("an error body").error.code
    }

    /// The payloads of server-sent events; between them are empty lines, and nothing else.
    pub fn events(&self) -> Vec<&str> {
        let lines = self.text().lines().filter(|line| !line.is_empty());
        lines.map(|line| line.strip_prefix("data: ").expect("an event")).collect()
    }

    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).expect("the head is ASCII");
        let status = head.strip_prefix("HTTP/1.1 ")?[..3].parse().expect("a status");
        if status == 100 {
            return Some((Self { status, head, body: Vec::new() }, end));
        }
        let field = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
            Some(line[name.len()..].trim().to_string())
        };
        if field("transfer-encoding:").as_deref() == Some("chunked") {
            let (body, used) = chunks(&bytes[end..])?;
            return Some((Self { status, head, body }, end + used));
        }
        let length: usize = field("content-length:")?.parse().expect("a length");
        let body = bytes.get(end..end + length)?.to_vec();
        Some((Self { status, head, body }, end + length))
    }
}

fn chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).ok()?, 16)
            .expect("a chunk size");
        at += line + 2;
        body.extend_from_slice(bytes.get(at..at + size)?);
        assert_eq!(bytes.get(at + size..at + size + 2)?, b"\r\n");
        at += size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}
