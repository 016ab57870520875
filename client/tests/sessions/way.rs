//! Sessions through relay and gateway, with the guest's own service.

use crate::support::amd_sp::{self, AmdSp};
use crate::support::guest::Guest;
use crate::support::{CANARY, PATIENCE, error, request};
use client::session::{Session, SessionError};
use client::task;
use privacy::gateway::{self, Gateway, Guests};
use privacy::ohttp::{Kem, SecretKey};
use privacy::relay::{self, GatewayAt, Relay};
use privacy::serve::{self, serve};
use privacy::token::redeem::{Redeem, Redeeming, Refusal};
use privacy::token::structure::Token;
use privacy::transport::{Mode, TransportError, Way};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Takes the token of zeros, and no other.
struct OnlyZeros;

impl Redeem for OnlyZeros {
    fn redeem<'a>(&'a self, token: &'a [u8]) -> Redeeming<'a> {
        let taken = if token[2..].iter().all(|byte| *byte == 0) { Ok(()) } else { Err(Refusal::Signature) };
        Box::pin(async move { taken })
    }
}

fn token(last: u8) -> Token {
    let mut bytes = [0; Token::LENGTH];
    (bytes[1], bytes[Token::LENGTH - 1]) = (2, last);
    Token::parse(&bytes).expect("a token")
}

fn honest() -> Guest {
    let amd_sp = AmdSp::honest();
    Guest::start(move |report_data| Ok(amd_sp.attest(report_data)))
}

/// Starts relay and gateway in front of a guest, and gives the way.
async fn way_to(guest: SocketAddr, mode: Mode) -> Way {
    let key = SecretKey::generate(1, Kem::XWing).expect("a key");
    let guests = Arc::new(Guests::new(vec![guest.to_string()]));
    guests.probe().await;
    let limits = gateway::Limits::default();
    let gateway = Gateway::new(vec![key.clone()], Arc::new(OnlyZeros), "PrivateToken".into(), guests, limits);
    let gateway = Arc::new(gateway);
    let listen = async || TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (at_gateway, at_relay) = (listen().await, listen().await);
    let url = format!("http://{}/", at_gateway.local_addr().expect("an address"));
    let listed = GatewayAt { path: "/gateway".into(), url, ..GatewayAt::default() };
    let relay = Relay::new(&[listed], Path::new("."), relay::Limits::default()).expect("a relay");
    let (relay, url) =
        (Arc::new(relay), format!("http://{}/gateway", at_relay.local_addr().expect("an address")));
    let (limits, stop) = (serve::Limits::default(), CancellationToken::new());
    let service = move |request| gateway.clone().handle(request);
    tokio::spawn(serve(at_gateway, None, limits, service, stop.clone(), Duration::ZERO));
    let service = move |request| relay.clone().handle(request);
    tokio::spawn(serve(at_relay, None, limits, service, stop, Duration::ZERO));
    Way::new(&url, None, key.config().clone(), mode).expect("a way")
}

async fn through(way: &Way, token: &Token) -> Result<Session, SessionError> {
    Session::through(way, token, Arc::new(amd_sp::policy().into()), PATIENCE, |_| ()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_summary_comes_through_relay_and_gateway_in_both_modes() {
    let guest = honest();
    for mode in [Mode::Duplex, Mode::Requests] {
        let way = way_to(guest.address, mode).await;
        let mut session = through(&way, &token(0)).await.expect("an attested session");
        let mut pieces = 0;
        let done = task::summarize(&mut session, &request(), |_| pieces += 1).await.expect("a summary");
        assert!(pieces > 0 && done.completion_tokens > 0, "{done:?}");
        let refused = error(through(&way, &token(1)).await);
        assert!(matches!(refused, SessionError::Way(TransportError::Token(401))), "{refused:?}");
    }
}

/// Stands in front of guests, and lets a client speak as often as is allowed: a turn is all that a client says before the guest speaks
/// again. What it says beyond that waits. From the `swap`th turn on, it speaks with the second guest.
async fn between(first: SocketAddr, second: SocketAddr, swap: usize) -> (SocketAddr, watch::Sender<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let (allow, allowed) = watch::channel(1);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut allowed = allowed.clone();
            tokio::spawn(async move {
                let mut guest = TcpStream::connect(first).await.expect("a guest");
                let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
                let (mut turn, mut guest_spoke) = (0, true);
                loop {
                    let next = turn + usize::from(guest_spoke);
                    let may_speak = next <= *allowed.borrow_and_update();
                    tokio::select! {
                        read = client.read(&mut up), if may_speak => {
                            let Ok(length @ 1..) = read else { return };
                            if guest_spoke && next == swap {
                                guest = TcpStream::connect(second).await.expect("a guest");
                            }
                            (turn, guest_spoke) = (next, false);
                            if guest.write_all(&up[..length]).await.is_err() { return }
                        }
                        read = guest.read(&mut down) => {
                            let Ok(length @ 1..) = read else { return };
                            guest_spoke = true;
                            if client.write_all(&down[..length]).await.is_err() { return }
                        }
                        more = allowed.changed() => if more.is_err() { return },
                    }
                }
            });
        }
    });
    (at, allow)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_begins_after_two_round_trips() {
    let guest = honest();
    let (at, allow) = between(guest.address, guest.address, usize::MAX).await;
    let way = way_to(at, Mode::Duplex).await;
    let mut session = through(&way, &token(0)).await.expect("evidence for a hello");
    allow.send_replace(2);
    let mut begun = false;
    task::summarize(&mut session, &request(), |_| {
        begun = true;
        allow.send_replace(usize::MAX);
    })
    .await
    .expect("a summary");
    assert!(begun);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_a_gateway_that_swaps_guests_in_mid_session_gets_nothing() {
    let (first, second) = (honest(), honest());
    // Before the client's second turn, in which the request is.
    let (at, allow) = between(first.address, second.address, 2).await;
    let way = way_to(at, Mode::Duplex).await;
    let mut session = through(&way, &token(0)).await.expect("the first guest is what it should be");
    allow.send_replace(usize::MAX);
    let broken = error(task::summarize(&mut session, &request(), |text| panic!("{text}")).await);
    assert!(matches!(broken, SessionError::Broken | SessionError::Way(_)), "{broken:?}");
    assert!(!broken.to_string().contains(CANARY));
    assert!(!second.was_asked(), "the second guest read the request");
    assert!(!first.was_asked());
}
