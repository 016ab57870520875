//! What relay and gateway make of bad input, over sockets.

use crate::bhttp::{self, Decoder};
use crate::body::{Body, streamed, whole};
use crate::gateway::Limits;
use crate::ohttp::{ClientExchange, Form, KeyConfig, PROBLEM_KEY, SecretKey};
use crate::relay::{self, GatewayAt, Relay};
use crate::serve::{self, serve};
use crate::session::{APPEND, OFFSET_FIELD, OPEN, SESSION_FIELD};
use crate::transport::tests::{Line, failure, session, shout, shouting_guest, token};
use crate::transport::{Mode, TransportError, Way};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// What no answer may repeat.
const CANARY: &[u8] = b"the heron lands at dusk";

fn http() -> Client<HttpConnector, Body> {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

async fn post(url: &str, media_type: &str, body: Body) -> Response<Incoming> {
    let request = Request::post(url).header(CONTENT_TYPE, media_type).body(body).unwrap();
    http().request(request).await.unwrap()
}

async fn read(response: Response<Incoming>) -> (StatusCode, Bytes) {
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

/// An encapsulated request with this binary HTTP message, and what opens its answer.
fn encapsulate(config: &KeyConfig, form: Form, message: &[u8]) -> (Vec<u8>, ClientExchange) {
    let (mut out, sealer, exchange) = ClientExchange::start(config, form).unwrap();
    sealer.finish(message, &mut out).unwrap();
    (out, exchange)
}

/// Status and content of an answer's inside.
fn inside(exchange: ClientExchange, answer: &[u8]) -> (u16, Vec<u8>) {
    let (mut opener, mut plain, mut content) = (exchange.response(1 << 20), Vec::new(), Vec::new());
    opener.push(answer, &mut plain).unwrap();
    opener.finish(&mut plain).unwrap();
    let mut decoder = Decoder::response();
    decoder.push(&plain, &mut content).unwrap();
    decoder.finish().unwrap();
    (decoder.head().unwrap().status().unwrap(), content)
}

async fn ask(line: &Line, form: Form, message: &[u8]) -> (u16, Vec<u8>) {
    let (request, exchange) = encapsulate(line.key.config(), form, message);
    let answer = post(&line.at_gateway, form.request_type(), whole(request)).await;
    assert_eq!(answer.headers()[CONTENT_TYPE], form.response_type());
    let (status, body) = read(answer).await;
    assert_eq!(status, 200);
    inside(exchange, &body)
}

/// A request of indeterminate length.
fn message(method: &str, path: &str, fields: &[(&str, &str)], content: &[u8]) -> Vec<u8> {
    let mut out = bhttp::request_head(method, "", path, fields);
    bhttp::content(content, &mut out);
    out.extend_from_slice(&bhttp::END);
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_bad_requests_get_a_clear_status_and_nothing_back() {
    let (listener, guest) = shouting_guest().await;
    tokio::spawn(shout(listener));
    let line = Line::start(vec![guest], Limits::default()).await;
    let config = line.key.config();
    let url = line.at_gateway.as_str();
    let [whole_form, chunked] = [Form::Whole, Form::Chunked];
    let good = |form| encapsulate(config, form, &message("POST", OPEN, &[], CANARY)).0;
    let with = |at: usize, value: u8| {
        let mut bytes = good(whole_form);
        bytes[at] = value;
        bytes
    };
    let other = SecretKey::generate(1, config.kem).unwrap();
    let huge = vec![0; 1 << 20];
    let cases: Vec<(&str, &str, Vec<u8>, u16, &str)> = vec![
        ("another media type", "text/plain", CANARY.to_vec(), 415, "media type"),
        ("nothing", whole_form.request_type(), Vec::new(), 400, "malformed"),
        ("no OHTTP at all", whole_form.request_type(), CANARY.to_vec(), 400, PROBLEM_KEY),
        ("an unknown key", whole_form.request_type(), with(0, 99), 400, PROBLEM_KEY),
        ("another KEM", whole_form.request_type(), with(2, 0x10), 400, PROBLEM_KEY),
        ("another KDF", whole_form.request_type(), with(4, 9), 400, PROBLEM_KEY),
        ("another AEAD", whole_form.request_type(), with(6, 9), 400, PROBLEM_KEY),
        ("one bit off", whole_form.request_type(), with(500, 1), 400, PROBLEM_KEY),
        ("cut off", chunked.request_type(), good(chunked)[..1190].into(), 400, PROBLEM_KEY),
        ("cut in the key", chunked.request_type(), good(chunked)[..700].into(), 400, "malformed"),
        ("too large", whole_form.request_type(), [&good(whole_form)[..], &huge].concat(), 413, "too large"),
        (
            "for the key of another gateway",
            chunked.request_type(),
            encapsulate(other.config(), chunked, &message("POST", OPEN, &[], CANARY)).0,
            400,
            PROBLEM_KEY,
        ),
    ];
    for (name, media_type, bytes, expected, says) in cases {
        let (status, body) = read(post(url, media_type, whole(bytes)).await).await;
        assert_eq!(status.as_u16(), expected, "{name}");
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains(says), "{name}: {text}");
        assert!(!body.windows(CANARY.len()).any(|window| window == CANARY), "{name}: {text}");
    }
    let get = Request::get(url).body(whole("")).unwrap();
    assert_eq!(http().request(get).await.unwrap().status(), 405);

    // Inside of the encapsulation, in both forms.
    for form in [whole_form, chunked] {
        let long = "x".repeat(bhttp::MAX_HEAD);
        let token = token("bad").authorization();
        let bad = [
            (b"no binary HTTP".to_vec(), 400),
            (message("POST", "/", &[("x", &long)], b""), 400),
            (message("GET", OPEN, &[], b""), 405),
            (message("POST", "/etc/passwd", &[], CANARY), 404),
            (message("POST", OPEN, &[], CANARY), 401),
            (message("POST", OPEN, &[("authorization", "Bearer x")], CANARY), 401),
            (message("POST", OPEN, &[("authorization", &token)], CANARY), 401),
            (message("POST", APPEND, &[], CANARY), 400),
            (message("POST", APPEND, &[(SESSION_FIELD, "zz"), (OFFSET_FIELD, "0")], CANARY), 400),
            (message("POST", APPEND, &[(SESSION_FIELD, &"ab".repeat(16)), (OFFSET_FIELD, "0")], CANARY), 404),
        ];
        for (message, expected) in bad {
            let (status, content) = ask(&line, form, &message).await;
            assert_eq!(status, expected, "{}", String::from_utf8_lossy(&content));
            assert!(!content.windows(CANARY.len()).any(|window| window == CANARY));
        }
    }
    let good = token("good").authorization();
    let (status, content) =
        ask(&line, whole_form, &message("POST", OPEN, &[("authorization", &good)], b"")).await;
    assert_eq!(status, 400, "{}", String::from_utf8_lossy(&content));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_a_replayed_request_is_refused_and_reaches_no_guest() {
    let (listener, guest) = shouting_guest().await;
    let line = Line::start(vec![guest], Limits::default()).await;
    drop(listener.accept().await.unwrap());
    let authorization = token("good").authorization();
    let open = message("POST", OPEN, &[("authorization", &authorization)], b"once");
    let (request, _exchange) = encapsulate(line.key.config(), Form::Chunked, &open);
    let first = post(&line.at_gateway, Form::Chunked.request_type(), whole(request.clone())).await;
    assert_eq!(first.status(), 200);
    let (mut guest, _) = listener.accept().await.unwrap();
    let mut received = [0; 4];
    guest.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"once");
    for _ in 0..3 {
        let copy = post(&line.at_gateway, Form::Chunked.request_type(), whole(request.clone())).await;
        let (status, body) = read(copy).await;
        assert_eq!(status, 400);
        assert!(String::from_utf8_lossy(&body).contains("answered before"));
    }
    let more = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(more.is_err(), "no copy opened a session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_pieces_that_a_relay_drops_repeats_or_reorders_are_refused() {
    let (listener, guest) = shouting_guest().await;
    let line = Line::start(vec![guest], Limits::default()).await;
    drop(listener.accept().await.unwrap());
    let authorization = token("good").authorization();
    let open = message("POST", OPEN, &[("authorization", &authorization)], b"0123");
    let (request, exchange) = encapsulate(line.key.config(), Form::Chunked, &open);
    let answer = post(&line.at_gateway, Form::Chunked.request_type(), whole(request)).await;
    let mut body = answer.into_body();
    let (mut opener, mut plain) = (exchange.response(1 << 20), Vec::new());
    let mut decoder = Decoder::response();
    while decoder.head().is_none() {
        opener.push(&body.frame().await.unwrap().unwrap().into_data().unwrap(), &mut plain).unwrap();
        decoder.push(&std::mem::take(&mut plain), &mut Vec::new()).unwrap();
    }
    let id = String::from_utf8(decoder.head().unwrap().field(SESSION_FIELD).unwrap().to_vec()).unwrap();
    let (mut guest, _) = listener.accept().await.unwrap();
    let mut received = [0; 4];
    guest.read_exact(&mut received).await.unwrap();
    let append = async |offset: &str, content: &[u8]| {
        let fields = [(SESSION_FIELD, id.as_str()), (OFFSET_FIELD, offset)];
        ask(&line, Form::Whole, &message("POST", APPEND, &fields, content)).await.0
    };
    // What is missing, what came before, and then what is next.
    assert_eq!(append("8", b"89ab").await, 409);
    assert_eq!(append("0", b"0123").await, 409);
    assert_eq!(append("4", b"4567").await, 204);
    assert_eq!(append("4", b"4567").await, 409);
    assert_eq!(append("8", b"89ab").await, 204);
    let mut received = [0; 8];
    guest.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"456789ab");
    // The session is over when its answer has no reader any more.
    drop(body);
    assert_eq!(guest.read(&mut received).await.unwrap(), 0);
    assert_eq!(append("12", b"cdef").await, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_ten_thousand_half_open_requests_end_and_others_are_served() {
    let (listener, guest) = shouting_guest().await;
    tokio::spawn(shout(listener));
    let limits = Limits { head_seconds: 3, ..Limits::default() };
    let line = Arc::new(Line::start(vec![guest], limits).await);
    // Half of a header each, and silence; 200 on a connection.
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let client = http();
        for _ in 0..200 {
            let (sender, body) = streamed();
            let start = encapsulate(line.key.config(), Form::Chunked, b"").0[..600].to_vec();
            let request = Request::post(&line.at_gateway)
                .header(CONTENT_TYPE, Form::Chunked.request_type())
                .body(body)
                .unwrap();
            let answer = client.request(request);
            waiting.push(tokio::spawn(async move {
                let _ = sender.send(Ok(start.into())).await;
                let answer = answer.await;
                drop(sender);
                answer.map(|answer| answer.status().as_u16())
            }));
        }
    }
    let mut tunnel = line.way(Mode::Duplex).open(&token("good")).unwrap();
    tunnel.write_all(b"still here.").await.unwrap();
    let mut answer = Vec::new();
    tunnel.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"STILL HERE.");
    let mut late = 0;
    for answer in waiting {
        late += usize::from(matches!(answer.await.unwrap(), Ok(408)));
    }
    assert_eq!(late, 10_000, "each is told that it was too slow");
    assert!(line.gateway.metrics().contains("open_sessions 0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_sessions_are_bounded_and_the_one_idle_longest_makes_room() {
    let (listener, guest) = shouting_guest().await;
    tokio::spawn(shout(listener));
    let limits = Limits { sessions: 3, idle_seconds: 20, ..Limits::default() };
    let line = Line::start(vec![guest], limits).await;
    let way = line.way(Mode::Duplex);
    let mut open = Vec::new();
    for name in ["good 1", "good 2", "good 3"] {
        let mut tunnel = way.open(&token(name)).unwrap();
        tunnel.write_all(b"a").await.unwrap();
        tunnel.read_exact(&mut [0]).await.unwrap();
        open.push(tunnel);
    }
    assert_eq!(failure(way.open(&token("good 4"))).await, TransportError::Unavailable(503));
    // A tenth of the idle time later, the first one has to go; the others have moved.
    for _ in 0..25 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for tunnel in &mut open[1..] {
            tunnel.write_all(b"b").await.unwrap();
            tunnel.read_exact(&mut [0]).await.unwrap();
        }
    }
    let mut fifth = way.open(&token("good 5")).unwrap();
    fifth.write_all(b"c").await.unwrap();
    fifth.read_exact(&mut [0]).await.unwrap();
    let evicted = open[0].read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(TransportError::of(&evicted), Some(&TransportError::Truncated));
    open[1].write_all(b"d").await.unwrap();
    open[1].read_exact(&mut [0]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_a_slow_reader_holds_little_of_what_its_guest_says() {
    let (listener, guest) = shouting_guest().await;
    let line = Line::start(vec![guest], Limits { idle_seconds: 2, ..Limits::default() }).await;
    let mut tunnel = line.way(Mode::Duplex).open(&token("good")).unwrap();
    tunnel.write_all(b"talk").await.unwrap();
    let mut guest = session(&listener).await;
    // The guest says what it can. What it gets rid of lies in buffers on the way, and they are bounded.
    let mut taken = 0;
    let piece = vec![7; 64 * 1024];
    loop {
        match tokio::time::timeout(Duration::from_millis(1_000), guest.write(&piece)).await {
            Ok(Ok(length)) => taken += length,
            Ok(Err(_)) | Err(_) => break,
        }
        assert!(taken < 64 << 20, "nothing stops the guest");
    }
    // And then the session ends.
    while !line.gateway.metrics().contains("open_sessions 0") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_the_same_request_reaches_every_guest() {
    let mut guests = Vec::new();
    let reached: Arc<Mutex<Vec<usize>>> = Arc::default();
    for index in 0..3 {
        let (listener, guest) = shouting_guest().await;
        guests.push(guest);
        let reached = reached.clone();
        tokio::spawn(async move {
            drop(listener.accept().await.unwrap());
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                reached.lock().unwrap().push(index);
                let _ = stream.read(&mut [0; 16]).await;
            }
        });
    }
    let line = Line::start(guests, Limits::default()).await;
    // One user sends the same bytes again and again (but for the token, which is spent), the other one others.
    for round in 0..60 {
        for (user, text) in [("good a", &b"the same bytes"[..]), ("good b", &[round; 40])] {
            let mut tunnel = line.way(Mode::Duplex).open(&token(&format!("{user} {round}"))).unwrap();
            tunnel.write_all(text).await.unwrap();
            let _ = tunnel.read_to_end(&mut Vec::new()).await;
        }
    }
    let reached = reached.lock().unwrap().clone();
    assert_eq!(reached.len(), 120);
    let counts = |offset: usize| {
        let mut counts = [0_u32; 3];
        reached.iter().skip(offset).step_by(2).for_each(|guest| counts[*guest] += 1);
        counts
    };
    for counts in [counts(0), counts(1)] {
        // 20 each on average; that one of them gets fewer than 5 happens once in a million runs.
        assert!(counts.iter().all(|count| *count >= 5), "{counts:?}");
    }
}

/// A gateway that notes what reaches it, and answers as it is told.
async fn recorder(answer: fn() -> Response<Body>) -> (String, Arc<Mutex<Vec<(Method, HeaderMap, Bytes)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ohttp", listener.local_addr().unwrap());
    let seen: Arc<Mutex<Vec<_>>> = Arc::default();
    let noted = seen.clone();
    let service = move |request: Request<Incoming>| {
        let noted = noted.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            noted.lock().unwrap().push((head.method, head.headers, body));
            answer()
        }
    };
    tokio::spawn(serve(
        listener,
        None,
        serve::Limits::default(),
        service,
        CancellationToken::new(),
        Duration::ZERO,
    ));
    (url, seen)
}

async fn relay_to(url: String, limits: relay::Limits) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}/gateway", listener.local_addr().unwrap());
    let listed = GatewayAt { path: "/gateway".into(), url, ..GatewayAt::default() };
    let relay = Arc::new(Relay::new(&[listed], Path::new("."), limits).unwrap());
    let service = move |request| relay.clone().handle(request);
    tokio::spawn(serve(
        listener,
        None,
        serve::Limits::default(),
        service,
        CancellationToken::new(),
        Duration::ZERO,
    ));
    at
}

fn talkative() -> Response<Body> {
    let mut response = serve::answer(StatusCode::OK, Form::Whole.response_type(), "sealed");
    for (name, value) in
        [("set-cookie", "id=1"), ("server", "secret/1"), ("x-guest", "10.0.0.7"), ("incremental", "?1")]
    {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c5_the_relay_passes_on_nothing_that_names_a_client() {
    let (url, seen) = recorder(talkative).await;
    let relay = relay_to(url, relay::Limits::default()).await;
    let request = Request::post(&relay)
        .header(CONTENT_TYPE, Form::Whole.request_type())
        .header("incremental", "?1")
        .header("forwarded", "for=192.0.2.43")
        .header("x-forwarded-for", "192.0.2.43")
        .header("x-real-ip", "192.0.2.43")
        .header("via", "1.1 laptop")
        .header("cookie", "id=ada")
        .header("authorization", "Bearer ada")
        .header("user-agent", "Ada's phone")
        .header("accept-language", "en-NZ")
        .header("x-client-id", "ada")
        .body(whole("sealed"))
        .unwrap();
    let answer = http().request(request).await.unwrap();
    let names: Vec<String> = answer.headers().keys().map(ToString::to_string).collect();
    for name in &names {
        let known = ["content-type", "content-length", "cache-control", "incremental", "date"];
        assert!(known.contains(&name.as_str()), "{name} came back from the gateway");
    }
    assert_eq!(read(answer).await.1, "sealed");
    let seen = seen.lock().unwrap();
    let [(method, headers, body)] = &seen[..] else { panic!("{} requests", seen.len()) };
    assert_eq!((method, &body[..]), (&Method::POST, &b"sealed"[..]));
    for (name, value) in headers {
        // The host is the gateway's own.
        let known = ["host", "content-type", "content-length", "transfer-encoding", "incremental"];
        assert!(known.contains(&name.as_str()), "{name}: {value:?} reached the gateway");
    }
    assert_eq!(headers["incremental"], "?1");
}

fn strange() -> Response<Body> {
    serve::answer(StatusCode::OK, "text/html", "<script>")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_the_relay_refuses_what_is_not_for_its_gateways() {
    let (url, seen) = recorder(strange).await;
    let relay =
        relay_to(url, relay::Limits { bytes: 1000, idle_seconds: 1, ..relay::Limits::default() }).await;
    let whole_type = Form::Whole.request_type();
    let elsewhere = relay.replace("/gateway", "/http://internal.example/");
    assert_eq!(post(&elsewhere, whole_type, whole("x")).await.status(), 404);
    assert_eq!(post(&relay, "text/plain", whole("x")).await.status(), 415);
    assert_eq!(post(&relay, whole_type, whole(vec![0; 1001])).await.status(), 413);
    let get = Request::get(&relay).body(whole("")).unwrap();
    assert_eq!(http().request(get).await.unwrap().status(), 405);
    assert!(seen.lock().unwrap().is_empty());
    // An answer that is no OHTTP is not carried either.
    let (status, body) = read(post(&relay, whole_type, whole("x")).await).await;
    assert_eq!(status, 502);
    assert!(!String::from_utf8_lossy(&body).contains("script"));
    // One that says nothing more, and one that goes on for ever.
    let (silent, body) = streamed();
    assert!(matches!(post(&relay, whole_type, body).await.status().as_u16(), 502 | 504));
    drop(silent);
    let (endless, body) = streamed();
    tokio::spawn(async move { while endless.send(Ok(vec![0; 600].into())).await.is_ok() {} });
    assert!(matches!(post(&relay, whole_type, body).await.status().as_u16(), 502 | 504));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c8_connections_that_drip_or_say_nothing_are_closed() {
    let (url, _) = recorder(talkative).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listed = GatewayAt { path: "/gateway".into(), url, ..GatewayAt::default() };
    let relay = Arc::new(Relay::new(&[listed], Path::new("."), relay::Limits::default()).unwrap());
    let limits = serve::Limits { connections: 8, idle_seconds: 1 };
    let service = move |request| relay.clone().handle(request);
    tokio::spawn(serve(listener, None, limits, service, CancellationToken::new(), Duration::ZERO));
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut drip = TcpStream::connect(address).await.unwrap();
    drip.write_all(b"POST /gateway HTTP/1.1\r\nHost: relay\r\nX: ").await.unwrap();
    let dripped = tokio::spawn(async move {
        // The head is due as a whole; each byte buys no time.
        while drip.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut preface = TcpStream::connect(address).await.unwrap();
    preface.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let patience = Duration::from_secs(30);
    let mut rest = Vec::new();
    for stream in [&mut silent, &mut preface] {
        let ended = tokio::time::timeout(patience, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the connection is still open");
    }
    tokio::time::timeout(patience, dripped).await.expect("the dripping one is closed").unwrap();
    // Beyond the bound, connections are closed at once.
    let mut many = Vec::new();
    for _ in 0..12 {
        many.push(TcpStream::connect(address).await.unwrap());
    }
    let mut closed = 0;
    for stream in &mut many {
        let read = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut [0; 1])).await;
        closed += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    assert!(closed >= 4, "{closed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c4_an_answer_that_a_relay_cuts_anywhere_is_an_error() {
    let (listener, guest) = shouting_guest().await;
    tokio::spawn(shout(listener));
    let line = Line::start(vec![guest], Limits::default()).await;
    // A relay that hands on so many bytes of the answer, and then ends it as if it were whole.
    let (gateway, key) = (line.at_gateway.clone(), line.key.config().clone());
    for (round, keep) in [0_usize, 1, 31, 32, 40, 100, 120, 130, usize::MAX].into_iter().enumerate() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let gateway = gateway.clone();
        let service = move |request: Request<Incoming>| {
            let gateway = gateway.clone();
            async move {
                let request = Request::post(gateway)
                    .header(CONTENT_TYPE, Form::Chunked.request_type())
                    .body(request.into_body().map_err(io::Error::other).boxed_unsync())
                    .unwrap();
                let answer =
                    http().request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
                serve::answer(
                    StatusCode::OK,
                    Form::Chunked.response_type(),
                    answer.slice(..answer.len().min(keep)),
                )
            }
        };
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, None, serve::Limits::default(), service, stop.clone(), Duration::ZERO));
        let way = Way::new(&url, None, key.clone(), Mode::Duplex).unwrap();
        let mut tunnel = way.open(&token(&format!("good {round}"))).unwrap();
        tunnel.write_all(b"whole or not at all.").await.unwrap();
        tunnel.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let result = tunnel.read_to_end(&mut answer).await;
        if keep == usize::MAX {
            assert_eq!((result.unwrap(), &answer[..]), (20, &b"WHOLE OR NOT AT ALL."[..]));
        } else {
            let error = result.expect_err("a part taken for the whole");
            assert_eq!(TransportError::of(&error), Some(&TransportError::Truncated), "{keep}");
        }
        stop.cancel();
    }
}
