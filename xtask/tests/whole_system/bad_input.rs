//! Whatever can be wrong gets its own message and exit code, and nothing hangs.

use crate::fixture::{Fixture, failure, sample, summarize};
use attestation::development::Chain;
use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, SystemTime};
use xtask::{build, guest};

/// Exit codes of `cloister`, as its `--help` lists them.
mod client_exit {
    pub const CHAT: i32 = 3;
    pub const POLICY: i32 = 4;
    pub const CONNECTION: i32 = 5;
    pub const EVIDENCE: i32 = 6;
    pub const REFUSED: i32 = 7;
    pub const BROKEN: i32 = 8;
}

/// Exit codes of `cloister-launch`, as its `--help` lists them.
mod launch_exit {
    pub const HOST: i32 = 3;
    pub const ADDRESS: i32 = 5;
    pub const GUEST_ENDED_ITSELF: i32 = 10;
}

/// Exit code of `cloister-image` for weights that are no usable GGUF file, as its `--help` lists it.
const IMAGE_WEIGHTS: i32 = 5;

#[test]
fn b7_b10_b12_evidence_that_does_not_fit_the_policy_is_rejected() {
    let fixture = Fixture::get();
    let (guest, policy) = fixture.boot(&[]);
    let server = guest.server();

    // The model's root was not given.
    let without_root = guest::policy(&fixture.folder, None).unwrap();
    let (code, message) = failure(&summarize(&sample(), &server, &without_root, "3", &[]));
    assert_eq!(code, client_exit::EVIDENCE, "{message}");
    assert!(message.contains("development root") && message.contains("nothing was sent"), "{message}");

    // Another image was expected.
    let digests = std::fs::read_to_string(&policy).unwrap();
    let rom = fixture.rom();
    let digest = Command::new(build::program("cloister-image").unwrap())
        .arg("digest")
        .arg(&rom)
        .args(["--vcpus", &xtask::manifest::vcpus().unwrap().to_string(), "--cpu-type", "EPYC-Genoa"])
        .output()
        .unwrap();
    let digest = String::from_utf8(digest.stdout).unwrap().trim().to_owned();
    assert!(digests.contains(&digest));
    let other = if digest.starts_with('0') { "1" } else { "0" };
    let wrong = fixture.folder.join("policy-wrong-image.toml");
    std::fs::write(&wrong, digests.replace(&digest, &format!("{other}{}", &digest[1..]))).unwrap();
    let (code, message) = failure(&summarize(&sample(), &server, &wrong, "3", &[]));
    assert_eq!(code, client_exit::EVIDENCE, "{message}");
    assert!(message.contains("launch digest"), "{message}");

    // No policy at all, or one that is none.
    let (code, message) = failure(&summarize(&sample(), &server, &fixture.folder.join("absent"), "3", &[]));
    assert_eq!(code, client_exit::POLICY, "{message}");
    let nonsense = fixture.folder.join("policy-nonsense.toml");
    std::fs::write(&nonsense, "accept = \"everything\"\n").unwrap();
    let (code, message) = failure(&summarize(&sample(), &server, &nonsense, "3", &[]));
    assert_eq!(code, client_exit::POLICY, "{message}");
}

#[test]
fn b9_an_expired_or_foreign_vcek_is_rejected() {
    let fixture = Fixture::get();
    let (honest, _) = fixture.boot(&[]);
    drop(honest);
    let genuine = fixture.root();
    let foreign = tempfile::tempdir().unwrap();
    let expired = tempfile::tempdir().unwrap();
    let year = Duration::from_secs(365 * 24 * 3600);
    let now = SystemTime::now();
    let save = |chain: Chain, state: &tempfile::TempDir| {
        let root = guest::development_root(state.path());
        let folder = root.parent().unwrap();
        std::fs::create_dir_all(folder).unwrap();
        chain.save(folder).unwrap();
        root
    };
    save(Chain::generate(now).unwrap(), &foreign);
    let expired_root = save(Chain::generate(now - 30 * year).unwrap(), &expired);

    for (state, root, expected) in [(&foreign, &genuine, "signature"), (&expired, &expired_root, "expired")] {
        let start = fixture.start(Box::leak(build::weights().into_boxed_path()), state.path(), &[]);
        let guest = guest::Guest::boot(&start).unwrap();
        let policy = guest::policy(&fixture.folder, Some(root)).unwrap();
        let (code, message) = failure(&summarize(&sample(), &guest.server(), &policy, "3", &[]));
        assert_eq!(code, client_exit::EVIDENCE, "{message}");
        assert!(message.to_lowercase().contains(expected), "{expected}: {message}");
    }
}

#[test]
fn a13_wrong_weights_stop_the_boot() {
    let fixture = Fixture::get();
    let weights = std::fs::read(build::weights()).unwrap();
    let folder = tempfile::tempdir().unwrap();

    let mut flipped = weights.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let path = folder.path().join("flipped.gguf");
    std::fs::write(&path, &flipped).unwrap();
    let (code, output) = fixture.fail_to_boot(&path, &[]);
    assert!(output.contains("differ from the manifest's root"), "{output}");

    let path = folder.path().join("truncated.gguf");
    std::fs::write(&path, &weights[..middle]).unwrap();
    let (truncated_code, output) = fixture.fail_to_boot(&path, &[]);
    assert!(output.contains("could not be read in full"), "{output}");
    assert_eq!([code, truncated_code], [launch_exit::GUEST_ENDED_ITSELF; 2]);
}

#[test]
fn e1_a_truncated_gguf_makes_no_image() {
    let folder = tempfile::tempdir().unwrap();
    let weights = std::fs::read(build::weights()).unwrap();
    std::fs::write(folder.path().join("cloister-mini.gguf"), &weights[..weights.len() / 3]).unwrap();
    std::fs::copy(build::root().join("models/manifest.toml"), folder.path().join("manifest.toml")).unwrap();
    let output = Command::new(build::program("cloister-image").unwrap())
        .args(["build", "--out"])
        .arg(folder.path().join("out"))
        .arg("--manifest")
        .arg(folder.path().join("manifest.toml"))
        .current_dir(build::root())
        .output()
        .unwrap();
    let (code, message) = failure(&output);
    assert_eq!(code, IMAGE_WEIGHTS, "{message}");
    assert!(message.contains("cloister-mini.gguf"), "{message}");
}

#[test]
fn a_file_that_is_no_chat_is_refused_before_anything_is_sent() {
    let fixture = Fixture::get();
    let policy = fixture.folder.join("digests.json");
    // No guest is needed: the chat is read first.
    let nobody = format!("127.0.0.1:{}", guest::free_port().unwrap());
    for (chat, expected) in [(fixture.rom(), "UTF-8"), (policy.clone(), "no line looks like a chat message")]
    {
        let (code, message) = failure(&summarize(&chat, &nobody, &policy, "3", &[]));
        assert_eq!(code, client_exit::CHAT, "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn nobody_at_the_address_is_said_so() {
    let fixture = Fixture::get();
    let (guest, policy) = fixture.boot(&[]);
    drop(guest);
    let nobody = format!("127.0.0.1:{}", guest::free_port().unwrap());
    let (code, message) = failure(&summarize(&sample(), &nobody, &policy, "3", &[]));
    assert_eq!(code, client_exit::CONNECTION, "{message}");
}

#[test]
fn a_prompt_longer_than_the_context_is_refused_and_costs_nobody_else_anything() {
    let fixture = Fixture::get();
    let (guest, policy) = fixture.boot(&[]);
    let folder = tempfile::tempdir().unwrap();
    let chat = folder.path().join("long.txt");
    let mut file = std::fs::File::create(&chat).unwrap();
    for minute in 0..600 {
        writeln!(
            file,
            "12/03/2024, {:02}:{:02} - Anna: message number {minute}, and one more thing",
            minute / 60,
            minute % 60
        )
        .unwrap();
    }
    let (code, message) = failure(&summarize(&chat, &guest.server(), &policy, "600", &[]));
    assert_eq!(code, client_exit::REFUSED, "{message}");
    assert!(message.contains("fewer") && !message.contains("one more thing"), "{message}");
    let output = summarize(&sample(), &guest.server(), &policy, "3", &[]);
    assert!(output.status.success(), "the next request is served");
}

#[test]
fn a_port_in_use_and_a_missing_qemu_are_said_so() {
    let fixture = Fixture::get();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let launch = |listen: &str, path: &str| {
        let output = Command::new(build::program("cloister-launch").unwrap())
            .args(["run", "--platform", "model", "--listen", listen, "--image"])
            .arg(fixture.rom())
            .arg("--weights")
            .arg(build::weights())
            .arg("--state")
            .arg(fixture.state())
            .env("PATH", path)
            .output()
            .unwrap();
        failure(&output)
    };
    let path = std::env::var("PATH").unwrap();
    let (in_use, message) = launch(&taken.local_addr().unwrap().to_string(), &path);
    assert!(message.contains("in use"), "{message}");
    let (missing, message) = launch(&format!("127.0.0.1:{}", guest::free_port().unwrap()), "/nonexistent");
    assert!(message.contains("qemu-system-x86"), "{message}");
    assert_eq!((in_use, missing), (launch_exit::ADDRESS, launch_exit::HOST));
}

#[test]
fn without_snp_hardware_one_message_says_what_is_missing() {
    if std::path::Path::new("/dev/sev").exists() {
        panic!(
            "this machine has SEV hardware: start a guest on it as docs/OPERATORS.md says and extend this test"
        );
    }
    let fixture = Fixture::get();
    let output = Command::new(build::program("cloister-launch").unwrap())
        .args(["run", "--platform", "snp", "--listen", "127.0.0.1:0", "--image"])
        .arg(fixture.rom())
        .arg("--weights")
        .arg(build::weights())
        .output()
        .unwrap();
    let (code, message) = failure(&output);
    assert_eq!(code, launch_exit::HOST, "{message}");
    assert!(message.contains("SEV-SNP"), "{message}");
}

#[test]
fn a_guest_that_dies_in_mid_answer_is_said_so() {
    let fixture = Fixture::get();
    let (mut guest, policy) = fixture.boot(&[]);
    let server = guest.server();
    let client = std::thread::spawn(move || summarize(&sample(), &server, &policy, "12", &[]));
    guest.wait_for("request was started", Duration::from_secs(120)).unwrap();
    guest.stop().unwrap();
    let (code, message) = failure(&client.join().unwrap());
    assert_eq!(code, client_exit::BROKEN, "{message}");
    assert!(message.contains("went away"), "{message}");
}
