//! A log in an object store that speaks S3: moto's server, which is somebody else's program (PyPI, `moto[server]`).

mod common;

use common::{ORIGIN, image, serve_witness, witness_keys};
use object_store::aws::AmazonS3Builder;
use object_store::prefix::PrefixStore;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use transparency::checkpoint::{Checkpoint, SignedBy, SignedCheckpoint};
use transparency::key::{Algorithm, SignerKey};
use transparency::log::config::{Config, ConfigFile, WitnessAt};
use transparency::log::reader::Reader;
use transparency::log::store::{Seen, Store, StoreError};
use transparency::log::{AppendError, Writer};
use transparency::merkle::empty_root;
use transparency::monitor::{Memory, Monitor};
use transparency::witness::WatchedLog;

/// What is installed.
const MOTO: &str = "moto[server]==5.2.5";
const BUCKET: &str = "cloister-log";
/// Any will do for it.
const KEY: (&str, &str) = ("AKIAEXAMPLE", "secret");

/// `moto_server`, which the first test that needs it installs.
fn moto() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(installed)
}

/// `moto_server`, installed into the target folder unless it is there already.
fn installed() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let target = exe.ancestors().find(|folder| folder.ends_with("release") || folder.ends_with("debug"));
    let venv = target.unwrap().parent().unwrap().join("tools/moto-5.2.5");
    let (program, done) = (venv.join("bin/moto_server"), venv.join("installed"));
    if !done.is_file() {
        let run = |command: &mut Command| {
            let output = command.output().expect("python3, with its venv module");
            assert!(output.status.success(), "{command:?}: {output:?}");
        };
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
        run(Command::new(venv.join("bin/python")).args(["-m", "pip", "install", "--quiet", MOTO]));
        std::fs::write(done, "").unwrap();
    }
    program
}

/// A server on a free port, with an empty bucket; it ends with this value.
struct S3 {
    server: Child,
    url: String,
}

impl S3 {
    async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Command::new(moto())
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let s3 = Self { server, url: format!("http://127.0.0.1:{port}") };
        let deadline = Instant::now() + Duration::from_secs(120);
        let client = reqwest::Client::new();
        loop {
            match client.put(format!("{}/{BUCKET}", s3.url)).send().await {
                Ok(answer) if answer.status().is_success() => return s3,
                other => assert!(Instant::now() < deadline, "{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// `cloister-log`, which learns of the server as it would of any provider's.
    fn cloister_log(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_cloister-log"))
            .args(arguments)
            .env("AWS_ENDPOINT", &self.url)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", KEY.0)
            .env("AWS_SECRET_ACCESS_KEY", KEY.1)
            .output()
            .unwrap()
    }

    fn store(&self, prefix: &str) -> Store {
        let builder = AmazonS3Builder::new().with_endpoint(&self.url).with_allow_http(true);
        let builder = builder.with_region("us-east-1").with_bucket_name(BUCKET);
        let objects = builder.with_access_key_id(KEY.0).with_secret_access_key(KEY.1).build().unwrap();
        Store::objects(Arc::new(PrefixStore::new(objects, prefix)))
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_in_an_object_store_is_written_proven_and_has_one_writer() {
    let s3 = S3::start().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let keys = witness_keys(1).iter().map(|key| key.public().clone()).collect();
    let later = WitnessAt { url: "http://127.0.0.1:1".parse().unwrap(), keys };
    std::fs::write(at("w.toml"), toml::to_string(&later).unwrap()).unwrap();
    let storage = format!("s3://{BUCKET}/a/log");
    let words =
        ["init", "--folder", &at("log"), "--origin", ORIGIN, "--storage", &storage, "--threshold", "1"];
    s3.cloister_log(&[&words, ["--witness", &at("w.toml")].as_slice()].concat());
    let log: WatchedLog = read(Path::new(&at("log/public.toml")));
    let mut file: ConfigFile = read(Path::new(&at("log/log.toml")));
    file.witnesses = vec![serve_witness(1, Path::new(&at("witness")), log.keys).await];
    std::fs::write(at("log/log.toml"), toml::to_string(&file).unwrap()).unwrap();

    // Three batches by three processes; the second crosses a tile's border.
    let config = at("log/log.toml");
    for versions in [1..=1, 2..=300, 301..=301] {
        let batch: Vec<_> = versions.map(image).collect();
        std::fs::write(at("batch.json"), serde_json::to_vec(&batch).unwrap()).unwrap();
        s3.cloister_log(&["append", "--config", &config, "--entry", &at("batch.json")]);
    }
    let trust = s3.cloister_log(&["trust", "--config", &config, "--accept", "cloister/guest/0.301.0"]);
    std::fs::write(at("trust.toml"), trust).unwrap();
    s3.cloister_log(&["prove", "--config", &config, "--name", "cloister", "--out", &at("proof")]);
    let said = s3.cloister_log(&["verify", "--trust", &at("trust.toml"), &at("proof")]);
    assert!(said.contains("image cloister 0.301.0"), "{said}");

    // Where there are no locks, the second writer's checkpoint is refused, and the log is whole.
    let mut settings: ConfigFile = read(Path::new(&config));
    settings.storage = "unused".into();
    std::fs::write(at("log/here.toml"), toml::to_string(&settings).unwrap()).unwrap();
    let loaded = || {
        let mut loaded = Config::load(Path::new(&at("log/here.toml"))).unwrap();
        loaded.store = s3.store("a/log");
        loaded
    };
    let trust = loaded().trust;
    let (mut first, mut second) =
        (Writer::open(loaded()).await.unwrap(), Writer::open(loaded()).await.unwrap());
    first.append(vec![image(302)]).await.unwrap();
    let refused = second.append(vec![image(303)]).await;
    assert!(matches!(refused, Err(AppendError::Store(StoreError::AnotherWriter))), "{refused:?}");
    first.publish().await.unwrap();
    let mut count = 0;
    let mut monitor = Monitor::new(trust, Memory::default()).unwrap();
    let reader = Reader::Store(s3.store("a/log"));
    let followed = monitor.follow(&reader, |report| {
        assert!(report.alarms.is_empty(), "{report:?}");
        count += 1;
    });
    followed.await.unwrap();
    assert_eq!(count, 303);
}

#[tokio::test(flavor = "multi_thread")]
async fn d4_a_place_in_an_object_store_gets_one_log() {
    let s3 = S3::start().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let keys = witness_keys(1).iter().map(|key| key.public().clone()).collect();
    let witness = WitnessAt { url: "http://127.0.0.1:1".parse().unwrap(), keys };
    std::fs::write(at("w.toml"), toml::to_string(&witness).unwrap()).unwrap();
    let (place, storage) = (s3.store("b/log"), format!("s3://{BUCKET}/b/log"));
    let init = |name: &str| {
        let words = ["init", "--folder", &at(name), "--origin", ORIGIN, "--storage", &storage];
        s3.run(&[&words[..], &["--threshold", "1", "--witness", &at("w.toml")]].concat())
    };

    // Somebody wrote down that he begins, of two at the same time only one, and was never seen again.
    let key = SignerKey::generate(ORIGIN, Algorithm::Ed25519).unwrap();
    let checkpoint =
        Checkpoint { origin: ORIGIN.into(), size: 0, root: empty_root(), extension: String::new() };
    let signatures = vec![checkpoint.sign(&key, 0).unwrap()];
    let claim = SignedCheckpoint { checkpoint, signatures }.encode();
    let claim = serde_json::json!({ "checkpoint": claim, "writer": "00", "latest": {} }).to_string();
    let begin =
        async || place.replace("state/signed.json", &Seen::default(), claim.clone().into_bytes()).await;
    let (first, second) = tokio::join!(begin(), begin());
    assert_eq!([first, second].iter().filter(|begun| begun.is_ok()).count(), 1);

    // Whoever comes next has the place, and nobody after.
    let began = init("log");
    assert!(began.status.success(), "{}", String::from_utf8_lossy(&began.stderr));
    let late = init("late");
    let said = String::from_utf8_lossy(&late.stderr);
    assert!(late.status.code() == Some(5) && said.contains("there is a log in this place"), "{said}");
    let state = place.read("state/signed.json").await.unwrap().unwrap();
    let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
    let signed = SignedCheckpoint::parse(state["checkpoint"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(signed.checkpoint.size, 1);
    let log: WatchedLog = read(Path::new(&at("log/public.toml")));
    assert!(log.keys.iter().all(|key| matches!(signed.signed_by(key), SignedBy::Signed(_))));
}
