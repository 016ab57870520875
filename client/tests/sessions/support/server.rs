//! A TLS server that does what its script says, and remembers what it was sent.

use super::amd_sp::{AmdSp, SOURCE};
use attestation::batch;
use attestation::evidence::{CertificateEvidence, FreshEvidence};
use attestation::report_data::{self, EXPORTER_LABEL, Exporter};
use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use wire::task::TaskEvent;

/// `id-pe-cmw`.
const ID_PE_CMW: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 35];

/// A guest's key and certificate, in hands that can do anything with them.
pub struct Identity {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    evidence: CertificateEvidence,
    amd_sp: AmdSp,
}

impl Identity {
    /// Evidence is in the certificate and signed by `amd_sp`.
    pub fn new(amd_sp: AmdSp) -> Self {
        let key = new_key();
        let manifest = SOURCE.manifest.digest();
        let attested = amd_sp.attest(&report_data::certificate(&key.subject_public_key_info(), &manifest));
        let evidence = CertificateEvidence { report: attested.report, certificates: attested.certificates };
        let extension = evidence.to_extension();
        let certificate = certificate(&key, vec![CustomExtension::from_oid_content(ID_PE_CMW, extension)]);
        Self { key, certificate, evidence, amd_sp }
    }

    /// No evidence is in the certificate.
    pub fn without_evidence() -> Self {
        let honest = Self::honest();
        Self { certificate: certificate(&honest.key, vec![]), ..honest }
    }

    /// The other's evidence is in this one's certificate.
    pub fn with_evidence_of(self, other: &Self) -> Self {
        let extension = other.evidence.to_extension();
        let extension = CustomExtension::from_oid_content(ID_PE_CMW, extension);
        Self { certificate: certificate(&self.key, vec![extension]), ..self }
    }

    /// An honest guest's.
    pub fn honest() -> Self {
        Self::new(AmdSp::honest())
    }

    /// The same certificate with a key of somebody else's.
    pub fn without_its_key(self) -> Self {
        Self { key: new_key(), ..self }
    }

    /// What the AMD-SP certifies for `nonce` on the connection with this exporter.
    pub fn fresh_evidence(&self, nonce: &[u8], exporter: &Exporter) -> Vec<u8> {
        let nonce = nonce.try_into().expect("a nonce");
        let spki = self.key.subject_public_key_info();
        let leaf = report_data::fresh(nonce, &spki, exporter, &SOURCE.manifest.digest());
        let attested = self.amd_sp.attest(&batch::root(&[leaf]));
        FreshEvidence { report: attested.report, certificates: attested.certificates, index: 0, path: vec![] }
            .encode()
    }

    /// The certificate's report in the form of fresh evidence.
    pub fn certificate_evidence_as_fresh(&self) -> Vec<u8> {
        let CertificateEvidence { report, certificates } = self.evidence.clone();
        FreshEvidence { report, certificates, index: 0, path: vec![] }.encode()
    }

    /// A server's configuration: TLS 1.3, as rustls makes it.
    pub fn config(&self) -> ServerConfig {
        self.config_with(&[&rustls::version::TLS13], 1)
    }

    /// With other versions of TLS, or with the certificate sent several times.
    pub fn config_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        certificates: usize,
    ) -> ServerConfig {
        self.config_of(aws_lc_rs::default_provider(), versions, certificates)
    }

    /// With other cryptography, too.
    pub fn config_of(
        &self,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
        certificates: usize,
    ) -> ServerConfig {
        let provider = Arc::new(provider);
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key");
        let key = provider.key_provider.load_private_key(key).expect("a key");
        let certified = CertifiedKey::new(vec![self.certificate.clone(); certificates], key);
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Always(Arc::new(certified))))
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).expect("a key")
}

fn certificate(key: &KeyPair, extensions: Vec<CustomExtension>) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.custom_extensions = extensions;
    params.self_signed(key).expect("a certificate").der().clone()
}

/// Gives the same key and certificate to everybody, whether they belong together or not.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A request that was received whole.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub body: Vec<u8>,
}

/// One client's connection, once its handshake is complete.
pub struct Connection {
    pub tls: StreamOwned<ServerConnection, TcpStream>,
    received: Arc<Mutex<Vec<Request>>>,
}

impl Connection {
    /// The next request, unless the client leaves first.
    pub fn request(&mut self) -> Option<Request> {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            bytes.push(self.byte()?);
        };
        let text = String::from_utf8(bytes[..head].to_vec()).expect("the head is text");
        let path = text.split(' ').nth(1).expect("a path").to_owned();
        let length = text.to_ascii_lowercase();
        let length =
            length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
        let mut body = vec![0; length.expect("a length")];
        self.tls.read_exact(&mut body).ok()?;
        let request = Request { path, body };
        self.received.lock().expect("no test failed").push(request.clone());
        Some(request)
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.tls.read_exact(&mut byte).ok()?;
        Some(byte[0])
    }

    /// This connection's exporter.
    pub fn exporter(&self) -> Exporter {
        self.tls
            .conn
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .expect("the handshake is complete")
    }

    /// Sends bytes as they are; `false` if the client has left.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.tls.write_all(bytes).and_then(|()| self.tls.flush()).is_ok()
    }

    /// Answers with a body of known length.
    pub fn answer(&mut self, status: u16, body: &[u8]) {
        let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send(&[head.as_bytes(), body].concat());
    }

    /// Starts a stream of events.
    pub fn start_events(&mut self) {
        self.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
    }

    /// Sends one chunk of a stream, the last one if it is empty; `false` if the client has left.
    pub fn chunk(&mut self, bytes: &[u8]) -> bool {
        let size = format!("{:x}\r\n", bytes.len());
        self.send(&[size.as_bytes(), bytes, b"\r\n"].concat())
    }

    /// Sends one event of a stream.
    pub fn event(&mut self, event: &TaskEvent) {
        let json = serde_json::to_string(event).expect("JSON");
        self.chunk(format!("data: {json}\n\n").as_bytes());
    }

    /// Sends text of an answer.
    pub fn text(&mut self, text: &str) {
        self.event(&TaskEvent::Delta { text: text.into() });
    }

    /// Says nothing more until the client leaves.
    pub fn fall_silent(&mut self) {
        while self.byte().is_some() {}
    }

    /// Ends TLS and TCP in order.
    pub fn close(&mut self) {
        self.tls.conn.send_close_notify();
        let _ = self.tls.flush();
    }
}

/// A server that runs as long as the test's process.
pub struct Server {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Calls `script` for each client that completes the handshake.
    pub fn start(config: ServerConfig, script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        let config = Arc::new(config);
        let received: Arc<Mutex<Vec<Request>>> = Arc::default();
        let log = received.clone();
        let address = listen(move |tcp| {
            let connection = ServerConnection::new(config.clone()).expect("a connection");
            let mut tls = StreamOwned::new(connection, tcp);
            while tls.conn.is_handshaking() {
                if tls.conn.complete_io(&mut tls.sock).is_err() {
                    return;
                }
            }
            script(&mut Connection { tls, received: log.clone() });
        });
        Self { address, received }
    }

    /// Gives honest evidence, and calls `script` once a task was asked for.
    pub fn attested(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        let identity = Identity::honest();
        Self::start(identity.config(), move |connection| {
            if give_evidence(&identity, connection) && connection.request().is_some() {
                script(connection);
            }
        })
    }

    /// Answers the nonce with `evidence`, which is made of it and the exporter.
    pub fn answering(
        identity: Identity,
        evidence: impl Fn(&Identity, &[u8], Exporter) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::start(identity.config(), move |connection| {
            if let Some(request) = connection.request() {
                let evidence = evidence(&identity, &request.body, connection.exporter());
                connection.answer(200, &evidence);
                while connection.request().is_some() {}
            }
        })
    }

    /// Checks that nothing but nonces ever arrived.
    pub fn got_nonces_only(&self) {
        for request in self.received.lock().expect("no script failed").iter() {
            assert_eq!((request.path.as_str(), request.body.len()), (wire::path::EVIDENCE, 32));
        }
    }

    /// The requests so far.
    pub fn received(&self) -> Vec<Request> {
        self.received.lock().expect("no script failed").clone()
    }
}

/// Answers the nonce honestly; `false` if the client left.
pub fn give_evidence(identity: &Identity, connection: &mut Connection) -> bool {
    let Some(request) = connection.request() else { return false };
    let evidence = identity.fresh_evidence(&request.body, &connection.exporter());
    connection.answer(200, &evidence);
    true
}

/// Accepts TCP connections, each in a thread of its own.
pub fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(tcp));
        }
    });
    address
}
