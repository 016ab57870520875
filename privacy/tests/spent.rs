//! Spent is spent: on all gateways that share a store, and through the death of any of them and of the store.
//!
//! The gateways here are processes: this program runs itself as one that spends what it is told to.

mod common;

use common::stores::{DURABLE, Postgres, Redis, Server};
use privacy::token::redeem::Refusal;
use privacy::token::spent::{Spend, Spent, StoreError};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const STORE: &str = "CLOISTER_TEST_STORE";
/// Tokens of one try.
const TOKENS: u64 = 8;
const PATIENCE: Duration = Duration::from_secs(60);

fn spend(number: u64) -> Spend {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_le_bytes());
    Spend { id, epoch_end: common::now() / 86_400 * 86_400 + 7 * 86_400 }
}

/// What a gateway does with tokens, as a process: reads numbers, spends each, and says how it went.
#[test]
#[ignore = "run by the others, as a process of its own"]
fn gateway_process() {
    let Ok(url) = std::env::var(STORE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let spent = loop {
            match Spent::open(&url).await {
                Ok(spent) => break spent,
                // The one before it has died a moment ago, or the store has.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        println!("\nready");
        let (numbers, mut read) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                let _ = numbers.send(line.parse::<u64>().unwrap());
            }
        });
        while let Some(number) = read.recv().await {
            let spent = spent.clone();
            tokio::spawn(async move {
                let word = match spent.spend(spend(number)).await {
                    Ok(()) => "new",
                    Err(Refusal::Spent) => "spent",
                    Err(_) => "unavailable",
                };
                println!("{word} {number}");
            });
        }
        // Until the last answers are written.
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
}

struct Gateway {
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<(String, u64)>,
}

impl Gateway {
    fn start(url: &str) -> Self {
        Self::trusting(url, None)
    }

    /// With the root of the store's certificate in place of the system's roots.
    fn trusting(url: &str, root: Option<&Path>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["gateway_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(STORE, url).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        if let Some(root) = root {
            command.env("SSL_CERT_FILE", root);
        }
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, answers) = channel();
        let (ready, is_ready) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line == "ready" {
                    let _ = ready.send(());
                }
                let Some((word, number)) = line.split_once(' ') else { continue };
                if let ("new" | "spent" | "unavailable", Ok(number)) = (word, number.parse()) {
                    let _ = sender.send((word.to_owned(), number));
                }
            }
        });
        is_ready.recv_timeout(PATIENCE).expect("the gateway's process to open its store");
        Self { child, stdin, answers }
    }

    fn ask(&mut self, numbers: impl Iterator<Item = u64>) {
        let text: String = numbers.map(|number| format!("{number}\n")).collect();
        // It may be dead already.
        let _ = self.stdin.write_all(text.as_bytes());
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How often each token was taken.
#[derive(Default)]
struct Taken(BTreeMap<u64, u32>);

impl Taken {
    fn note(&mut self, (word, number): (String, u64)) {
        if word == "new" {
            *self.0.entry(number).or_default() += 1;
        }
    }

    /// All that the gateway says until it is silent for good, or has answered of so many.
    fn hear(&mut self, gateway: &Gateway, wanted: usize) -> usize {
        let mut heard = 0;
        while heard < wanted {
            let Ok(answer) = gateway.answers.recv_timeout(PATIENCE) else { break };
            self.note(answer);
            heard += 1;
        }
        heard
    }

    fn assert_once(&self) {
        let twice: Vec<_> = self.0.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "taken more than once: {twice:?}");
    }
}

/// Numbers that look random and are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Asks a gateway to spend, kills it at a random moment, and asks the next one to spend the same and more. With a server,
/// that dies as well, from time to time. Gives how many tokens were taken.
fn die_and_try_again(url: &str, tries: u64, mut server: Option<(&mut dyn Server, u64)>) -> usize {
    let (mut taken, mut random) = (Taken::default(), Random(20_261_120));
    let mut gateway = Gateway::start(url);
    // From spending at once to long done, as the first tries took.
    let mut longest = 20_000;
    for number in 0..tries {
        let first = number.saturating_sub(1) * TOKENS;
        let asked = first..(number + 1) * TOKENS;
        let start = Instant::now();
        gateway.ask(asked.clone());
        if number % 10 == 0 {
            let heard = taken.hear(&gateway, asked.clone().count());
            assert_eq!(heard as u64, asked.end - asked.start, "a living gateway answers of each");
            longest = (start.elapsed().as_micros() as u64 * 3 / 2).clamp(500, 50_000);
        } else {
            std::thread::sleep(Duration::from_micros(random.below(longest)));
        }
        if let Some((server, every)) = &mut server
            && number % *every == 0
        {
            server.kill();
            std::thread::sleep(Duration::from_micros(random.below(2_000)));
            gateway.kill();
            server.start();
        } else {
            gateway.kill();
        }
        while let Ok(answer) = gateway.answers.recv_timeout(Duration::from_millis(50)) {
            taken.note(answer);
        }
        gateway = Gateway::start(url);
    }
    // All that anyone was told is new is spent for the last one.
    let all = tries * TOKENS;
    gateway.ask(0..all);
    assert_eq!(taken.hear(&gateway, all as usize) as u64, all);
    taken.assert_once();
    taken.0.len()
}

#[test]
fn c3_killed_a_thousand_times_no_token_is_taken_twice() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("redb:{}", folder.path().join("spent").display());
    let taken = die_and_try_again(&url, 1000, None);
    assert!(taken > 1000, "{taken} of 8000: the test would show nothing");
}

#[test]
fn c3_redis_killed_with_its_gateways_forgets_nothing() {
    let Some(mut redis) = Redis::new(&DURABLE) else { return };
    let url = redis.url();
    let taken = die_and_try_again(&url, 150, Some((&mut redis, 2)));
    assert!(taken > 300, "{taken} of 1200: the test would show nothing");
}

#[test]
fn c3_postgresql_killed_with_its_gateways_forgets_nothing() {
    let Some(mut postgres) = Postgres::new(&[]) else { return };
    let url = postgres.url();
    let taken = die_and_try_again(&url, 40, Some((&mut postgres, 4)));
    assert!(taken > 80, "{taken} of 320: the test would show nothing");
}

/// Two gateways at once, each asked to spend the same.
fn race(url: &str) {
    let mut gateways = [Gateway::start(url), Gateway::start(url)];
    let mut taken = Taken::default();
    for round in 0..20 {
        for gateway in &mut gateways {
            gateway.ask(round * 50..(round + 1) * 50);
        }
    }
    for gateway in &gateways {
        assert_eq!(taken.hear(gateway, 1000), 1000);
    }
    taken.assert_once();
    assert_eq!(taken.0.len(), 1000, "each is taken by one of them");
}

#[test]
fn c3_of_two_gateways_on_one_redis_one_takes_the_token() {
    let Some(redis) = Redis::new(&DURABLE) else { return };
    race(&redis.url());
}

#[test]
fn c3_of_two_gateways_on_one_postgresql_one_takes_the_token() {
    let Some(postgres) = Postgres::new(&[]) else { return };
    race(&postgres.url());
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_redis_behind_tls_is_used_if_its_certificate_holds() {
    let Some(redis) = Redis::new(&DURABLE) else { return };
    let redis = redis.with_tls();
    // The system's roots do not vouch for it, and nothing is sent to it.
    let error = Spent::open(&redis.url()).await.expect_err("a refusal");
    assert!(matches!(error, StoreError::Failed(_)), "{error}");
    let mut one = Gateway::trusting(&redis.url(), Some(&redis.root()));
    let mut two = Gateway::trusting(&redis.url(), Some(&redis.root()));
    let mut taken = Taken::default();
    for gateway in [&mut one, &mut two] {
        gateway.ask(0..TOKENS);
        assert_eq!(taken.hear(gateway, TOKENS as usize) as u64, TOKENS);
    }
    taken.assert_once();
    assert_eq!(taken.0.len() as u64, TOKENS);
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_redis_that_would_forget_is_refused() {
    let forgets = async |settings: &[&'static str]| {
        let redis = Redis::new(settings)?;
        let error = Spent::open(&redis.url()).await.expect_err("a refusal");
        assert!(matches!(error, StoreError::Forgets(_)), "{error}");
        // Unless its operator answers for it.
        let spent = Spent::open(&format!("{}?durability=unchecked", redis.url())).await.unwrap();
        assert_eq!(spent.spend(spend(1)).await, Ok(()));
        assert_eq!(spent.spend(spend(1)).await, Err(Refusal::Spent));
        Some(())
    };
    for place in [0, 2, 4] {
        // One of the settings as it is by default, or worse.
        let mut settings = DURABLE.to_vec();
        settings[place + 1] = ["no", "", "everysec", "", "allkeys-lru"][place];
        if forgets(&settings).await.is_none() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_a_postgresql_that_would_forget_is_refused() {
    let Some(postgres) = Postgres::new(&["fsync=off"]) else { return };
    let error = Spent::open(&postgres.url()).await.expect_err("a refusal");
    assert!(matches!(error, StoreError::Forgets(_)), "{error}");
    drop(postgres);
    let Some(postgres) = Postgres::new(&[]) else { return };
    assert!(
        postgres
            .sql("CREATE UNLOGGED TABLE cloister_spent (id bytea PRIMARY KEY, forget_at bigint NOT NULL)")
    );
    let error = Spent::open(&postgres.url()).await.expect_err("a refusal");
    assert!(matches!(error, StoreError::Forgets(_)), "{error}");
}

async fn down_and_up(mut server: impl Server) {
    let spent = Spent::open(&server.url()).await.unwrap();
    assert_eq!(spent.spend(spend(1)).await, Ok(()));
    server.kill();
    for number in 1..4 {
        assert_eq!(spent.spend(spend(number)).await, Err(Refusal::Unavailable), "{number}");
    }
    assert!(Spent::open(&server.url()).await.is_err());
    server.start();
    assert_eq!(spent.spend(spend(1)).await, Err(Refusal::Spent));
    assert_eq!(spent.spend(spend(9)).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_while_redis_is_down_all_tokens_are_refused() {
    let Some(redis) = Redis::new(&DURABLE) else { return };
    down_and_up(redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_while_postgresql_is_down_all_tokens_are_refused() {
    let Some(postgres) = Postgres::new(&[]) else { return };
    down_and_up(postgres).await;
}

/// A store that takes connections and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn c3_a_store_that_is_silent_means_a_refusal_in_bounded_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    for url in [format!("redis://127.0.0.1:{port}"), format!("postgres://x@127.0.0.1:{port}/x")] {
        let start = Instant::now();
        let error = Spent::open(&url).await.expect_err("a refusal");
        assert!(matches!(error, StoreError::TimeOut | StoreError::Failed(_)), "{error}");
        assert!(start.elapsed() < PATIENCE);
    }
}

#[tokio::test]
async fn c3_a_store_that_cannot_be_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("redb:{}", folder.path().join("spent").display());
    let _one = Spent::open(&file).await.unwrap();
    let two = Spent::open(&file).await.expect_err("a refusal");
    assert!(two.to_string().contains("spent"), "a second gateway on the file: {two}");
    std::fs::write(folder.path().join("other"), "not a database").unwrap();
    let other = format!("redb:{}", folder.path().join("other").display());
    assert!(matches!(Spent::open(&other).await, Err(StoreError::Failed(_))));
    for url in ["", "redb:", "file:x", "mysql://x", "http://user:secret@host"] {
        let error = Spent::open(url).await.expect_err("a refusal");
        assert!(matches!(error, StoreError::Url(_)), "{url}: {error}");
        assert!(!error.to_string().contains("secret"));
    }
}
