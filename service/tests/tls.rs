//! The TLS side against clients of another make.
mod support;

use rustls::crypto::{CryptoProvider, aws_lc_rs, aws_lc_rs::cipher_suite, aws_lc_rs::kx_group};
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};
use std::sync::Arc;
use support::client::{Client, config, config_with, post};
use support::model::{self, Ending};
use support::world::World;
use wire::event::Event;

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

#[test]
fn b11_a_client_that_prefers_it_gets_post_quantum_key_exchange() {
    let mut world = World::new();
    let groups = vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1];
    let provider = CryptoProvider { kx_groups: groups, ..provider() };
    let config = Arc::new(config_with(provider, &[&rustls::version::TLS13]));
    let mut peer = world.open_with(&config);
    world.settle(&mut peer);
    let group = peer.client.tls.negotiated_key_exchange_group().expect("the handshake is complete");
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    assert_eq!(peer.client.tls.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

#[test]
fn every_group_and_cipher_suite_carries_a_task() {
    let mut world = World::new();
    let suites = [
        (cipher_suite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS13_AES_256_GCM_SHA384),
        (cipher_suite::TLS13_AES_128_GCM_SHA256, CipherSuite::TLS13_AES_128_GCM_SHA256),
    ];
    for group in [kx_group::X25519MLKEM768, kx_group::X25519] {
        for (suite, name) in suites {
            let provider =
                CryptoProvider { cipher_suites: vec![suite], kx_groups: vec![group], ..provider() };
            world.config = Arc::new(config_with(provider, &[&rustls::version::TLS13]));
            // Verifies evidence, which is bound to the exporter: both sides derived the same.
            let mut peer = world.attested();
            assert_eq!(peer.client.tls.negotiated_cipher_suite().expect("a suite").suite(), name);
            let body = br#"{"messages":[{"sender":"Amara","text":"hello"}]}"#;
            assert_eq!(world.ask(&mut peer, &post("/v1/tasks/summarize", body)).status, 200);
        }
    }
}

#[test]
fn a_client_that_guesses_another_group_first_is_asked_again() {
    let mut world = World::new();
    let groups = vec![kx_group::SECP256R1, kx_group::X25519];
    let provider = CryptoProvider { kx_groups: groups, ..provider() };
    world.config = Arc::new(config_with(provider, &[&rustls::version::TLS13]));
    let peer = world.attested();
    assert_eq!(peer.client.tls.handshake_kind(), Some(HandshakeKind::FullWithHelloRetryRequest));
}

#[test]
fn b11_tls_1_2_is_refused() {
    let mut world = World::new();
    let config = Arc::new(config_with(provider(), &[&rustls::version::TLS12]));
    let mut peer = world.open_with(&config);
    world.settle(&mut peer);
    let error = peer.client.error.expect("there is no TLS 1.2");
    assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion));
    assert!(world.events().contains(&Event::HandshakeFailed {}));
    assert!(world.service.wants_close(peer.id));
}

#[test]
fn b11_nothing_is_resumed_and_no_early_data_is_taken() {
    let mut world = World::new();
    let mut early = config();
    early.enable_early_data = true;
    let early = Arc::new(early);
    for _ in 0..3 {
        let mut peer = world.open_with(&early);
        assert!(peer.client.tls.early_data().is_none(), "a ticket was given");
        world.settle(&mut peer);
        assert_eq!(peer.client.tls.handshake_kind(), Some(HandshakeKind::Full));
        world.ask(&mut peer, &post("/v1/evidence", &[1; 32]));
        assert_eq!(peer.client.tls.tls13_tickets_received(), 0);
    }
}

#[test]
fn a_group_that_nobody_offers_ends_the_handshake() {
    let mut world = World::new();
    let provider = CryptoProvider { kx_groups: vec![kx_group::SECP384R1], ..provider() };
    let config = Arc::new(config_with(provider, &[&rustls::version::TLS13]));
    let mut peer = world.open_with(&config);
    world.settle(&mut peer);
    assert!(matches!(peer.client.error, Some(rustls::Error::AlertReceived(_))), "{:?}", peer.client.error);
}

#[test]
fn a17_bytes_that_are_no_tls_end_the_connection_and_nothing_else() {
    let mut world = World::new();
    let mut good = world.attested();
    let header = |length: u16| [&[0x17, 3, 3][..], &length.to_be_bytes()].concat();
    let oversize = [header(0x4200), vec![0; 0x4200]].concat();
    let endless_handshake =
        [0x16, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff].iter().copied().chain([0; 0x8000]).collect();
    let garbage: [Vec<u8>; 5] = [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 100_000],
        oversize,
        endless_handshake,
        vec![0x16, 3, 1, 0, 0],
    ];
    for bytes in garbage {
        let id = world.service.open().expect("there is room");
        world.service.receive(id, &bytes);
        let waiting = world.service.pending(id).len();
        world.service.sent(id, waiting);
        assert!(world.service.wants_close(id), "{:02x?}", &bytes[..5]);
        world.service.close(id);
    }
    let response = world.ask(&mut good, &post("/v1/evidence", &[2; 32]));
    assert_eq!(response.status, 200);
}

#[test]
fn a_record_that_was_altered_ends_the_connection() {
    let mut world = World::new();
    let mut peer = world.attested();
    peer.client.write(&post("/v1/evidence", &[2; 32]));
    let mut bytes = peer.client.outgoing();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    world.service.receive(peer.id, &bytes);
    world.settle(&mut peer);
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
    assert_eq!(peer.client.error, Some(alert));
    assert!(world.service.wants_close(peer.id));
}

#[test]
fn bytes_may_arrive_one_at_a_time() {
    let mut world = World::new();
    let mut peer = world.open();
    let mut requested = false;
    for _ in 0..20_000 {
        for byte in peer.client.outgoing() {
            world.service.receive(peer.id, &[byte]);
        }
        world.service.step();
        let first = world.service.pending(peer.id).first().copied();
        if let Some(byte) = first {
            world.service.sent(peer.id, 1);
            peer.client.take(&[byte]);
        } else if !peer.client.tls.is_handshaking() && !requested {
            requested = true;
            peer.client.write(&post("/v1/evidence", &[3; 32]));
        }
        if peer.client.response().is_some_and(|response| response.status == 200) {
            return;
        }
    }
    panic!("no answer: {:?}", peer.client.error);
}

#[test]
fn c6_answers_leave_in_equal_records_at_a_steady_pace_and_end_at_a_multiple() {
    let manifest = model::manifest();
    let multiple = manifest.limits.answer_records as usize;
    let chat = |more: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}]{more}}}"#);
        post("/v1/chat/completions", body.as_bytes())
    };
    let task = |more: &str| {
        let body = format!(r#"{{"messages":[{{"sender":"A","text":"x"}}]{more}}}"#);
        post("/v1/tasks/summarize", body.as_bytes())
    };
    // An engine that is done before the first record leaves, and one that takes longer than a multiple.
    for (steps, is_slow) in [(1000, false), (0, true)] {
        let mut seen = Vec::new();
        for request in [
            task(r#","max_tokens":1"#),
            task(""),
            chat(r#","max_tokens":2,"stream":true"#),
            chat(r#","stream":true"#),
            chat(r#","max_tokens":3"#),
            chat(""),
            // A wish for more than the manifest's limit makes no difference.
            chat(r#","max_tokens":1000000"#),
        ] {
            let mut world = World::with(manifest.clone(), Ending::Endless);
            let mut peer = world.attested();
            peer.client.write(&request);
            let sent = peer.client.outgoing();
            world.service.receive(peer.id, &sent);
            let mut ticks = Vec::new();
            while peer.client.response().is_none() {
                for _ in 0..steps {
                    world.service.step();
                    assert!(world.service.pending(peer.id).is_empty(), "only the clock lets a record leave");
                }
                world.tick();
                let pending = world.service.pending(peer.id).to_vec();
                ticks.push(record_lengths(&pending));
                world.service.sent(peer.id, pending.len());
                peer.client.take(&pending);
                assert!(ticks.len() <= manifest.limits.output_tokens as usize + 2 * multiple);
            }
            seen.push(ticks);
        }
        // One record of 1 KiB and 16 bytes of tag with every tick, in whatever form how much was said.
        for ticks in &seen {
            assert!(ticks.iter().all(|tick| *tick == [1024 + 16]), "{ticks:?}");
            assert!(ticks.len().is_multiple_of(multiple), "{}", ticks.len());
        }
        let longer = seen.iter().filter(|ticks| ticks.len() > multiple).count();
        assert_eq!(longer, if is_slow { 4 } else { 0 }, "{seen:?}");
    }
}

/// The lengths of the TLS records in bytes of the network.
fn record_lengths(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        lengths.push(length);
        bytes = &rest[length..];
    }
    lengths
}

#[test]
fn c6_evidence_and_refusals_leave_in_records_of_the_same_size() {
    let mut world = World::new();
    let mut peer = world.connect();
    let mut answers = Vec::new();
    for request in [
        post("/v1/evidence", &[1; 32]),
        post("/v1/evidence", &[2; 32]),
        post("/nowhere", b""),
        post("/v1/tasks/summarize", b"{"),
    ] {
        peer.client.write(&request);
        let sent = peer.client.outgoing();
        world.service.receive(peer.id, &sent);
        world.service.step();
        let pending = world.service.pending(peer.id).to_vec();
        answers.push(record_lengths(&pending));
        world.service.sent(peer.id, pending.len());
        peer.client.take(&pending);
        assert!(peer.client.response().is_some());
    }
    assert!(answers.concat().iter().all(|length| *length == 1024 + 16), "{answers:?}");
    assert_eq!(answers[0], answers[1], "evidence has one size");
    assert_eq!(answers[2], answers[3], "so have refusals");
}

#[test]
fn the_certificate_is_one_that_rustls_and_the_verifier_read() {
    let mut world = World::new();
    let peer = world.attested();
    let all = peer.client.tls.peer_certificates().expect("certificates");
    assert_eq!(all.len(), 1);
    let again = world.connect();
    assert_eq!(again.client.certificate(), peer.client.certificate());
    let other = World::new().connect();
    assert_ne!(other.client.certificate(), peer.client.certificate(), "each guest makes its own key");
}

#[test]
fn a_client_that_closes_first_gets_a_close_back() {
    let mut world = World::new();
    let mut peer = world.connect();
    peer.client.tls.send_close_notify();
    world.settle(&mut peer);
    assert!(peer.client.closed);
    assert!(world.service.wants_close(peer.id));
    world.service.close(peer.id);
    assert!(world.events().contains(&Event::SessionWiped {}));
}

#[test]
fn unknown_connections_are_ignored() {
    let mut world = World::new();
    let peer = world.connect();
    world.service.close(peer.id);
    world.service.close(peer.id);
    world.service.receive(peer.id, b"late");
    world.service.sent(peer.id, 9);
    assert!(world.service.pending(peer.id).is_empty() && world.service.wants_close(peer.id));
    let _ = Client::new(&world.config);
}

mod altered {
    //! Whatever a client sends, it can only end its own connection.
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;

    thread_local! {
        // One service for all cases: that it survives them is what is tested.
        static WORLD: RefCell<World> = RefCell::new(World::new());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a17_altered_flights_never_make_the_service_panic(
            flight in 0usize..3, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in proptest::option::of(any::<prop::sample::Index>()), pieces in 1usize..5,
        ) {
            WORLD.with_borrow_mut(|world| {
                let mut peer = world.open();
                for at in 0..=flight {
                    if at == 2 && !peer.client.tls.is_handshaking() {
                        peer.client.write(&post("/v1/evidence", &[1; 32]));
                    }
                    let mut bytes = peer.client.outgoing();
                    if at == flight && !bytes.is_empty() {
                        for (index, byte) in &changes {
                            let index = index.index(bytes.len());
                            bytes[index] = *byte;
                        }
                        if let Some(cut) = &cut {
                            bytes.truncate(cut.index(bytes.len()));
                        }
                    }
                    for piece in bytes.chunks(bytes.len().div_ceil(pieces).max(1)) {
                        world.service.receive(peer.id, piece);
                    }
                    world.service.step();
                    let pending = world.service.pending(peer.id).to_vec();
                    world.service.sent(peer.id, pending.len());
                    peer.client.take(&pending);
                }
                world.service.close(peer.id);
                world.service.step();
            });
        }
    }
}
