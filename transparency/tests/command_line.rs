//! The programs as operators, auditors and witnesses run them, with their exit codes.

mod common;

use common::image;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A program that serves until it is dropped.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").expect(&line).to_owned();
        Self { child, address }
    }

    /// Status and body of a `GET`.
    fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: log\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer.split_off(head + 4))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

struct Place(TempDir);

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Runs a program in this folder; its exit code and what it said.
    fn run(&self, program: &str, words: &str) -> (i32, String, String) {
        let output =
            Command::new(program).args(words.split_whitespace()).current_dir(self.0.path()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn log(&self, words: &str) -> (i32, String, String) {
        self.run(env!("CARGO_BIN_EXE_cloister-log"), words)
    }

    fn witness(&self, words: &str) -> (i32, String, String) {
        self.run(env!("CARGO_BIN_EXE_cloister-witness"), words)
    }

    fn done(&self, (code, out, error): (i32, String, String)) -> String {
        assert_eq!(code, 0, "{out}{error}");
        out
    }

    fn entry(&self, name: &str, minor: u32) {
        fs::write(self.path(name), serde_json::to_vec(&image(minor)).unwrap()).unwrap();
    }
}

fn serve(program: &str, config: &Path, listen: &str) -> Served {
    Served::start(Command::new(program).arg("serve").arg("--config").arg(config).args(["--listen", listen]))
}

#[test]
fn a_log_a_witness_and_a_monitor_work_together() {
    let place = Place(tempfile::tempdir().unwrap());
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    place.done(place.witness(&format!("init --folder w --name witness.example/w1 --url http://{address}")));
    let again = place.witness("init --folder w --name witness.example/w1 --url http://localhost");
    assert_eq!(again.0, 1, "keys are never replaced");
    let bad = place.log("init --folder log --origin log.example/x --witness w/public.toml --threshold 2");
    assert_eq!(bad.0, 4, "{}", bad.2);
    place.done(place.log("init --folder log --origin log.example/x --witness w/public.toml --threshold 1"));
    place.done(place.witness("add-log --config w/witness.toml --log log/public.toml"));

    // Nobody answers: signed, not published, and nothing lost.
    place.entry("1.json", 1);
    let (code, out, error) = place.log("append --config log/log.toml --entry 1.json");
    assert_eq!(code, 7, "{error}");
    assert!(out.starts_with("appended 1 ") && error.contains("does not answer"), "{out}{error}");
    assert_eq!(place.log("prove --config log/log.toml --name cloister").0, 5);
    let witness = serve(env!("CARGO_BIN_EXE_cloister-witness"), &place.path("w/witness.toml"), &address);
    assert_eq!(place.done(place.log("publish --config log/log.toml")), "published 2\n");

    // A proof, and what trusts it.
    let leaf = out.trim().rsplit(' ').next().unwrap().to_owned();
    place.done(place.log("prove --config log/log.toml --name cloister --out c.tlog-proof --publish"));
    let trust = place.done(place.log("trust --config log/log.toml --accept cloister/guest/0.1.0"));
    fs::write(place.path("trust.toml"), &trust).unwrap();
    let said = place.done(place.log("verify --trust trust.toml c.tlog-proof"));
    assert!(said.contains("image cloister 0.1.0 for guest: entry 1 of 2"), "{said}");
    let (code, _, error) = place.log("verify --trust trust.toml --kind model c.tlog-proof");
    assert_eq!(code, 6, "{error}");
    fs::write(place.path("strict.toml"), trust.replace("0.1.0", "0.2.0")).unwrap();
    let (code, _, error) = place.log("verify --trust strict.toml c.tlog-proof");
    assert!(code == 6 && error.contains("older than"), "{error}");

    // Served, it shows tiles, entries, checkpoint and proofs, and nothing else.
    let log = serve(env!("CARGO_BIN_EXE_cloister-log"), &place.path("log/log.toml"), "127.0.0.1:0");
    assert_eq!(log.get("/tile/0/000.p/2").1.len(), 64);
    assert_eq!(log.get("/tile/entries/000.p/2").0, 200);
    assert!(log.get("/checkpoint").1.starts_with(b"log.example/x\n2\n"));
    assert_eq!(log.get("/proof/cloister.tlog-proof").1, fs::read(place.path("c.tlog-proof")).unwrap());
    for hidden in [
        "/state/signed.json",
        "/.lock",
        "/tile/../state/signed.json",
        "/tile/%2e%2e/state/signed.json",
        "/proof/../checkpoint",
        "/tile/0/000",
    ] {
        assert_eq!(log.get(hidden).0, 404, "{hidden}");
    }
    // The witness shows the last checkpoint, and refuses requests that are too large or none.
    let hash = {
        use sha2::Digest;
        hex::encode(sha2::Sha256::digest("log.example/x"))
    };
    assert!(witness.get(&format!("/{hash}/checkpoint")).1.starts_with(b"log.example/x\n2\n"));
    assert_eq!(witness.get("/00/checkpoint").0, 404);
    assert_eq!(witness.get("/add-checkpoint").0, 405);

    // A monitor reads it over HTTP, and only what is new the next time.
    let watch = format!("watch --url http://{} --trust trust.toml --memory watch.json --json", log.address);
    assert_eq!(place.done(place.log(&watch)).lines().count(), 2);
    assert_eq!(place.done(place.log(&watch)), "");
    place.entry("2.json", 2);
    place.done(place.log("append --config log/log.toml --entry 2.json"));
    let report = place.done(place.log(&format!("{watch} --name cloister")));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["index"], &report["entry"]["version"]), (&2.into(), &"0.2.0".into()));

    // An old version, no entry, and an entry that nobody has.
    let (code, _, error) = place.log("append --config log/log.toml --entry 1.json");
    assert!(code == 3 && error.contains("higher"), "{error}");
    fs::write(place.path("bad.json"), "{}").unwrap();
    assert_eq!(place.log("append --config log/log.toml --entry bad.json").0, 3);
    assert_eq!(place.log("prove --config log/log.toml --name other").0, 3);
    assert_eq!(place.log("publish --config none.toml").0, 4);

    // Revoked, it stays in the log, and its proof is refused.
    place.done(place.log(&format!("revoke --config log/log.toml --leaf {leaf} --reason withdrawn")));
    place.done(place.log("prove --config log/log.toml --name cloister --index 1 --out c.tlog-proof"));
    let (code, _, error) = place.log("verify --trust trust.toml c.tlog-proof");
    assert!(code == 6 && error.contains("revoked (withdrawn)"), "{error}");
    assert_eq!(place.done(place.log("publish --config log/log.toml --refresh")), "published 5\n");
    assert_eq!(place.done(place.log(&watch)).lines().count(), 2);

    // Another log in its place is an alarm.
    let tiles = place.path("log/tiles");
    let other = fs::read_to_string(tiles.join("checkpoint")).unwrap();
    drop(log);
    fs::rename(&tiles, place.path("kept")).unwrap();
    fs::create_dir_all(tiles.join("state")).unwrap();
    let text = place.text("kept");
    let folder = format!("watch --folder {text} --trust trust.toml --memory watch.json");
    place.done(place.log(&folder));
    let entries = fs::read(place.path("kept/tile/entries/000.p/5")).unwrap();
    let changed: Vec<u8> = entries.iter().rev().copied().collect();
    fs::write(place.path("kept/tile/entries/000.p/5"), changed).unwrap();
    let fresh = format!("watch --folder {text} --trust trust.toml");
    let (code, _, error) = place.log(&fresh);
    assert!(code == 5 || code == 8, "{code} {error}");
    fs::write(place.path("kept/tile/entries/000.p/5"), swapped(&entries)).unwrap();
    let (code, _, error) = place.log(&fresh);
    assert!(code == 8 && error.contains("history was changed"), "{code} {error}");
    assert!(other.starts_with("log.example/x\n5\n"));
}

/// The same bundle with a byte of its last entry changed.
fn swapped(entries: &[u8]) -> Vec<u8> {
    let mut changed = entries.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    changed
}

#[test]
fn keys_are_appended_with_their_kind_role_and_time_and_accepted_by_kind() {
    let place = Place(tempfile::tempdir().unwrap());
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    place.done(place.witness(&format!("init --folder w --name witness.example/w1 --url http://{address}")));
    place.done(place.log("init --folder log --origin log.example/x --witness w/public.toml --threshold 1"));
    place.done(place.witness("add-log --config w/witness.toml --log log/public.toml"));
    let _witness = serve(env!("CARGO_BIN_EXE_cloister-witness"), &place.path("w/witness.toml"), &address);
    fs::write(place.path("a.key"), b"key a").unwrap();
    fs::write(place.path("b.key"), b"key b").unwrap();
    let append = |words: &str| place.log(&format!("append --config log/log.toml {words}"));

    // What is missing or does not belong together is said before anything is touched.
    for wrong in [
        "",
        "--kind ohttp-key",
        "--key a.key",
        "--key a.key --kind ohttp-key --name gateway.example --version 1.0.0",
        "--key a.key --kind ohttp-key --name gateway.example --hours 24",
        "--key a.key --kind ohttp-key --version 1.0.0 --hours 24",
        "--key a.key --name gateway.example --version 1.0.0 --hours 24",
        "--key a.key --kind image --name gateway.example --version 1.0.0 --hours 24",
        "--key a.key --kind revocations --name gateway.example --version 1.0.0 --hours 24",
        "--key a.key --kind ohttp-key --name gateway.example --version 1.0.0 --hours 0",
        "--key a.key --kind ohttp-key --name gateway.example --version 1.0.0 --hours 9000",
        "--key a.key --kind ohttp-key --name gateway.example --version one --hours 24",
        "--key a.key --kind ohttp-key --name gate/way --version 1.0.0 --hours 24",
    ] {
        assert_eq!(append(wrong).0, 2, "{wrong}");
    }
    let none = "--key none.key --kind ohttp-key --name gateway.example --version 1.0.0 --hours 24";
    assert_eq!(append(none).0, 5);

    // Both kinds, with their own roles or a given one, from now or a given time on.
    let before = transparency::log::unix_now();
    place.done(append("--key a.key --kind ohttp-key --name gateway.example --version 1.0.0 --hours 24"));
    place.done(append(
        "--key b.key --kind issuer-key --name gateway.example --version 1.0.0 --hours 48 --not-before 1700000000",
    ));
    let told =
        "--key b.key --kind ohttp-key --key-role relay --name gateway.example --version 1.0.0 --hours 1";
    place.done(append(&format!("{told} --no-publish")));
    assert_eq!(append(told).0, 3, "the version is in the log already");
    assert_eq!(place.done(place.log("publish --config log/log.toml")), "published 4\n");
    let accepted = "trust --config log/log.toml --accept ohttp-key:gateway.example/gateway/1.0.0 \
                    --accept issuer-key:gateway.example/token-issuer --max-age-hours 24";
    let trust = place.done(place.log(accepted));
    fs::write(place.path("trust.toml"), &trust).unwrap();
    let watched = place.done(place.log("watch --folder log/tiles --trust trust.toml --json"));
    let entries: Vec<serde_json::Value> =
        watched.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (ohttp, issuer) = (&entries[1]["entry"], &entries[2]["entry"]);
    assert_eq!((&ohttp["role"], &issuer["role"]), (&"gateway".into(), &"token-issuer".into()));
    assert_eq!(entries[3]["entry"]["role"], "relay");
    let time = |entry: &serde_json::Value, kind: &str, field: &str| {
        entry["subject"][kind][field].as_u64().unwrap_or_else(|| panic!("{entry}"))
    };
    let start = time(ohttp, "ohttp-key", "not_before");
    assert!((before..=before + 600).contains(&start), "{start}");
    assert_eq!(time(ohttp, "ohttp-key", "not_after"), start + 24 * 3600);
    assert_eq!(time(issuer, "issuer-key", "not_before"), 1_700_000_000);
    assert_eq!(time(issuer, "issuer-key", "not_after"), 1_700_000_000 + 48 * 3600);
    assert_eq!(ohttp["subject"]["ohttp-key"]["key"], hex::encode("key a"));

    // The trust accepts each key as what it is, from its version on, and nothing else.
    let trusted: toml::Value = toml::from_str(&trust).unwrap();
    assert_eq!(trusted["log"]["max_age_hours"].as_integer(), Some(24));
    let minimum = |at: usize| trusted["log"]["accept"][at]["minimum_version"].as_str().unwrap().to_owned();
    assert_eq!((minimum(0).as_str(), minimum(1).as_str()), ("1.0.0", "0.0.0"));
    let prove = |words: &str| place.done(place.log(&format!("prove --config log/log.toml {words}")));
    prove("--kind ohttp-key --name gateway.example --role gateway --out ohttp.tlog-proof");
    prove("--kind ohttp-key --name gateway.example --role relay --out relay.tlog-proof");
    prove("--kind issuer-key --name gateway.example --role token-issuer --out issuer.tlog-proof");
    let verify = |words: &str| place.log(&format!("verify --trust trust.toml {words}"));
    let said = place.done(verify("--kind ohttp-key ohttp.tlog-proof"));
    assert!(said.starts_with("ohttp-key gateway.example 1.0.0 for gateway: entry 1 of 4"), "{said}");
    for (words, part) in [
        ("--kind issuer-key issuer.tlog-proof", "not to be used at this time"),
        ("--kind issuer-key ohttp.tlog-proof", "ohttp-key"),
        ("--kind ohttp-key relay.tlog-proof", "relay"),
    ] {
        let (code, _, error) = verify(words);
        assert!(code == 6 && error.contains(part), "{words}: {code} {error}");
    }
    fs::write(place.path("trust.toml"), trust.replace("\"1.0.0\"", "\"1.0.1\"")).unwrap();
    let (code, _, error) = verify("--kind ohttp-key ohttp.tlog-proof");
    assert!(code == 6 && error.contains("older than"), "{error}");
    for wrong in [
        "gateway.example",
        "gateway.example/",
        "key:gateway.example/gateway",
        "ohttp-key:gateway.example",
        "gateway.example/gateway/1",
        "gateway.example/gateway/1.0.0/x",
    ] {
        let (code, out, _) = place.log(&format!("trust --config log/log.toml --accept {wrong}"));
        assert_eq!((code, out.as_str()), (2, ""), "{wrong}");
    }
    assert_eq!(place.log("trust --config log/log.toml --max-age-hours 0").0, 2);
}

#[test]
fn help_says_what_exit_codes_mean() {
    let place = Place(tempfile::tempdir().unwrap());
    let help = place.done(place.log("--help"));
    for code in 2..=8 {
        assert!(help.contains(&format!("{code} ")), "{code}");
    }
    for command in ["init", "append", "revoke", "publish", "prove", "verify", "trust", "serve", "watch"] {
        place.done(place.log(&format!("{command} --help")));
    }
    assert_eq!(place.log("append").0, 2);
    place.done(place.witness("--help"));
}
