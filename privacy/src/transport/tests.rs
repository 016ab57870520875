//! The whole way on this machine: client, relay and gateway over sockets, and a guest that is a plain TCP server.

use super::*;
use crate::gateway::{self, Gateway, Guests};
use crate::ohttp::{Kem, SecretKey};
use crate::relay::{self, GatewayAt, Relay};
use crate::serve::{self, serve};
use crate::token::redeem::{Redeem, Redeeming, Refusal};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// A token whose nonce begins with `name`.
pub(crate) fn token(name: &str) -> Token {
    let mut bytes = [0; Token::LENGTH];
    bytes[1] = 2;
    bytes[2..2 + name.len()].copy_from_slice(name.as_bytes());
    Token::parse(&bytes).unwrap()
}

/// Takes each token that begins with "good" once.
#[derive(Default)]
pub(crate) struct Once(Mutex<HashSet<Vec<u8>>>);

impl Redeem for Once {
    fn redeem<'a>(&'a self, token: &'a [u8]) -> Redeeming<'a> {
        Box::pin(async move {
            if !token[2..].starts_with(b"good") {
                return Err(Refusal::Signature);
            }
            if self.0.lock().unwrap().insert(token.into()) { Ok(()) } else { Err(Refusal::Spent) }
        })
    }
}

/// Relay and gateway on this machine.
pub(crate) struct Line {
    pub(crate) key: SecretKey,
    pub(crate) relay: String,
    pub(crate) at_gateway: String,
    pub(crate) gateway: Arc<Gateway>,
    stop: CancellationToken,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A guest that answers each byte with the same in upper case, and closes after a full stop.
pub(crate) async fn shouting_guest() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

pub(crate) async fn shout(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            loop {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(length) => {
                        stream.write_all(&buffer[..length].to_ascii_uppercase()).await.unwrap();
                        if buffer[..length].contains(&b'.') {
                            return;
                        }
                    }
                }
            }
        });
    }
}

impl Line {
    pub(crate) async fn start(guests: Vec<String>, limits: gateway::Limits) -> Self {
        let key = SecretKey::generate(1, Kem::XWing).unwrap();
        let guests = Arc::new(Guests::new(guests));
        guests.probe().await;
        let challenge = "PrivateToken challenge=\"AAAA\"".to_owned();
        let gateway =
            Arc::new(Gateway::new(vec![key.clone()], Arc::new(Once::default()), challenge, guests, limits));
        let stop = CancellationToken::new();
        let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at_gateway, at_relay) = (listen().await, listen().await);
        let url = format!("http://{}/", at_gateway.local_addr().unwrap());
        let listed = GatewayAt { path: "/gateway".into(), url: url.clone(), ..GatewayAt::default() };
        let relay = Arc::new(Relay::new(&[listed], Path::new("."), relay::Limits::default()).unwrap());
        let relay_url = format!("http://{}/gateway", at_relay.local_addr().unwrap());
        let handler = gateway.clone();
        let service = move |request| handler.clone().handle(request);
        tokio::spawn(serve(
            at_gateway,
            None,
            serve::Limits::default(),
            service,
            stop.clone(),
            Duration::ZERO,
        ));
        let service = move |request| relay.clone().handle(request);
        tokio::spawn(serve(at_relay, None, serve::Limits::default(), service, stop.clone(), Duration::ZERO));
        Self { key, relay: relay_url, at_gateway: url, gateway, stop }
    }

    pub(crate) fn way(&self, mode: Mode) -> Way {
        Way::new(&self.relay, None, self.key.config().clone(), mode).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_go_to_a_guest_and_back_in_both_modes() {
    let (listener, guest) = shouting_guest().await;
    tokio::spawn(shout(listener));
    let line = Line::start(vec![guest], gateway::Limits::default()).await;
    for (name, mode) in [("good 1", Mode::Duplex), ("good 2", Mode::Requests)] {
        let mut tunnel = line.way(mode).open(&token(name)).unwrap();
        for word in ["hello", "again", "and more"] {
            tunnel.write_all(word.as_bytes()).await.unwrap();
            let mut answer = vec![0; word.len()];
            tunnel.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, word.to_ascii_uppercase().as_bytes());
        }
        tunnel.write_all(b"done.").await.unwrap();
        let mut rest = Vec::new();
        tunnel.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"DONE.");
        tunnel.shutdown().await.unwrap();
    }
    assert!(line.gateway.metrics().contains("sessions_total 2"));
}

pub(crate) async fn failure(tunnel: Result<Tunnel, TransportError>) -> TransportError {
    let error = tunnel.unwrap().read_to_end(&mut Vec::new()).await.unwrap_err();
    TransportError::of(&error).cloned().unwrap_or_else(|| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_says_what_to_do() {
    let (listener, guest) = shouting_guest().await;
    let line = Line::start(vec![guest], gateway::Limits::default()).await;
    let way = line.way(Mode::Duplex);
    assert_eq!(failure(way.open(&token("bad"))).await, TransportError::Token(401));
    let open = way.open(&token("good")).unwrap();
    let stream = session(&listener).await;
    drop((open, stream));
    assert_eq!(failure(way.open(&token("good"))).await, TransportError::Token(401), "spent");

    // The keys are replaced: the client is told to fetch them.
    line.gateway.set_keys(vec![SecretKey::generate(2, Kem::X25519).unwrap()]);
    assert_eq!(failure(way.open(&token("good 2"))).await, TransportError::StaleKey);
    // The same identifier for another key shows when the request does not decrypt.
    line.gateway.set_keys(vec![SecretKey::generate(1, Kem::XWing).unwrap()]);
    assert_eq!(failure(way.open(&token("good 2"))).await, TransportError::StaleKey);
    // Both for a while: an old configuration is good as long as its key is kept.
    line.gateway.set_keys(vec![SecretKey::generate(2, Kem::X25519).unwrap(), line.key.clone()]);
    drop(listener);
    assert_eq!(failure(way.open(&token("good 3"))).await, TransportError::Unavailable(503), "no guest");
    let elsewhere = Way::new("http://127.0.0.1:1/", None, line.key.config().clone(), Mode::Duplex).unwrap();
    assert_eq!(failure(elsewhere.open(&token("good 4"))).await, TransportError::Relay);
    let other = line.relay.replace("/gateway", "/other");
    let other = Way::new(&other, None, line.key.config().clone(), Mode::Duplex).unwrap();
    assert_eq!(failure(other.open(&token("good 5"))).await, TransportError::Refused(404));
    assert!(matches!(
        Way::new("http://relay.example/", None, line.key.config().clone(), Mode::Duplex),
        Err(WayError::Url(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_a_guest_that_breaks_off_is_an_error_and_no_end() {
    let (listener, guest) = shouting_guest().await;
    let line = Line::start(vec![guest], gateway::Limits::default()).await;
    let mut tunnel = line.way(Mode::Duplex).open(&token("good")).unwrap();
    tunnel.write_all(b"hello").await.unwrap();
    let mut stream = session(&listener).await;
    let mut read = [0; 5];
    stream.read_exact(&mut read).await.unwrap();
    stream.write_all(b"half an ans").await.unwrap();
    let mut answer = [0; 11];
    tunnel.read_exact(&mut answer).await.unwrap();
    // A reset, where an orderly end would be a FIN.
    reset(stream);
    let error = tunnel.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(TransportError::of(&error), Some(&TransportError::Truncated));
}

/// The guest's side of the first session; before it came the gateway's probe.
pub(crate) async fn session(listener: &TcpListener) -> TcpStream {
    drop(listener.accept().await.unwrap());
    listener.accept().await.unwrap().0
}

/// Closes with a reset.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_in_which_nothing_moves_ends() {
    let (listener, guest) = shouting_guest().await;
    let limits = gateway::Limits { idle_seconds: 1, ..gateway::Limits::default() };
    let line = Line::start(vec![guest], limits).await;
    let mut tunnel = line.way(Mode::Duplex).open(&token("good")).unwrap();
    let mut guest = session(&listener).await;
    assert_eq!(guest.read(&mut [0; 16]).await.unwrap(), 0, "the guest is told");
    let error = tunnel.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(TransportError::of(&error), Some(&TransportError::Truncated));
    assert!(line.gateway.metrics().contains("open_sessions 0"), "{}", line.gateway.metrics());
}
