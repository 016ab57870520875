//! Logs and witnesses of others: Go's own implementation over HTTP, and a checkpoint that eight public witnesses cosigned.

mod common;

use common::{ORIGIN, World, image, serve_witness, witness_keys};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};
use transparency::checkpoint::{Checkpoint, SignedCheckpoint};
use transparency::key::{Algorithm, SignerKey, VerifierKey};
use transparency::log::store::Store;
use transparency::merkle::{Hash, TreeError, leaf_hash, verify_inclusion};
use transparency::note::Signature;
use transparency::trust::{Trust, TrustFile, Witness};
use transparency::verify::{CheckpointRefused, verify_checkpoint};

/// Debian's `golang-1.19-go` and `golang-golang-x-mod-dev`.
const GO: &str = "/usr/lib/go-1.19/bin/go";
const GO_PACKAGES: &str = "/usr/share/gocode";

/// The program of `peer/main.go`; `None` where Go is not installed and need not be (`cargo ci` installs it if it may).
fn peer() -> Option<PathBuf> {
    let there =
        Path::new(GO_PACKAGES).join("src/golang.org/x/mod/sumdb/tlog").is_dir() && Path::new(GO).is_file();
    if !there {
        assert!(
            std::env::var_os("CLOISTER_PEERS").is_none(),
            "CLOISTER_PEERS asks for Go, and it is not there"
        );
        eprintln!("NOT RUN: needs Debian's golang-1.19-go and golang-golang-x-mod-dev");
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("peer-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join("peer");
    let built = Command::new(GO)
        .args(["build", "-o"])
        .arg(&program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peer/main.go"))
        .env("GO111MODULE", "off")
        .env("GOPATH", GO_PACKAGES)
        .env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(program)
}

fn run(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The vkey of a witness's Ed25519 key, the only kind that Go's implementation could check.
fn ed25519(number: u8) -> String {
    witness_keys(number)[0].public().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gos_implementation_reads_this_log_and_checks_its_proofs() {
    let Some(peer) = peer() else { return };
    let world = World::new(1, 1).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let store = Store::folder(&world.tiles()).unwrap();
    tokio::spawn(transparency::serve::run(listener, transparency::serve::log(store)));
    let (log, witness) = (world.trust.keys()[0].to_string(), ed25519(0));
    let mut writer = world.writer().await;
    let (mut leaves, mut old): (Vec<String>, Option<(String, String)>) = (Vec::new(), None);
    // Partial tiles, a full one with nothing after it, and two rows of them.
    for size in [1, 2, 3, 256, 257, 700] {
        let first = leaves.len() as u32;
        let appended = writer.append((first.max(1)..size).map(image).collect()).await.unwrap();
        writer.publish().await.unwrap();
        leaves.resize_with(leaves.len().max(1), String::new);
        leaves.extend(appended.iter().map(|signed| hex::encode(signed.leaf)));
        let mut words = vec!["follow", &url, &log, &witness];
        if let Some((size, root)) = &old {
            words.extend([size.as_str(), root.as_str()]);
        }
        let said = run(&peer, &words).unwrap();
        let mut lines = said.lines();
        let (read, root) = lines.next().unwrap().split_once(' ').unwrap();
        assert_eq!(read, size.to_string());
        let read: Vec<&str> = lines.map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(read[1..], leaves[1..], "the first entry is the list of revocations");
        old = Some((size.to_string(), root.into()));
    }
    // Proofs, and one for another leaf.
    let file = world.folder.path().join("proof");
    let file_name = file.to_str().unwrap();
    for index in [1, 255, 256, 699] {
        std::fs::write(&file, writer.prove(index).await.unwrap().encode()).unwrap();
        let leaf = &leaves[index as usize];
        let said = run(&peer, &["prove", file_name, &log, &witness, leaf]).unwrap();
        assert_eq!(said, format!("entry {index} of 700\n"));
        let other = run(&peer, &["prove", file_name, &log, &witness, &leaves[2]]).unwrap_err();
        assert!(other.contains("inclusion"), "{other}");
    }
    // Keys of somebody else, and an older tree that is none of this log's.
    let stranger = SignerKey::generate(ORIGIN, Algorithm::Ed25519).unwrap().public().to_string();
    assert!(run(&peer, &["follow", &url, &stranger, &witness]).unwrap_err().contains("the checkpoint"));
    assert!(run(&peer, &["follow", &url, &log, &ed25519(1)]).unwrap_err().contains("signed by 1 of 2"));
    let root = old.unwrap().1;
    let forked = run(&peer, &["follow", &url, &log, &witness, "256", &root]).unwrap_err();
    assert!(forked.contains("consistency"), "{forked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_cosigns_a_log_that_gos_implementation_keeps_and_no_fork_of_it() {
    let Some(peer) = peer() else { return };
    let key = SignerKey::generate("log.example/go", Algorithm::Ed25519).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let witness = serve_witness(1, folder.path(), vec![key.public().clone()]).await;
    let (secret, public) = (key.to_secret_text(), key.public().to_string());
    let url = witness.url.as_str().trim_end_matches('/');
    let said = run(&peer, &["log", url, secret.trim_end(), &public, &ed25519(1), ORIGIN]).unwrap();
    let sizes = [1, 2, 5, 256, 257, 1000, 70_000].map(|size| format!("cosigned {size}\n")).concat();
    assert_eq!(said, format!("{sizes}refused the fork\n"));
}

/// A Sigsum proof, as its tools write it, with the names and keys of a policy of theirs.
struct Sigsum {
    proof: String,
    policy: String,
}

impl Sigsum {
    /// That of the package `sigsum` (MIT), of 4 February 2026: Sigsum's test log, cosigned by witnesses of several operators and
    /// implementations, among them litewitness and Google's.
    fn packaged() -> Self {
        let folder = common::package("sigsum");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let readme = read("README.md");
        let (_, proof) = readme.split_once("from_ascii(\"").unwrap();
        let (proof, _) = proof.split_once("\")").unwrap();
        Self { proof: proof.into(), policy: read("builtin-policies/sigsum-test-2025-3.builtin-policy") }
    }

    fn values(&self, name: &str) -> Vec<Vec<&str>> {
        let lines = self.proof.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        lines.map(|line| line.split(' ').collect()).collect()
    }

    fn value(&self, name: &str) -> &str {
        self.values(name)[0][0]
    }

    /// Name and key of the parties that the policy lists as a `log` or `witness`; a log's name is that of its checkpoints.
    fn parties(&self, kind: &str) -> Vec<(String, Vec<u8>)> {
        let lines = self.policy.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let listed = lines.filter(|words| words.first() == Some(&kind)).map(|words| match kind {
            "log" => (
                format!("sigsum.org/v1/tree/{}", hex::encode(Sha256::digest(bytes(words[1])))),
                bytes(words[1]),
            ),
            _ => (words[1].to_owned(), bytes(words[2])),
        });
        listed.collect()
    }
}

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// A key as C2SP signed-note writes it.
fn vkey(name: &str, algorithm: u8, key: &[u8]) -> VerifierKey {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let material = [&[algorithm], key].concat();
    let id = Sha256::digest([name.as_bytes(), b"\n", &material].concat());
    format!("{name}+{}+{}", hex::encode(&id[..4]), STANDARD.encode(material)).parse().unwrap()
}

#[test]
fn a_checkpoint_that_public_witnesses_cosigned_is_accepted_and_its_entry_is_in_it() {
    let sigsum = Sigsum::packaged();
    let keyhash = |key: &[u8]| hex::encode(Sha256::digest(key));
    let (origin, key) =
        sigsum.parties("log").into_iter().find(|(_, key)| keyhash(key) == sigsum.value("log")).unwrap();
    let log = vkey(&origin, 1, &key);
    let root: Hash = bytes(sigsum.value("root_hash")).try_into().unwrap();
    let size = sigsum.value("size").parse().unwrap();
    let signature = |key: &VerifierKey, bytes| Signature { name: key.name().into(), id: key.id(), bytes };
    let mut signatures = vec![signature(&log, bytes(sigsum.value("signature")))];
    let mut witnesses = Vec::new();
    for line in sigsum.values("cosignature") {
        let [hash, time, cosignature] = line[..] else { panic!("{line:?}") };
        let party = sigsum.parties("witness").into_iter().find(|(_, key)| keyhash(key) == hash);
        let Some((name, key)) = party else { continue };
        let key = vkey(&name, 4, &key);
        let time = time.parse::<u64>().unwrap().to_be_bytes();
        signatures.push(signature(&key, [&time[..], &bytes(cosignature)].concat()));
        witnesses.push(Witness { keys: vec![key] });
    }
    let names: Vec<&str> = witnesses.iter().map(Witness::name).collect();
    for name in [
        "poc.sigsum.org/nisse",
        "witness.navigli.sunlight.geomys.org",
        "transparency.dev/DEV:witness-little-garden",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    let threshold = witnesses.len();
    assert!(threshold >= 7, "{names:?}");
    let trust = TrustFile { witnesses, ..TrustFile::new(origin.clone(), vec![log], threshold) };
    let trust = Trust::try_from(trust).unwrap();
    let checkpoint = Checkpoint { origin, size, root, extension: String::new() };
    let text = SignedCheckpoint { checkpoint, signatures }.encode();
    let signed = SignedCheckpoint::parse(text.as_bytes()).unwrap();
    let now = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let witnessed = verify_checkpoint(&signed, &trust, now(1_770_193_051 + 3600)).unwrap();
    assert_eq!((witnessed.witnesses.len(), witnessed.time), (threshold, 1_770_193_051));

    // A week later it is too old, and each part of it is covered by all signatures.
    let late = verify_checkpoint(&signed, &trust, now(1_770_193_051 + 8 * 24 * 3600));
    assert_eq!(late, Err(CheckpointRefused::Stale { hours: 8 * 24, limit: 7 * 24 }));
    let alterations: [fn(&mut Checkpoint); 2] = [|c| c.size += 1, |c| c.root[31] ^= 1];
    for alter in alterations {
        let mut other = signed.clone();
        alter(&mut other.checkpoint);
        assert_eq!(
            verify_checkpoint(&other, &trust, now(1_770_193_051)),
            Err(CheckpointRefused::WrongSignature)
        );
    }
    for at in 1..=threshold {
        let mut other = signed.clone();
        other.signatures[at].bytes[7] ^= 1;
        let refused = verify_checkpoint(&other, &trust, now(1_770_193_051));
        assert!(matches!(refused, Err(CheckpointRefused::WrongCosignature(_))), "{refused:?}");
    }

    // The leaf is the hash of the message's hash, the submitter's signature and the hash of its key.
    let leaf = &sigsum.values("leaf")[0];
    let checksum = Sha256::digest(Sha256::digest(b"Hello, Sigsum!\n"));
    let leaf = leaf_hash(&[checksum.to_vec(), bytes(leaf[1]), bytes(leaf[0])].concat());
    let index = sigsum.value("leaf_index").parse().unwrap();
    let path: Vec<Hash> =
        sigsum.values("node_hash").iter().map(|hash| bytes(hash[0]).try_into().unwrap()).collect();
    assert_eq!(verify_inclusion(&leaf, index, size, &path, &root), Ok(()));
    assert_ne!(verify_inclusion(&leaf, index - 1, size, &path, &root), Ok::<(), TreeError>(()));
}
