//! Evidence: what binds it, when it is demanded, and how it is batched.
mod support;

use attestation::evidence::FreshEvidence;
use attestation::verifier::{VerifyError, verify_fresh};
use service::AttestError;
use std::time::SystemTime;
use support::client::post;
use support::platform::policy;
use support::world::World;
use wire::event::Event;
use wire::task::ErrorCode;

const TASK: &[u8] = br#"{"messages":[{"sender":"Amara","text":"hello"}]}"#;

#[test]
fn b1_no_task_is_served_before_evidence() {
    let mut world = World::new();
    let mut peer = world.connect();
    for path in ["/v1/tasks/summarize", "/v1/chat/completions"] {
        let response = world.ask(&mut peer, &post(path, TASK));
        assert_eq!((response.status, response.error()), (403, ErrorCode::EvidenceRequired));
    }
    assert_eq!(world.ask(&mut peer, &post("/v1/evidence", &[1; 32])).status, 200);
    assert_eq!(world.ask(&mut peer, &post("/v1/tasks/summarize", TASK)).status, 200);
    // Evidence counts for its own connection only.
    let mut other = world.connect();
    assert_eq!(world.ask(&mut other, &post("/v1/tasks/summarize", TASK)).status, 403);
}

#[test]
fn b1_evidence_is_bound_to_nonce_and_connection() {
    let mut world = World::new();
    let (mut one, other) = (world.connect(), world.connect());
    let evidence = world.ask(&mut one, &post("/v1/evidence", &[1; 32])).body;
    world.verify(&one.client, &[1; 32], &evidence);
    let (policy, now) = (policy(&world.manifest), SystemTime::now());
    let verify = |nonce: [u8; 32], exporter: [u8; 32]| {
        verify_fresh(&evidence, &nonce, one.client.certificate(), &exporter, &policy, now)
    };
    assert!(verify([1; 32], one.client.exporter()).is_ok());
    let another_nonce = verify([2; 32], one.client.exporter());
    assert!(matches!(another_nonce, Err(VerifyError::FreshBinding)), "{another_nonce:?}");
    let another_connection = verify([1; 32], other.client.exporter());
    assert!(matches!(another_connection, Err(VerifyError::FreshBinding)), "{another_connection:?}");
}

#[test]
fn nonces_of_one_step_share_one_report() {
    let mut world = World::new();
    let mut peers: Vec<_> = (0..7).map(|_| world.connect()).collect();
    let before = world.controls.reported.borrow().len();
    for (at, peer) in peers.iter_mut().enumerate() {
        peer.client.write(&post("/v1/evidence", &[at as u8; 32]));
        let sent = peer.client.outgoing();
        world.service.receive(peer.id, &sent);
    }
    world.service.step();
    assert_eq!(world.controls.reported.borrow().len(), before + 1);
    for (at, peer) in peers.iter_mut().enumerate() {
        world.settle(peer);
        let evidence = peer.client.response().expect("evidence").body;
        assert_eq!(FreshEvidence::decode(&evidence).expect("evidence").index as usize, at);
        world.verify(&peer.client, &[at as u8; 32], &evidence);
    }
    assert!(world.events().contains(&Event::EvidenceIssued { sessions: 7 }));
}

#[test]
fn a_nonce_has_exactly_32_bytes() {
    let mut world = World::new();
    let mut peer = world.connect();
    for length in [0, 1, 31, 33, 64] {
        let response = world.ask(&mut peer, &post("/v1/evidence", &vec![1; length]));
        assert_eq!((response.status, response.error()), (400, ErrorCode::BadRequest), "{length}");
    }
    assert_eq!(world.ask(&mut peer, &post("/v1/tasks/summarize", TASK)).status, 403);
}

#[test]
fn b12_without_a_report_there_is_no_service() {
    let mut world = World::new();
    let mut peer = world.connect();
    world.controls.refuse.set(Some(AttestError::Failed));
    let response = world.ask(&mut peer, &post("/v1/evidence", &[1; 32]));
    assert_eq!((response.status, response.error()), (503, ErrorCode::Internal));
    assert_eq!(world.ask(&mut peer, &post("/v1/tasks/summarize", TASK)).status, 403);
}

#[test]
fn a_throttled_report_is_asked_for_again() {
    let mut world = World::new();
    let mut peer = world.connect();
    world.controls.refuse.set(Some(AttestError::Throttled));
    peer.client.write(&post("/v1/evidence", &[1; 32]));
    world.settle(&mut peer);
    assert!(peer.client.response().is_none());
    world.controls.refuse.set(None);
    world.settle(&mut peer);
    let evidence = peer.client.response().expect("evidence");
    world.verify(&peer.client, &[1; 32], &evidence.body);
}

#[test]
fn keys_rotate_and_connections_keep_the_one_they_began_with() {
    let mut world = World::new();
    let mut early = world.connect();
    let first = early.client.certificate().to_vec();
    for _ in 0..4096 {
        let id = world.service.open().expect("the oldest makes room");
        world.service.close(id);
    }
    world.service.step();
    assert!(world.events().contains(&Event::CertificateRotated {}));
    let late = world.attested();
    assert_ne!(late.client.certificate(), first);
    let evidence = world.ask(&mut early, &post("/v1/evidence", &[5; 32])).body;
    world.verify(&early.client, &[5; 32], &evidence);
}

#[test]
fn keys_rotate_with_time_and_survive_an_amd_sp_that_fails() {
    let mut world = World::new();
    let first = world.connect().client.certificate().to_vec();
    world.controls.refuse.set(Some(AttestError::Failed));
    world.pass(12 * 60 * 60 * 1000);
    assert_eq!(world.connect().client.certificate(), first);
    world.controls.refuse.set(None);
    world.pass(2 * 60 * 1000);
    assert_ne!(world.connect().client.certificate(), first);
}
