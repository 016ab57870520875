//! Floods, dead clients and lying clocks.
mod support;

use support::client::post;
use support::model::{self, Ending};
use support::world::{Peer, World};
use wire::event::{Event, RequestEnd};

const TASK: &[u8] = br#"{"messages":[{"sender":"Amara","text":"hello"}]}"#;

#[test]
fn a17_half_open_handshakes_are_bounded_and_others_are_served() {
    let mut world = World::new();
    let mut served = world.attested();
    let flood: Vec<_> = (0..100).map(|_| world.service.open().expect("the oldest makes room")).collect();
    let most = world.events().into_iter().filter_map(|event| match event {
        Event::ConnectionOpened { open } => Some(open),
        _ => None,
    });
    assert_eq!(most.max(), Some(8));
    // The newest are there; the oldest half-open ones went, and not the one that is being served.
    let (gone, there) = flood.split_at(93);
    assert!(gone.iter().all(|id| world.service.wants_close(*id)));
    assert!(there.iter().all(|id| !world.service.wants_close(*id)));
    assert_eq!(world.ask(&mut served, &post("/v1/tasks/summarize", TASK)).status, 200);
    let mut newcomer = world.attested();
    assert_eq!(world.ask(&mut newcomer, &post("/v1/tasks/summarize", TASK)).status, 200);
}

#[test]
fn a17_the_one_idle_longest_makes_room() {
    let mut world = World::new();
    let mut peers: Vec<Peer> = Vec::new();
    for _ in 0..8 {
        peers.push(world.attested());
        world.pass(100);
    }
    // The first is the oldest, but not the one idle longest.
    world.ask(&mut peers[0], &post("/v1/tasks/summarize", TASK));
    world.open();
    assert!(world.service.wants_close(peers[1].id));
    assert!(peers.iter().enumerate().all(|(at, peer)| at == 1 || !world.service.wants_close(peer.id)));
}

#[test]
fn a17_a_client_without_evidence_goes_before_one_with() {
    let mut world = World::new();
    let attested: Vec<Peer> = (0..7).map(|_| world.attested()).collect();
    world.pass(1000);
    let unattested = world.connect();
    world.open();
    assert!(world.service.wants_close(unattested.id));
    assert!(attested.iter().all(|peer| !world.service.wants_close(peer.id)));
}

#[test]
fn a17_who_is_being_answered_is_never_dropped_for_another() {
    let mut manifest = model::manifest();
    (manifest.limits.connections, manifest.limits.sessions) = (2, 2);
    let mut world = World::with(manifest, Ending::Endless);
    let mut running: Vec<Peer> = (0..2).map(|_| world.attested()).collect();
    for peer in &mut running {
        peer.client.write(&post("/v1/tasks/summarize", TASK));
        while peer.client.received.is_empty() {
            world.exchange(peer);
            world.tick();
        }
    }
    assert_eq!(world.service.open(), Err(service::Full));
    for peer in &mut running {
        world.settle(peer);
        assert_eq!(peer.client.response().expect("the whole answer").status, 200);
    }
    assert!(world.service.open().is_ok());
}

#[test]
fn a17_handshakes_and_idle_clients_time_out() {
    let mut world = World::new();
    let (half_open, idle, mut lively) = (world.open(), world.connect(), world.connect());
    for _ in 0..3 {
        world.pass(11_000);
        world.ask(&mut lively, &post("/v1/evidence", &[1; 32]));
    }
    assert!(world.service.wants_close(half_open.id));
    assert!(world.service.wants_close(idle.id));
    assert!(!world.service.wants_close(lively.id));
}

#[test]
fn a17_a_client_that_takes_nothing_is_dropped() {
    let mut world = World::with(model::manifest(), Ending::Endless);
    let mut peer = world.attested();
    peer.client.write(&post("/v1/tasks/summarize", TASK));
    let sent = peer.client.outgoing();
    world.service.receive(peer.id, &sent);
    world.pass(31_000);
    assert!(world.service.wants_close(peer.id));
    assert!(!world.service.step(), "its generation stopped as well");
}

#[test]
fn a17_requests_are_not_taken_up_while_answers_wait_to_be_read() {
    let mut world = World::new();
    let mut peer = world.connect();
    let requests = b"GET / HTTP/1.1\r\nHost:\r\n\r\n".repeat(100);
    for _ in 0..50 {
        peer.client.write(&requests);
        let sent = peer.client.outgoing();
        world.service.receive(peer.id, &sent);
    }
    // Each refusal has more than 200 bytes, and there is room for two times 16 KiB of them.
    let refused = Event::RequestEnded { end: RequestEnd::Refused, tokens: 0 };
    assert!(world.events().iter().filter(|event| **event == refused).count() < 200);
    world.pass(31_000);
    assert!(world.service.wants_close(peer.id));
}

#[test]
fn a_burst_of_requests_is_answered_once_the_client_reads() {
    let mut world = World::new();
    let mut peer = world.connect();
    peer.client.write(&b"GET / HTTP/1.1\r\nHost:\r\n\r\n".repeat(400));
    world.settle(&mut peer);
    for answered in 0..400 {
        assert_eq!(peer.client.response().map(|response| response.status), Some(404), "{answered}");
    }
}

#[test]
fn a14_a_clock_that_jumps_drops_nobody() {
    let mut world = World::new();
    let mut peer = world.attested();
    for reading in [u64::MAX, 0, 1 << 60, 5, u64::MAX / 2, 1] {
        world.controls.now_ms.set(reading);
        world.service.step();
        let response = world.ask(&mut peer, &post("/v1/tasks/summarize", TASK));
        assert_eq!(response.status, 200, "at {reading}");
    }
    // A clock that stands still ends nothing. It holds back answers, as a host can in any case.
    for _ in 0..1000 {
        world.service.step();
    }
    assert_eq!(world.ask(&mut peer, &post("/v1/evidence", &[1; 32])).status, 200);
    assert!(!world.events().contains(&Event::CertificateRotated {}));
}
