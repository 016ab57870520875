//! What tokens cost: to issue, to check, to remember. Lines of JSON, one for each figure.
//!
//! `cargo bench -p privacy --bench tokens`. With `--gateway URL SECONDS FIRST` this program is a gateway that spends.

#[path = "../tests/common/stores.rs"]
mod stores;

use privacy::issuer::accounts::{Account, Authenticate, Authenticating};
use privacy::issuer::epochs::{Epochs, Schedule};
use privacy::issuer::quota::Quota;
use privacy::issuer::service::{Issuer, router};
use privacy::issuer::signing::SigningKey;
use privacy::token::challenge::Challenge;
use privacy::token::key::TokenKey;
use privacy::token::redeem::Refusal;
use privacy::token::request::Pending;
use privacy::token::spent::{Spend, Spent};
use privacy::token::structure::{BATCH_REQUEST, Token};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use stores::{DURABLE, Postgres, Redis, Server};

/// Spends that a gateway has in flight at a time.
const IN_FLIGHT: u64 = 512;
const SECONDS: u64 = 4;

fn figure(name: &str, value: f64, unit: &str) {
    println!("{}", serde_json::json!({ "name": name, "value": value, "unit": unit }));
}

fn now() -> u64 {
    privacy::clock::now().unwrap()
}

/// Median over many rounds of the time of one call, in microseconds.
fn microseconds(mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..400)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A key and a token under it.
fn token() -> (SigningKey, Arc<TokenKey>, Token) {
    let key = SigningKey::generate().unwrap();
    let public = Arc::new(TokenKey::parse(key.public().spki()).unwrap());
    let challenge = Challenge::new("issuer.example", &["gateway.example"]).unwrap();
    let pending = Pending::new(public.clone(), &challenge, 1).unwrap();
    let signature = key.sign(&pending.requests()[0].blinded).unwrap();
    let [token] = pending.finish(&[Some(signature)]).unwrap().try_into().unwrap();
    (key, public, token)
}

fn one_core() {
    let (key, public, token) = token();
    let challenge = Challenge::new("issuer.example", &["gateway.example"]).unwrap();
    let blind = || Pending::new(public.clone(), &challenge, 1).unwrap();
    let blinded = blind().requests()[0].blinded;
    let sign = microseconds(|| assert!(key.sign(&blinded).is_ok()));
    figure("issuer: signing a token", sign, "us");
    figure("issuer: tokens signed, one core", 1e6 / sign, "tokens/s");
    figure("client: blinding a token", microseconds(|| drop(blind())), "us");
    let mut ready: Vec<_> = (0..400)
        .map(|_| {
            let pending = blind();
            let signature = key.sign(&pending.requests()[0].blinded).unwrap();
            (pending, signature)
        })
        .collect();
    let finish = microseconds(|| {
        let (pending, signature) = ready.pop().unwrap();
        pending.finish(&[Some(signature)]).unwrap();
    });
    figure("client: unblinding and checking a token", finish, "us");
    let verify = microseconds(|| assert!(public.verifies(&token)));
    figure("gateway: checking a token's signature", verify, "us");
    figure("gateway: signatures checked, one core", 1e6 / verify, "tokens/s");
    figure("a token", Token::LENGTH as f64, "bytes");
}

struct Everyone;

impl Authenticate for Everyone {
    fn account<'a>(&'a self, bearer: &'a str) -> Authenticating<'a> {
        Box::pin(std::future::ready(Ok(Account::new("bench", bearer))))
    }
}

/// The same batch again and again: an issuer cannot tell.
async fn issuing() {
    let folder = tempfile::tempdir().unwrap();
    let name = "issuer.example".parse().unwrap();
    let schedule = Schedule { epoch_hours: 24, overlap_hours: 6 };
    Epochs::add(folder.path(), &name, schedule, now()).unwrap();
    let epochs = Epochs::load(folder.path()).unwrap();
    let public = TokenKey::parse(epochs.all()[0].signing.public().spki()).unwrap();
    let challenge = Challenge::new("issuer.example", &["gateway.example"]).unwrap();
    let batch = Pending::new(Arc::new(public), &challenge, 32).unwrap().batch();
    let quota = Quota::open(&folder.path().join("quota"), u32::MAX).unwrap();
    let issuer = Arc::new(Issuer::new(epochs, Box::new(Everyone), quota));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token-request", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router(issuer)).await });
    let done = Arc::new(AtomicU64::new(0));
    let mut accounts = tokio::task::JoinSet::new();
    let start = Instant::now();
    for account in 0..8 {
        let (url, batch, done) = (url.clone(), batch.clone(), done.clone());
        accounts.spawn(async move {
            let client = reqwest::Client::new();
            while start.elapsed() < Duration::from_secs(SECONDS) {
                let request = client.post(&url).bearer_auth(account).header("content-type", BATCH_REQUEST);
                let response = request.body(batch.clone()).send().await.unwrap();
                assert!(response.status().is_success());
                response.bytes().await.unwrap();
                done.fetch_add(32, Relaxed);
            }
        });
    }
    accounts.join_all().await;
    let rate = done.load(Relaxed) as f64 / start.elapsed().as_secs_f64();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    figure(
        &format!("issuer: tokens issued over HTTP, batches of 32, {cores} cores with the clients"),
        rate,
        "tokens/s",
    );
}

/// A gateway that checks a token and spends another each time; gives how many it spent.
async fn gateway(url: &str, seconds: u64, first: u64) -> u64 {
    let spent = Spent::open(url).await.unwrap();
    let (_, public, token) = token();
    let next = Arc::new(AtomicU64::new(first));
    let epoch_end = now() / 3600 * 3600 + 7 * 86_400;
    let mut in_flight = tokio::task::JoinSet::new();
    let start = Instant::now();
    for _ in 0..IN_FLIGHT {
        let (spent, public, token, next) = (spent.clone(), public.clone(), token.clone(), next.clone());
        in_flight.spawn(async move {
            let mut done = 0;
            while start.elapsed() < Duration::from_secs(seconds) {
                assert!(public.verifies(&token));
                let mut id = [0; 32];
                id[..8].copy_from_slice(&next.fetch_add(1, Relaxed).to_le_bytes());
                match spent.spend(Spend { id, epoch_end }).await {
                    Ok(()) => done += 1,
                    Err(Refusal::Unavailable) => (),
                    Err(other) => panic!("{other}"),
                }
            }
            done
        });
    }
    in_flight.join_all().await.into_iter().sum()
}

/// So many gateways, each a process, on one store.
fn gateways(what: &str, url: &str, count: u64, first: u64) -> f64 {
    let start = |number: u64| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let first = first + number * 1_000_000_000;
        command.args(["--gateway", url, &SECONDS.to_string(), &first.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..count).map(start).collect();
    let spent: u64 = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap().trim().parse::<u64>().unwrap()
        })
        .sum();
    let rate = spent as f64 / SECONDS as f64;
    let gateways = if count == 1 { "1 gateway".to_owned() } else { format!("{count} gateways") };
    figure(&format!("redeeming, {what}, {gateways}"), rate, "tokens/s");
    rate
}

fn shared(what: &str, server: &impl Server) {
    let one = gateways(what, &server.url(), 1, 1 << 40);
    let two = gateways(what, &server.url(), 2, 1 << 50);
    figure(&format!("redeeming, {what}, 2 gateways to 1"), two / one, "1");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let [flag, url, seconds, first] = arguments.as_slice()
        && flag == "--gateway"
    {
        let spent = runtime.block_on(gateway(url, seconds.parse().unwrap(), first.parse().unwrap()));
        println!("{spent}");
        return;
    }
    one_core();
    runtime.block_on(issuing());
    let folder = tempfile::tempdir().unwrap();
    gateways("redb", &format!("redb:{}", folder.path().join("spent").display()), 1, 0);
    if let Some(redis) = Redis::new(&DURABLE) {
        shared("Redis", &redis);
    }
    if let Some(postgres) = Postgres::new(&[]) {
        shared("PostgreSQL", &postgres);
    }
}
