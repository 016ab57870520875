//! HTTP over TLS: what is refused, and how requests share a connection.
mod support;

use support::client::{Response, post};
use support::world::{Peer, World};
use wire::event::{Event, RequestEnd};
use wire::task::ErrorCode;

const TASK: &[u8] = br#"{"messages":[{"sender":"Amara","text":"hello"}]}"#;

/// Sends a request and says what came back, and whether the guest ended the connection.
fn answer(world: &mut World, request: &[u8]) -> (Response, bool) {
    let mut peer = world.attested();
    let response = world.ask(&mut peer, request);
    let closed = world.service.wants_close(peer.id);
    assert_eq!(closed, peer.client.closed);
    world.service.close(peer.id);
    (response, closed)
}

#[test]
fn c8_what_cannot_be_served_gets_a_clear_status() {
    let mut world = World::new();
    let large = "x".repeat(16 * 1024);
    let table: [(&str, u16, ErrorCode, bool); 18] = [
        ("GET / HTTP/1.1\r\nHost: g\r\n\r\n", 404, ErrorCode::NotFound, false),
        (
            "POST /v1/evidence?x HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n",
            404,
            ErrorCode::NotFound,
            false,
        ),
        (
            "POST /v1/evidence/ HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n",
            404,
            ErrorCode::NotFound,
            false,
        ),
        ("GET /v1/evidence HTTP/1.1\r\nHost: g\r\n\r\n", 405, ErrorCode::MethodNotAllowed, false),
        ("DELETE /v1/tasks/summarize HTTP/1.1\r\nHost: g\r\n\r\n", 405, ErrorCode::MethodNotAllowed, false),
        ("POST /v1/evidence HTTP/1.1\r\nHost: g\r\n\r\n", 411, ErrorCode::BadRequest, false),
        (
            "POST /v1/evidence HTTP/1.1\r\nHost: g\r\nContent-Length: 16385\r\n\r\n",
            413,
            ErrorCode::BodyTooLarge,
            true,
        ),
        (
            "POST /v1/evidence HTTP/1.1\r\nHost: g\r\nContent-Length: 18446744073709551615\r\n\r\n",
            413,
            ErrorCode::BodyTooLarge,
            true,
        ),
        ("POST /v1/evidence HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400, ErrorCode::BadRequest, true),
        (
            "POST /v1/evidence HTTP/1.1\r\nHost: g\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            400,
            ErrorCode::BadRequest,
            true,
        ),
        (
            "POST /v1/evidence HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            501,
            ErrorCode::BadRequest,
            true,
        ),
        (
            "POST /v1/evidence HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            501,
            ErrorCode::BadRequest,
            true,
        ),
        ("POST /v1/evidence HTTP/1.0\r\nHost: g\r\n\r\n", 505, ErrorCode::BadRequest, true),
        ("\u{16}\u{3}\u{1}", 400, ErrorCode::BadRequest, true),
        ("{\"messages\": []}\r\n\r\n", 400, ErrorCode::BadRequest, true),
        ("POST /v1/evidence HTTP/1.1\r\nHost: g\r\nExpect: 202\r\n\r\n", 417, ErrorCode::BadRequest, true),
        (&large, 431, ErrorCode::BadRequest, true),
        (
            "POST /v1/nowhere HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
            404,
            ErrorCode::NotFound,
            true,
        ),
    ];
    for (request, status, code, closes) in table {
        let (response, closed) = answer(&mut world, request.as_bytes());
        let shown = &request[..request.len().min(80)];
        assert_eq!((response.status, response.error(), closed), (status, code, closes), "{shown:?}");
    }
    let refused = Event::RequestEnded { end: RequestEnd::Refused, tokens: 0 };
    assert_eq!(world.events().iter().filter(|event| **event == refused).count(), table.len());
}

#[test]
fn e7_no_error_repeats_anything_of_the_request() {
    let mut world = World::new();
    let bodies = [
        r#"{"messages":"canary-01234567890"}"#,
        r#"{"canary-01234567890":1}"#,
        r#"{"messages":[{"role":"canary-01234567890","content":"x"}]}"#,
        "canary-01234567890",
    ];
    for path in ["/v1/tasks/summarize", "/v1/chat/completions", "/v1/evidence", "/canary-01234567890"] {
        for body in bodies {
            let (response, _) = answer(&mut world, &post(path, body.as_bytes()));
            assert!((400..500).contains(&response.status), "{path} {body}");
            assert!(!format!("{}{}", response.head, response.text()).contains("canary"), "{path} {body}");
        }
    }
}

#[test]
fn a_head_request_is_answered_without_a_body() {
    let mut world = World::new();
    let mut peer = world.attested();
    peer.client.write(b"HEAD /v1/evidence HTTP/1.1\r\nHost: g\r\n\r\n");
    world.settle(&mut peer);
    let text = String::from_utf8(std::mem::take(&mut peer.client.received)).expect("ASCII");
    assert!(text.starts_with("HTTP/1.1 405 ") && text.ends_with("\r\n\r\n"), "{text}");
    assert!(text.contains("Allow: POST\r\n"), "{text}");
    assert_eq!(world.ask(&mut peer, &post("/v1/evidence", &[1; 32])).status, 200);
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let mut world = World::new();
    let mut peer = world.attested();
    let chat = post("/v1/chat/completions", br#"{"messages":[{"role":"user","content":"hi"}]}"#);
    let all =
        [post("/v1/tasks/summarize", TASK), post("/v1/nowhere", b"x"), post("/v1/evidence", &[9; 32]), chat];
    peer.client.write(&all.concat());
    world.settle(&mut peer);
    let mut next = || peer.client.response().expect("one answer for each request");
    assert!(next().text().contains(r#""type":"done""#));
    assert_eq!(next().status, 404);
    let evidence = next();
    assert!(next().text().contains("chat.completion"));
    assert!(peer.client.received.is_empty());
    world.verify(&peer.client, &[9; 32], &evidence.body);
}

#[test]
fn c8_a_request_inside_a_body_is_not_served() {
    let mut world = World::new();
    let mut peer = world.attested();
    let smuggled = post("/v1/evidence", &[1; 32]);
    let response = world.ask(&mut peer, &post("/v1/tasks/summarize", &smuggled));
    assert_eq!(response.status, 400);
    assert!(peer.client.received.is_empty());
}

#[test]
fn a_client_may_wait_for_continue() {
    let mut world = World::new();
    let mut peer = world.attested();
    let head = |path: &str, length: usize| {
        format!("POST {path} HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
    };
    let response = world.ask(&mut peer, head("/v1/evidence", 32).as_bytes());
    assert_eq!(response.status, 100);
    let response = world.ask(&mut peer, &[6; 32]);
    assert_eq!(response.status, 200);
    world.verify(&peer.client, &[6; 32], &response.body);

    // What would be refused is refused before the body is sent.
    for (path, length, status) in [("/v1/nowhere", 5, 404), ("/v1/evidence", 1 << 20, 413)] {
        let mut peer = world.attested();
        let response = world.ask(&mut peer, head(path, length).as_bytes());
        assert_eq!(response.status, status);
        assert!(peer.client.closed);
        world.service.close(peer.id);
    }
}

#[test]
fn a17_a_client_that_sends_ahead_without_end_is_dropped() {
    let mut world = World::new();
    let mut peer = world.attested();
    // While one answer is due, a little may wait, but no more than another whole request.
    world.controls.refuse.set(Some(service::AttestError::Throttled));
    peer.client.write(&post("/v1/evidence", &[1; 32]));
    world.settle(&mut peer);
    for _ in 0..6 {
        peer.client.write(&[b'x'; 10_000]);
        world.settle(&mut peer);
    }
    assert!(peer.client.closed || world.service.wants_close(peer.id));
}

#[test]
fn a17_a_request_that_drips_in_is_dropped() {
    let mut world = World::new();
    let drip = |world: &mut World, peer: &mut Peer, byte: &[u8]| {
        peer.client.write(byte);
        world.exchange(peer);
        world.pass(10_000);
        world.exchange(peer);
    };
    let mut peer = world.attested();
    for _ in 0..2 {
        drip(&mut world, &mut peer, b"P");
        assert!(!world.service.wants_close(peer.id));
    }
    for _ in 0..3 {
        drip(&mut world, &mut peer, b"P");
    }
    assert!(world.service.wants_close(peer.id));
}
