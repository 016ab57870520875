//! TLS of all three programs: which protocols they speak, whom they and their clients trust, and what happens when a file is wrong
//! or changes.

use crate::common::gateway;
use crate::common::log::{Log, key_entry};
use crate::support::{Authority, GATEWAY, ISSUER, Program, RELAY, run, until};
use privacy::gateway::keys::KemName;
use privacy::issuer::signing::SigningKey;
use privacy::ohttp::{Kem, KeyConfig, SecretKey};
use privacy::serve::{self, TlsFiles, problem, serve};
use privacy::token::structure::Token;
use privacy::transport::{Mode, TransportError, Way, WayError};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion, version};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use transparency::entry::Kind;

const ALL: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
/// What `[listen]` has in these tests.
const LISTEN: &str =
    "address = \"127.0.0.1:0\"\ntls = { certificate = \"server.pem\", key = \"server.key\" }";

/// A handshake with the program at `address`, as somebody who trusts the roots in a file.
async fn handshake(
    address: &str,
    roots: &Path,
    protocols: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> io::Result<TlsStream<TcpStream>> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(roots).unwrap() {
        store.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), stream).await
}

/// Relay, gateway and issuer, each with the certificate `server.pem` in a folder of its own.
async fn all(authority: &Authority) -> Vec<(&'static str, Program, tempfile::TempDir)> {
    let log = Log::new().await;
    let issuer = SigningKey::generate().unwrap();
    let proof =
        log.log(key_entry(Kind::IssuerKey, "issuer.example", 1, issuer.public().spki().to_vec())).await;
    [("relay", RELAY), ("gateway", GATEWAY), ("issuer", ISSUER)]
        .into_iter()
        .map(|(name, program)| {
            let folder = tempfile::tempdir().unwrap();
            let at = folder.path();
            let arguments: &[&str] = match name {
                "relay" => {
                    let gateway = "[[gateway]]\npath = \"/gateway\"\nurl = \"http://127.0.0.1:1/\"";
                    fs::write(at.join("relay.toml"), format!("[listen]\n{LISTEN}\n\n{gateway}\n")).unwrap();
                    &["--config", "relay.toml"]
                }
                "gateway" => {
                    fs::write(at.join("proof"), &proof).unwrap();
                    let kem = KemName::X25519;
                    gateway::write(at, &log.trust, "127.0.0.1:1", kem, "redb:spent", &["proof"], LISTEN);
                    &["serve", "--config", "gateway.toml"]
                }
                _ => {
                    let init = ["init", "--folder", ".", "--name", "issuer.example"];
                    assert_eq!(run(program, &init, at).0, 0);
                    assert_eq!(run(program, &["new-key", "--folder", "."], at).0, 0);
                    let config = fs::read_to_string(at.join("issuer.toml")).unwrap();
                    fs::write(at.join("issuer.toml"), format!("{config}\n[listen]\n{LISTEN}\n")).unwrap();
                    &["serve", "--folder", "."]
                }
            };
            authority.certify(at, "server", "127.0.0.1");
            (name, Program::start(program, arguments, at), folder)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_gateway_and_issuer_speak_tls_and_take_a_new_certificate_while_they_run() {
    let (folder, authority, other) =
        (tempfile::tempdir().unwrap(), Authority::new("one"), Authority::new("two"));
    let (roots, strangers) = (folder.path().join("one.pem"), folder.path().join("two.pem"));
    authority.write(&roots);
    other.write(&strangers);
    for (name, mut program, at) in all(&authority).await {
        let address = &program.address;
        for (offered, chosen) in [
            (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
            (&[b"http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ] {
            let stream = handshake(address, &roots, offered, ALL).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen, "{name}");
            assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3), "{name}");
        }
        let old = handshake(address, &roots, &[], &[&version::TLS12]).await.unwrap();
        assert_eq!(old.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_2), "{name}");
        let unknown = handshake(address, &roots, &[b"smtp"], ALL).await;
        assert!(unknown.is_err(), "{name} speaks a protocol that it does not have");
        assert!(handshake(address, &strangers, &[], ALL).await.is_err(), "{name}: trusted by nobody");
        // Who speaks without TLS gets no answer in HTTP.
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "{name}");

        // A certificate that cannot be read changes nothing; a new one is for the connections from then on.
        let mut before = handshake(address, &roots, &[b"http/1.1"], ALL).await.unwrap();
        fs::write(at.path().join("server.pem"), "not a certificate").unwrap();
        program.hang_up();
        until("a complaint", async || program.said().contains("server.pem").then_some(())).await;
        assert!(program.said().contains("stays in use"), "{}", program.said());
        assert!(handshake(address, &roots, &[], ALL).await.is_ok(), "{name}");
        other.certify(at.path(), "server", "127.0.0.1");
        program.hang_up();
        until("the new certificate", async || handshake(address, &strangers, &[], ALL).await.ok()).await;
        assert!(handshake(address, &roots, &[], ALL).await.is_err(), "{name}: the old one is still shown");
        before.write_all(b"GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 9];
        before.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 ", "{name}: a connection that was open is served on");
        assert!(program.is_running());
    }
}

#[test]
fn a_program_whose_tls_is_incomplete_says_what_is_missing_and_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    one.certify(at, "server", "127.0.0.1");
    two.certify(at, "other", "127.0.0.1");
    fs::write(at.join("empty.pem"), "").unwrap();
    let with = |certificate: &str, key: &str| {
        format!("address = \"127.0.0.1:0\"\ntls = {{ certificate = \"{certificate}\", key = \"{key}\" }}")
    };
    for (listen, expected) in [
        (with("nowhere.pem", "server.key"), "nowhere.pem"),
        (with("server.pem", "nowhere.key"), "nowhere.key"),
        (with("server.pem", "server.pem"), "server.pem"),
        (with("server.pem", "other.key"), "TLS cannot be set up"),
        (with("empty.pem", "server.key"), "empty.pem"),
        ("address = \"0.0.0.0:0\"".into(), "give certificate and key in [listen.tls], or set behind_tls"),
        ("address = \"127.0.0.1:0\"\ntls = { certificate = \"server.pem\" }".into(), "missing field `key`"),
        ("address = \"256.0.0.1:0\"".into(), "cannot listen on 256.0.0.1:0"),
    ] {
        let gateway = "[[gateway]]\npath = \"/gateway\"\nurl = \"http://127.0.0.1:1/\"";
        fs::write(at.join("relay.toml"), format!("[listen]\n{listen}\n\n{gateway}\n")).unwrap();
        let (code, said, why) = run(RELAY, &["--config", "relay.toml"], at);
        assert_eq!((code, said.as_str()), (1, ""), "{listen}");
        assert!(why.contains(expected), "{listen}: {why}");
        assert!(!why.contains("PRIVATE KEY"), "{why}");
    }
}

/// A gateway with TLS in this process, which counts requests and answers each with a problem.
async fn counting_gateway(folder: &Path) -> (String, Arc<AtomicUsize>) {
    let files = TlsFiles { certificate: "gateway.pem".into(), key: "gateway.key".into() };
    let (_keep, tls) = watch::channel(files.load(folder).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let service = move |_| {
        counted.fetch_add(1, SeqCst);
        async { problem(hyper::StatusCode::IM_A_TEAPOT, "about:blank", "the gateway was reached") }
    };
    let (limits, stop) = (serve::Limits::default(), CancellationToken::new());
    tokio::spawn(serve(listener, Some(tls), limits, service, stop, Duration::ZERO));
    (url, seen)
}

fn relay(folder: &Path, gateway: &str) -> Program {
    fs::write(folder.join("relay.toml"), format!("[listen]\n{LISTEN}\n\n{gateway}\n")).unwrap();
    Program::start(RELAY, &["--config", "relay.toml"], folder)
}

fn way(relay: &Program, roots: Option<&Path>) -> Result<Way, WayError> {
    let config: KeyConfig = SecretKey::generate(1, Kem::X25519).unwrap().config().clone();
    Way::new(&format!("https://{}/gateway", relay.address), roots, config, Mode::Duplex)
}

async fn failure(way: &Way) -> TransportError {
    let mut bytes = [0; Token::LENGTH];
    bytes[1] = 2;
    let mut tunnel = way.open(&Token::parse(&bytes).unwrap()).unwrap();
    let error = tunnel.read_to_end(&mut Vec::new()).await.unwrap_err();
    TransportError::of(&error).cloned().unwrap_or_else(|| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_and_relay_go_on_only_where_the_certificate_holds() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let (roots, strangers) = (at.join("one.pem"), at.join("two.pem"));
    one.write(&roots);
    two.write(&strangers);
    one.certify(at, "server", "127.0.0.1");
    one.certify(at, "gateway", "127.0.0.1");
    let (url, seen) = counting_gateway(at).await;
    let listed = |roots: &str| format!("[[gateway]]\npath = \"/gateway\"\nurl = \"{url}\"\n{roots}");

    let good = relay(at, &listed("roots = \"one.pem\""));
    // The gateway's own words reach the client, over TLS on both hops.
    assert_eq!(failure(&way(&good, Some(&roots)).unwrap()).await, TransportError::Refused(418));
    assert_eq!(seen.load(SeqCst), 1);
    // A client whose roots are others, or the system's, does not speak with the relay.
    assert_eq!(failure(&way(&good, Some(&strangers)).unwrap()).await, TransportError::Relay);
    match way(&good, None) {
        Ok(way) => assert_eq!(failure(&way).await, TransportError::Relay),
        // There is a machine without any.
        Err(error) => assert!(matches!(error, WayError::Tls(_)), "{error}"),
    }
    assert!(matches!(way(&good, Some(&at.join("nowhere.pem"))), Err(WayError::Tls(_))));
    assert_eq!(seen.load(SeqCst), 1);

    // A relay whose gateway shows a certificate of somebody else's hands nothing on.
    let wrong = relay(at, &listed("roots = \"two.pem\""));
    assert_eq!(failure(&way(&wrong, Some(&roots)).unwrap()).await, TransportError::Refused(502));
    // Nor one with a certificate for another name.
    one.certify(at, "gateway", "gateway.example");
    let (url, elsewhere) = counting_gateway(at).await;
    let named = format!("[[gateway]]\npath = \"/gateway\"\nurl = \"{url}\"\nroots = \"one.pem\"");
    let wrong = relay(at, &named);
    assert_eq!(failure(&way(&wrong, Some(&roots)).unwrap()).await, TransportError::Refused(502));
    assert_eq!((seen.load(SeqCst), elsewhere.load(SeqCst)), (1, 0));
}
