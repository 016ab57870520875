//! Images that a log vouches for: the proof decides which image evidence is compared with.

use crate::support::PATIENCE;
use crate::support::amd_sp::{AmdSp, CHAIN, LAUNCH_DIGEST, SOURCE};
use crate::support::server::{Identity, Server};
use attestation::certificate_table;
use attestation::verifier::{Check, Policy, VerifyError};
use client::policy::{ClientPolicy, ProofError};
use client::session::{Session, SessionError};
use std::fs;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::SystemTime;
use transparency::checkpoint::{Checkpoint, SignedCheckpoint};
use transparency::entry::{
    Entry, File, Image, Kind, Launch, Name, PublicKey, Revocations, Revoked, Subject, Version,
};
use transparency::key::{Algorithm, SignerKey};
use transparency::merkle::{Hash, leaf_hash, node_hash};
use transparency::proof::{Leaf, Proof};
use transparency::trust::{Accept, Trust, TrustFile, Witness};
use transparency::verify::{CheckpointRefused, VerifyError as Refusal};

const ORIGIN: &str = "log.example/test";

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn key(name: &str, algorithm: Algorithm) -> SignerKey {
    SignerKey::from_seed(name, algorithm, [name.len() as u8; 32]).expect("a key")
}

fn keys() -> [SignerKey; 2] {
    [key(ORIGIN, Algorithm::Ed25519), key("witness.example/w", Algorithm::CosignatureEd25519)]
}

pub(crate) fn now() -> u64 {
    transparency::verify::seconds(SystemTime::now()).expect("a clock")
}

/// Trusts the test's log for images of at least this minor version.
fn trust(minor: u32) -> Trust {
    trust_file(Kind::Image, &SOURCE.manifest.image, "guest", minor).try_into().expect("a trust")
}

/// Trusts the test's log for this name.
pub(crate) fn trust_file(kind: Kind, of: &str, role: &str, minor: u32) -> TrustFile {
    let [log, witness] = keys();
    let minimum_version = Version::new(0, minor, 0);
    let accept = Accept { kind, name: name(of), role: name(role), minimum_version, minimum_revocations: 0 };
    TrustFile {
        witnesses: vec![Witness { keys: vec![witness.public().clone()] }],
        accept: vec![accept],
        ..TrustFile::new(ORIGIN.into(), vec![log.public().clone()], 1)
    }
}

/// The entry of the image with this launch digest.
fn image(launch_digest: [u8; 48]) -> Entry {
    let launch =
        Launch { container: name("rom"), vcpus: 1, cpu_type: name("EPYC-Genoa"), digest: launch_digest };
    let image = Image {
        manifest_digest: SOURCE.manifest.digest(),
        model: name("mini.gguf"),
        weights_root: SOURCE.manifest.model.weights_root,
        launches: vec![launch],
        files: vec![File { name: name("cloister.rom"), size: 1, sha384: [1; 48] }],
        source_commit: vec![2; 20],
    };
    entry(name(&SOURCE.manifest.image), "guest", Subject::Image(image))
}

fn entry(name_of: Name, role: &str, subject: Subject) -> Entry {
    Entry { name: name_of, role: name(role), version: Version::new(0, 1, 0), previous: None, subject }
}

/// The proof of an entry in a log of two: a list of revocations, and it.
pub(crate) fn proof(entry: &Entry, time: u64, revoked: &[Hash]) -> Vec<u8> {
    proof_signed(entry, time, revoked, &keys())
}

fn proof_signed(entry: &Entry, time: u64, revoked: &[Hash], keys: &[SignerKey]) -> Vec<u8> {
    let revoked = revoked.iter().map(|leaf| Revoked { leaf: *leaf, reason: name("withdrawn") }).collect();
    let list = Subject::Revocations(Revocations { number: 0, issued: time, revoked });
    let list = self::entry(name("revocations"), "log", list).encode().expect("an entry");
    let entry = entry.encode().expect("an entry");
    let leaves = [leaf_hash(&list), leaf_hash(&entry)];
    let root = node_hash(&leaves[0], &leaves[1]);
    let checkpoint = Checkpoint { origin: ORIGIN.into(), size: 2, root, extension: String::new() };
    let signatures = keys.iter().map(|key| checkpoint.sign(key, time).expect("a signature")).collect();
    let proof = Proof {
        entry: Leaf { index: 1, entry, path: vec![leaves[0]] },
        revocations: Leaf { index: 0, entry: list, path: vec![leaves[1]] },
        checkpoint: SignedCheckpoint { checkpoint, signatures },
    };
    proof.encode().into_bytes()
}

/// A server with the honest guest's evidence, and with a proof among the host's certificates if there is one.
fn server(stapled: Option<&[u8]>) -> Server {
    let mut amd_sp = AmdSp::honest();
    if let Some(proof) = stapled {
        let table = amd_sp.certificates.clone();
        let mut entries = certificate_table::decode(&table).expect("a table");
        entries.push((certificate_table::PROOF, proof));
        amd_sp.certificates = certificate_table::encode(&entries);
    }
    Server::answering(Identity::new(amd_sp), |identity, nonce, exporter| {
        identity.fresh_evidence(nonce, &exporter)
    })
}

fn policy(trust: Trust) -> ClientPolicy {
    let pinned = crate::support::amd_sp::policy();
    ClientPolicy::logged(Policy::terms(&pinned).clone(), trust)
}

async fn connect(server: &Server, policy: ClientPolicy) -> Result<Session, SessionError> {
    Session::connect(&server.address.to_string(), Arc::new(policy), PATIENCE, |_| ()).await
}

/// Why an image is rejected; nothing was sent but, perhaps, a nonce.
async fn refusal(stapled: Option<&[u8]>, policy: ClientPolicy) -> ProofError {
    let server = server(stapled);
    let Err(SessionError::Proof(error)) = connect(&server, policy).await else { panic!("accepted") };
    assert!(server.received().is_empty());
    error
}

#[tokio::test]
async fn an_image_is_accepted_by_a_proof_that_came_with_the_evidence_or_beside_it() {
    let proof = proof(&image(LAUNCH_DIGEST), now(), &[]);
    let stapled = connect(&server(Some(&proof)), policy(trust(0))).await.expect("a session");
    let given = connect(&server(None), policy(trust(0)).with_proof(proof.clone())).await.expect("a session");
    for session in [stapled, given] {
        assert_eq!(session.verdict().checked[0], Check::Log);
        assert_eq!(session.verdict().image.name, SOURCE.manifest.image);
        let logged = session.logged().expect("logged");
        assert_eq!((logged.index, logged.size, logged.witnessed.witnesses.len()), (1, 2, 1));
        assert!(!session.verdict().to_string().contains("pinned-image"));
    }
    // What is given goes before what is stapled, so a host cannot bring its own.
    let given = policy(trust(0)).with_proof(b"something else".to_vec());
    assert!(matches!(refusal(Some(&proof), given).await, ProofError::Refused(Refusal::Format(_))));
}

/// Five witnesses of which three must cosign, each with Ed25519 and ML-DSA-44, and a log that signs with both as well: what a
/// client should ask for today is not too large to travel with the evidence.
#[tokio::test]
async fn d3_three_of_five_post_quantum_witnesses_travel_with_the_evidence() {
    let log = [Algorithm::Ed25519, Algorithm::CosignatureMlDsa44].map(|algorithm| key(ORIGIN, algorithm));
    let witnesses: Vec<[SignerKey; 2]> = (0..5_u8)
        .map(|number| {
            [Algorithm::CosignatureEd25519, Algorithm::CosignatureMlDsa44].map(|algorithm| {
                let name = format!("witness-{number}.operator.example/log");
                SignerKey::from_seed(&name, algorithm, [100 + number; 32]).expect("a key")
            })
        })
        .collect();
    let public = |keys: &[SignerKey]| keys.iter().map(|key| key.public().clone()).collect::<Vec<_>>();
    let listed = witnesses.iter().map(|keys| Witness { keys: public(keys) }).collect();
    let mut file = trust(0).file().clone();
    (file.keys, file.witnesses, file.threshold) = (public(&log), listed, 3);
    let trust = Trust::try_from(file).expect("a trust");
    // An image for two containers, and machines with three CPU types and two numbers of vCPUs.
    let mut entry = image(LAUNCH_DIGEST);
    let Subject::Image(logged) = &mut entry.subject else { panic!("an image") };
    for container in ["igvm", "rom"] {
        for (vcpus, cpu_type) in
            [(2, "Milan"), (2, "Genoa"), (2, "Turin"), (8, "Milan"), (8, "Genoa"), (8, "Turin")]
        {
            let (cpu_type, number) = (name(&format!("EPYC-{cpu_type}")), logged.launches.len() as u8);
            let launch = Launch { container: name(container), vcpus, cpu_type, digest: [number; 48] };
            logged.launches.push(launch);
        }
    }
    logged.launches.sort_by(|a, b| a.machine().cmp(&b.machine()));

    for (cosigned, enough) in [(5, true), (3, true), (2, false)] {
        let mut log = Vec::from([Algorithm::Ed25519, Algorithm::CosignatureMlDsa44].map(|a| key(ORIGIN, a)));
        log.extend(witnesses.iter().take(cosigned).flat_map(|keys| {
            keys.iter().map(|key| SignerKey::from_secret_text(&key.to_secret_text()).expect("a key"))
        }));
        let proof = proof_signed(&entry, now(), &[], &log);
        let server = server(Some(&proof));
        let table = AmdSp::honest().certificates.len() + 24 + proof.len();
        eprintln!("{cosigned} witnesses: a proof of {} bytes, a table of {table}", proof.len());
        assert!(table <= attestation::evidence::MAX_CERTIFICATES, "{table} bytes");
        let session = connect(&server, policy(trust.clone())).await;
        match session {
            Ok(session) if enough => {
                let witnesses = &session.logged().expect("logged").witnessed.witnesses;
                assert_eq!(witnesses.len(), cosigned);
            }
            Err(SessionError::Proof(ProofError::Refused(refused))) if !enough => {
                let too_few = CheckpointRefused::TooFewWitnesses { found: 2, needed: 3 };
                assert_eq!(refused, Refusal::Checkpoint(too_few));
            }
            Ok(_) => panic!("accepted with {cosigned}"),
            Err(error) => panic!("{cosigned}: {error}"),
        }
    }
}

#[tokio::test]
async fn d3_without_a_proof_there_is_no_session() {
    assert_eq!(refusal(None, policy(trust(0))).await, ProofError::Missing(ORIGIN.into()));
    assert!(matches!(refusal(Some(b""), policy(trust(0))).await, ProofError::Refused(Refusal::Format(_))));
}

#[tokio::test]
async fn d1_a_proof_of_another_image_or_kind_opens_no_session() {
    // Another image is as good as the log says, but it is not what runs.
    let other = proof(&image([0xB1; 48]), now(), &[]);
    let server = server(Some(&other));
    let error = connect(&server, policy(trust(0))).await.err().expect("rejected");
    assert!(matches!(&error, SessionError::Evidence(VerifyError::LaunchDigest(_))), "{error}");
    assert!(server.received().is_empty());

    let key = PublicKey { key: LAUNCH_DIGEST.to_vec(), not_before: 0, not_after: u64::MAX };
    let key = entry(name(&SOURCE.manifest.image), "guest", Subject::OhttpKey(key));
    let wrong = Refusal::Kind { expected: Kind::Image, found: Kind::OhttpKey };
    assert_eq!(refusal(Some(&proof(&key, now(), &[])), policy(trust(0))).await, ProofError::Refused(wrong));
}

#[tokio::test]
async fn d2_old_versions_old_proofs_and_revoked_images_open_no_session() {
    let refused = async |proof: &[u8], minor| match refusal(Some(proof), policy(trust(minor))).await {
        ProofError::Refused(refusal) => refusal,
        other => panic!("{other}"),
    };
    let image = image(LAUNCH_DIGEST);
    assert!(matches!(refused(&proof(&image, now(), &[]), 2).await, Refusal::Rollback { .. }));
    let old = now() - 30 * 24 * 3600;
    let stale = refused(&proof(&image, old, &[]), 0).await;
    assert!(matches!(stale, Refusal::Checkpoint(CheckpointRefused::Stale { .. })), "{stale}");
    let leaf = image.leaf_hash().expect("an entry");
    assert_eq!(refused(&proof(&image, now(), &[leaf]), 0).await, Refusal::Revoked(name("withdrawn")));
}

fn cloister(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cloister")).args(arguments).output().expect("the program runs")
}

#[test]
fn the_command_line_takes_a_policy_with_a_log_and_a_proof() {
    #[derive(serde::Serialize)]
    struct Section {
        log: TrustFile,
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let write = |name: &str, text: &[u8]| fs::write(path(name), text).expect("the file is written");
    let section = toml::to_string(&Section { log: trust(0).file().clone() }).expect("TOML");
    write("trust.toml", section.as_bytes());
    write("root.pem", CHAIN.ark_pem().expect("PEM").as_bytes());
    write("good.tlog-proof", &proof(&image(LAUNCH_DIGEST), now(), &[]));
    let (trust, root, out) = (path("trust.toml"), path("root.pem"), path("policy.toml"));
    let made = cloister(&["policy", "--log", &trust, "--development-root", &root, "--out", &out]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let server = server(None);
    let address = server.address.to_string();
    let verify = |proof: Option<&str>| {
        let mut words = vec!["verify", "--server", &address, "--policy", &out, "--json"];
        words.extend(proof.iter().flat_map(|proof| ["--proof", proof]));
        cloister(&words)
    };
    let good = verify(Some(&path("good.tlog-proof")));
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let json: serde_json::Value = serde_json::from_slice(&good.stdout).expect("JSON");
    assert_eq!(json["evidence"]["log"]["witnesses"][0], "witness.example/w");
    let failed = |output: Output, code: i32, because: &str| {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(because), "{error}");
    };
    failed(verify(None), 6, "--proof");
    failed(verify(Some(&path("none"))), 4, "none");

    // A policy that lists an image beside the log, or a log and nothing to accept, is none.
    let policy = fs::read_to_string(&out).expect("the policy");
    for (bad, because) in [
        (policy.replace("[[log.accept]]", "[[log.except]]"), "unknown field"),
        (policy.split("[[log.accept]]").next().expect("a part").to_owned(), "accepts no name"),
        (policy.replace("threshold = 1", "threshold = 2"), "threshold"),
        (format!("relax = [\"everything\"]\n{policy}"), "unknown variant"),
    ] {
        fs::write(&out, &bad).expect("the policy is written");
        failed(verify(None), 4, because);
    }
}
