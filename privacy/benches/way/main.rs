//! What relay and gateway cost, as the programs that operators run. Prints one JSON object a figure.
//!
//! `cargo bench -p privacy --bench way [-- PART…]`, the parts being relay, gateway, latency, memory and scaling. Needs wrk and
//! h2load, and for `scaling` Redis and PostgreSQL. The load comes from stock generators; tokens, encapsulated requests and the
//! guest (an echo that hangs up after a full stop) from this program. What a second of a core serves is counted in CPU time of
//! the relay's or the gateway's process, so neither the generator nor the other side is in it.

#[path = "../../tests/common/mod.rs"]
mod common;
mod load;
mod programs;

use common::log::{Log, key_entry};
use common::stores::{DURABLE, Postgres, Redis, Server};
use load::{Wrk, h2load};
use privacy::bhttp;
use privacy::body::whole;
use privacy::gateway::keys::KemName;
use privacy::issuer::signing::SigningKey;
use privacy::ohttp::{ClientExchange, Form, KeyConfig};
use privacy::serve::{self, serve};
use privacy::session::OPEN;
use privacy::token::structure::Token;
use privacy::transport::{Mode, Tunnel, Way};
use programs::{Limit, Program, files};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use transparency::entry::Kind;

/// Requests of a measurement of CPU time.
const REQUESTS: usize = 4_000;
/// Bodies beyond these, for requests that a generator has sent when it is stopped.
const SPARE: usize = 64;
/// Messages that go there and back, and sessions that are opened, for a median.
const ECHOES: usize = 2_000;
const OPENED: usize = 200;
/// Sessions that are held open.
const SESSIONS: [usize; 3] = [1_000, 5_000, 10_000];
/// Sessions of a client on one connection to the relay.
const SHARED: usize = 200;

const KEMS: [(&str, KemName); 2] = [("X25519", KemName::X25519), ("X-Wing", KemName::XWing)];

fn figure(name: &str, value: f64, unit: &str) {
    println!("{}", serde_json::json!({ "name": name, "value": value, "unit": unit }));
}

/// What all gateways share: a log, an issuer's key, and a guest.
struct World {
    log: Log,
    issuer: SigningKey,
    proof: Vec<u8>,
    guest: String,
}

impl World {
    async fn new() -> Self {
        let (log, issuer) = (Log::new().await, SigningKey::generate().unwrap());
        let spki = issuer.public().spki().to_vec();
        let proof = log.log(key_entry(Kind::IssuerKey, "issuer.example", 1, spki)).await;
        Self { log, issuer, proof, guest: guest().await }
    }

    fn tokens(&self, count: usize) -> Vec<Token> {
        common::gateway::tokens(&self.issuer, count)
    }

    /// A gateway in a folder of its own, with a key for this KEM.
    fn gateway(&self, kem: KemName, store: Option<&str>, cpu: Option<usize>) -> AtGateway {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        fs::write(at.join("issuer-key"), &self.proof).unwrap();
        let (store, listen) = (store.unwrap_or("redb:spent.redb"), "address = \"127.0.0.1:0\"");
        let config =
            common::gateway::write(at, &self.log.trust, &self.guest, kem, store, &["issuer-key"], listen);
        let arguments = ["serve", "--config", "gateway.toml"];
        let program = Program::start(env!("CARGO_BIN_EXE_cloister-gateway"), &arguments, at, cpu);
        let url = format!("http://{}/", program.address);
        AtGateway { program, url, config, folder }
    }
}

struct AtGateway {
    program: Program,
    url: String,
    config: KeyConfig,
    folder: TempDir,
}

/// A relay for this gateway.
fn relay(folder: &Path, gateway: &str) -> (Program, String) {
    let config = format!(
        "[listen]\naddress = \"127.0.0.1:0\"\n\n[[gateway]]\npath = \"/gateway\"\nurl = \"{gateway}\"\n"
    );
    fs::write(folder.join("relay.toml"), config).unwrap();
    let program =
        Program::start(env!("CARGO_BIN_EXE_cloister-relay"), &["--config", "relay.toml"], folder, None);
    let url = format!("http://{}/gateway", program.address);
    (program, url)
}

/// Says what it hears, and hangs up after a full stop.
async fn guest() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let mut buffer = [0; 512];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..length]).await.is_err() || buffer[..length].contains(&b'.')
                    {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A whole request for a session, with a token of its own: in the chunked form with 300 bytes for the guest, which ends it.
fn request(config: &KeyConfig, form: Form, token: &Token) -> Vec<u8> {
    let (mut out, sealer, _) = ClientExchange::start(config, form).unwrap();
    let mut message = bhttp::request_head("POST", "", OPEN, &[("authorization", &token.authorization())]);
    let mut content = [b'a'; 300];
    content[299] = b'.';
    bhttp::content(&content, &mut message);
    message.extend_from_slice(&bhttp::END);
    sealer.finish(&message, &mut out).unwrap();
    out
}

fn requests(world: &World, config: &KeyConfig, form: Form, count: usize) -> Vec<Vec<u8>> {
    world.tokens(count + SPARE).iter().map(|token| request(config, form, token)).collect()
}

/// A gateway that answers everything at once with as many bytes as a session's answer has.
async fn stub() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let service = |request: hyper::Request<hyper::body::Incoming>| async move {
        use http_body_util::BodyExt;
        let form = request.headers()["content-type"].to_str().ok().and_then(Form::of_request).unwrap();
        let _ = request.into_body().collect().await;
        let answer = hyper::Response::builder().header("content-type", form.response_type());
        answer.body(whole(vec![0; 512])).unwrap()
    };
    tokio::spawn(serve(
        listener,
        None,
        serve::Limits::default(),
        service,
        CancellationToken::new(),
        Duration::ZERO,
    ));
    url
}

/// Requests for a second of one core of the relay, in front of a gateway that costs nothing.
async fn relay_part(world: &World) {
    let folder = tempfile::tempdir().unwrap();
    let (program, url) = relay(folder.path(), &stub().await);
    for (name, kem) in KEMS {
        let key = privacy::ohttp::SecretKey::generate(1, kem.into()).unwrap();
        let body = request(key.config(), Form::Chunked, &world.tokens(1)[0]);
        let kind = Form::Chunked.request_type();
        let rate = |name: &str, load: &dyn Fn(usize)| {
            load(REQUESTS / 4);
            let before = program.cpu();
            load(4 * REQUESTS);
            figure(name, (4 * REQUESTS) as f64 / (program.cpu() - before), "requests/s");
        };
        let at = folder.path();
        let bodies = [body.clone()];
        rate(&format!("relay, one core, {name}, from HTTP/1.1 (wrk)"), &|count| {
            Wrk::start(&url, kind, &bodies, count, at).finish();
        });
        rate(&format!("relay, one core, {name}, from HTTP/2 (h2load)"), &|count| {
            h2load(&url, kind, &body, count, at)
        });
    }
}

/// Requests for a second of one core of the gateway.
fn gateway_part(world: &World) {
    for (name, kem) in KEMS {
        let gateway = world.gateway(kem, None, None);
        for (what, form) in
            [("a token and no session", Form::Whole), ("a token and a session", Form::Chunked)]
        {
            let bodies = requests(world, &gateway.config, form, REQUESTS);
            let before = gateway.program.cpu();
            let wrk = Wrk::start(&gateway.url, form.request_type(), &bodies, REQUESTS, gateway.folder.path());
            let seconds = wrk.finish().as_secs_f64();
            let rate = REQUESTS as f64 / (gateway.program.cpu() - before);
            figure(&format!("gateway, one core, {name}, {what} (wrk)"), rate, "requests/s");
            figure(
                &format!("gateway, this machine, {name}, {what} (wrk)"),
                REQUESTS as f64 / seconds,
                "requests/s",
            );
        }
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// One message there and back, in microseconds.
async fn echo(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> f64 {
    let mut buffer = [0; 256];
    let start = Instant::now();
    stream.write_all(&buffer).await.unwrap();
    stream.read_exact(&mut buffer).await.unwrap();
    start.elapsed().as_secs_f64() * 1e6
}

async fn echoes(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> f64 {
    let mut times = Vec::with_capacity(ECHOES);
    for _ in 0..ECHOES {
        times.push(echo(stream).await);
    }
    median(times)
}

/// Opens sessions, each with its first message there and back: the median in microseconds.
async fn opened<S: AsyncReadExt + AsyncWriteExt + Unpin>(mut open: impl AsyncFnMut() -> S) -> f64 {
    let mut times = Vec::with_capacity(OPENED);
    for _ in 0..OPENED {
        let start = Instant::now();
        let mut stream = open().await;
        echo(&mut stream).await;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    median(times)
}

fn way(url: &str, config: &KeyConfig) -> Way {
    Way::new(url, None, config.clone(), Mode::Duplex).unwrap()
}

/// What each hop adds.
async fn latency_part(world: &World) {
    let direct = async || {
        let stream = TcpStream::connect(&world.guest).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    };
    let (message, opening) = (echoes(&mut direct().await).await, opened(direct).await);
    figure("256 bytes to the guest and back, directly", message, "us");
    figure("a session and its first 256 bytes, directly", opening, "us");
    for (name, kem) in KEMS {
        let gateway = world.gateway(kem, None, None);
        let (_relay, through) = relay(gateway.folder.path(), &gateway.url);
        let mut tokens = world.tokens(2 * OPENED + 2).into_iter();
        let (mut messages, mut openings) = (vec![message], vec![opening]);
        for url in [&gateway.url, &through] {
            let way = way(url, &gateway.config);
            messages.push(echoes(&mut way.open(&tokens.next().unwrap()).unwrap()).await);
            openings.push(opened(async || way.open(&tokens.next().unwrap()).unwrap()).await);
        }
        for (what, times) in
            [("256 bytes there and back", messages), ("a session and its first 256 bytes", openings)]
        {
            figure(&format!("{what}, {name}, added by gateway and encapsulation"), times[1] - times[0], "us");
            figure(&format!("{what}, {name}, added by the relay"), times[2] - times[1], "us");
        }
    }
}

/// Memory with many sessions open: through relay and gateway, and at the gateway alone over shared connections.
async fn memory_part(world: &World) {
    // Behind a relay each session has two sockets at the gateway, and some files are others'.
    let most = (files(Limit::Hard) - 200) / 2;
    for (name, with_relay) in
        [("through a relay", true), ("over HTTP/2 connections that sessions share", false)]
    {
        let gateway = world.gateway(KemName::XWing, None, None);
        let (relay, through) = relay(gateway.folder.path(), &gateway.url);
        let url = if with_relay { &through } else { &gateway.url };
        let levels = SESSIONS.map(|level| if with_relay { level.min(most) } else { level });
        let say = |open: usize| {
            figure(
                &format!("memory of the gateway, {open} sessions {name}"),
                gateway.program.memory(),
                "bytes",
            );
            if with_relay {
                figure(&format!("memory of the relay, {open} sessions"), relay.memory(), "bytes");
            }
        };
        say(0);
        let tokens = world.tokens(levels[2]);
        let mut open: Vec<Tunnel> = Vec::with_capacity(tokens.len());
        let mut shared = way(url, &gateway.config);
        for token in &tokens {
            if open.len().is_multiple_of(SHARED) {
                shared = way(url, &gateway.config);
            }
            let mut tunnel = shared.open(token).unwrap();
            echo(&mut tunnel).await;
            open.push(tunnel);
            if levels.contains(&open.len()) {
                say(open.len());
            }
        }
        // All of them stand.
        for tunnel in open.iter_mut().step_by(97) {
            echo(tunnel).await;
        }
    }
}

/// One gateway, then two, on one store. Each has a CPU and a thread of its own; load and store take what is left.
fn scaling(world: &World, what: &str, store: &impl Server) {
    let mut rates = Vec::new();
    for count in [1, 2] {
        let gateways: Vec<_> =
            (0..count).map(|cpu| world.gateway(KemName::XWing, Some(&store.url()), Some(cpu))).collect();
        let form = Form::Whole;
        let bodies: Vec<_> =
            gateways.iter().map(|gateway| requests(world, &gateway.config, form, REQUESTS)).collect();
        let before: f64 = gateways.iter().map(|gateway| gateway.program.cpu()).sum();
        let start = |(gateway, bodies): (&AtGateway, &Vec<Vec<u8>>)| {
            Wrk::start(&gateway.url, form.request_type(), bodies, REQUESTS, gateway.folder.path())
        };
        let loads: Vec<_> = gateways.iter().zip(&bodies).map(start).collect();
        let each: Vec<f64> = std::thread::scope(|scope| {
            let waits: Vec<_> = loads.into_iter().map(|load| scope.spawn(|| load.finish())).collect();
            waits.into_iter().map(|wait| REQUESTS as f64 / wait.join().unwrap().as_secs_f64()).collect()
        });
        let rate: f64 = each.iter().sum();
        let used: f64 = gateways.iter().map(|gateway| gateway.program.cpu()).sum::<f64>() - before;
        let gateways = if count == 1 { "1 gateway".to_owned() } else { format!("{count} gateways") };
        figure(&format!("{what}, {gateways} of one CPU each: requests"), rate, "requests/s");
        let cost = 1e6 * used / (count * REQUESTS) as f64;
        figure(
            &format!("{what}, {gateways} of one CPU each: CPU time of a gateway for a request"),
            cost,
            "us",
        );
        rates.push(rate);
    }
    figure(&format!("{what}, 2 gateways to 1"), rates[1] / rates[0], "1");
}

fn main() {
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if programs::files(Limit::Soft) < programs::files(Limit::Hard) {
        std::process::exit(programs::again());
    }
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(World::new());
    if wanted("relay") {
        runtime.block_on(relay_part(&world));
    }
    if wanted("gateway") {
        gateway_part(&world);
    }
    if wanted("latency") {
        runtime.block_on(latency_part(&world));
    }
    if wanted("memory") {
        runtime.block_on(memory_part(&world));
    }
    if wanted("scaling") {
        if let Some(redis) = Redis::new(&DURABLE) {
            scaling(&world, "Redis", &redis);
        }
        if let Some(postgres) = Postgres::new(&[]) {
            scaling(&world, "PostgreSQL", &postgres);
        }
    }
}
