//! What must fail in TCP or TLS, and what TLS must not do.

use crate::support::amd_sp;
use crate::support::server::{Identity, Server, give_evidence, listen};
use crate::support::{connect, error};
use client::session::{Session, SessionError};
use rustls::crypto::{CryptoProvider, aws_lc_rs, aws_lc_rs::kx_group};
use rustls::{HandshakeKind, NamedGroup};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

async fn fails_in_the_handshake(server: &Server) {
    let error = error(connect(server.address).await);
    assert!(matches!(error, SessionError::Handshake { .. }), "{error:?}");
    assert!(server.received().is_empty());
}

/// A session that is given up soon.
async fn impatient(server: SocketAddr) -> Result<Session, SessionError> {
    let policy = Arc::new(amd_sp::policy().into());
    Session::connect(&server.to_string(), policy, Duration::from_millis(500), |_| ()).await
}

#[tokio::test]
async fn nobody_listens() {
    // No port that the system gives out.
    let error = error(connect(SocketAddr::from(([127, 0, 0, 1], 1))).await);
    assert!(matches!(error, SessionError::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn b11_tls_1_2_only() {
    let identity = Identity::honest();
    fails_in_the_handshake(&Server::start(identity.config_with(&[&rustls::version::TLS12], 1), |_| ())).await;
}

#[tokio::test]
async fn several_certificates() {
    let identity = Identity::honest();
    fails_in_the_handshake(&Server::start(identity.config_with(&[&rustls::version::TLS13], 2), |_| ())).await;
}

#[tokio::test]
async fn b1_a_certificate_without_its_key() {
    fails_in_the_handshake(&Server::start(Identity::honest().without_its_key().config(), |_| ())).await;
}

#[tokio::test]
async fn what_does_not_speak_tls() {
    let address = listen(|mut tcp| {
        let _ = tcp.read(&mut [0; 1024]);
        let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let error = error(connect(address).await);
    assert!(matches!(error, SessionError::Handshake { .. }), "{error:?}");
}

#[tokio::test]
async fn what_closes_at_once() {
    let error = error(connect(listen(drop)).await);
    assert!(matches!(error, SessionError::Handshake { .. }), "{error:?}");
}

#[tokio::test]
async fn what_accepts_and_says_nothing() {
    let error = error(
        impatient(listen(|mut tcp| {
            let _ = tcp.read_to_end(&mut Vec::new());
        }))
        .await,
    );
    assert!(matches!(error, SessionError::Silent(_)), "{error:?}");
}

#[tokio::test]
async fn b11_nothing_is_resumed_although_it_is_offered() {
    let identity = Identity::honest();
    let mut config = identity.config();
    config.ticketer = aws_lc_rs::Ticketer::new().expect("a ticketer");
    config.send_tls13_tickets = 4;
    config.max_early_data_size = 16 * 1024;
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let seen = kinds.clone();
    let server = Server::start(config, move |connection| {
        let tls = &mut connection.tls.conn;
        assert!(tls.early_data().is_none(), "early data came");
        seen.lock().expect("no script failed").push(tls.handshake_kind());
        if give_evidence(&identity, connection) {
            connection.fall_silent();
        }
    });
    for _ in 0..3 {
        connect(server.address).await.expect("an attested session");
    }
    assert_eq!(*kinds.lock().expect("no script failed"), [Some(HandshakeKind::Full); 3]);
    assert_eq!(server.received().len(), 3, "each session had evidence of its own");
}

#[tokio::test]
async fn b11_the_key_exchange_is_post_quantum_where_the_server_can() {
    for (groups, expected) in [
        (vec![kx_group::X25519, kx_group::X25519MLKEM768], Some(NamedGroup::X25519MLKEM768)),
        (vec![kx_group::X25519], Some(NamedGroup::X25519)),
        (vec![kx_group::SECP256R1], None),
    ] {
        let identity = Identity::honest();
        let provider = CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
        let config = identity.config_of(provider, &[&rustls::version::TLS13], 1);
        let negotiated = Arc::new(Mutex::new(None));
        let seen = negotiated.clone();
        let server = Server::start(config, move |connection| {
            let group = connection.tls.conn.negotiated_key_exchange_group().map(|group| group.name());
            *seen.lock().expect("no script failed") = group;
            if give_evidence(&identity, connection) {
                connection.fall_silent();
            }
        });
        match expected {
            Some(_) => drop(connect(server.address).await.expect("an attested session")),
            None => fails_in_the_handshake(&server).await,
        }
        assert_eq!(*negotiated.lock().expect("no script failed"), expected);
    }
}
