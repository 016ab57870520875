//! The witness's protocol (C2SP tlog-witness): another implementation's log, requests that are none, and forks.

mod common;

use common::{ORIGIN, witness_keys};
use transparency::checkpoint::{Checkpoint, SignedBy, SignedCheckpoint};
use transparency::key::{Algorithm, SignerKey, VerifierKey};
use transparency::merkle::{Hash, leaf_hash, node_hash};
use transparency::witness::{Answer, WatchedLog, Witness, WitnessStateError};

fn witness(origin: &str, key: VerifierKey, state: &std::path::Path) -> Witness {
    let logs = vec![WatchedLog { origin: origin.into(), keys: vec![key] }];
    Witness::new(witness_keys(2), logs, state).unwrap()
}

/// Another implementation's hashes, in the order in which it stores them.
#[derive(Default)]
struct Theirs(Vec<tlog_tiles::Hash>);

impl tlog_tiles::HashReader for Theirs {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.0[*index as usize]).collect())
    }
}

/// A log that is none of this project's code: tree, proofs and checkpoints by `tlog_tiles`, signatures by `signed_note`,
/// which also reads the witness's answer.
#[test]
fn a_witness_cosigns_the_log_of_another_implementation() {
    let secret = SignerKey::from_seed(ORIGIN, Algorithm::Ed25519, [7; 32]).unwrap();
    let signer = signed_note::StandardSigner::new(secret.to_secret_text().trim_end()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let witness = witness(ORIGIN, secret.public().clone(), folder.path());
    let (mut theirs, mut old) = (Theirs::default(), 0);
    for (number, size) in [1_u64, 2, 3, 7, 8, 300, 1000].into_iter().enumerate() {
        for n in old..size {
            let hashes = tlog_tiles::stored_hashes(n, &n.to_be_bytes(), &theirs).unwrap();
            theirs.0.extend(hashes);
        }
        let root = tlog_tiles::tree_hash(size, &theirs).unwrap();
        let checkpoint = tlog_tiles::Checkpoint::new(ORIGIN, size, root, "").unwrap();
        let mut note = signed_note::Note::new(&checkpoint.to_bytes(), &[]).unwrap();
        note.add_sigs(&[&signer]).unwrap();
        let note = String::from_utf8(note.to_bytes()).unwrap();
        let proof = if old == 0 { Vec::new() } else { tlog_tiles::prove_tree(size, old, &theirs).unwrap() };
        let proof: String = proof.iter().map(|hash| format!("{hash}\n")).collect();
        let answer = ask(&witness, &format!("old {old}\n{proof}\n{note}"));
        assert_eq!(answer.status, 200, "{number}: {answer:?}");
        let cosigned = format!("{note}{}", answer.body);
        let read = SignedCheckpoint::parse(cosigned.as_bytes()).unwrap();
        for key in witness.public_keys() {
            assert_eq!(read.signed_by(key), SignedBy::Signed(Some(1_700_000_000)));
        }
        let verifier = signed_note::StandardVerifier::new(&secret.public().to_string()).unwrap();
        let list = signed_note::VerifierList::new(vec![Box::new(verifier)]);
        let note = signed_note::Note::from_bytes(cosigned.as_bytes()).unwrap();
        let (known, unknown) = note.verify(&list).unwrap();
        assert_eq!((known.len(), unknown.len()), (1, 2), "the witness's two keys are unknown to it");
        old = size;
    }
}

struct Log {
    key: SignerKey,
    leaves: Vec<Hash>,
}

/// The root by the definition of RFC 6962, section 2.1.
fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => transparency::merkle::empty_root(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(1 << (leaves.len() - 1).ilog2());
            node_hash(&root(left), &root(right))
        }
    }
}

/// A consistency proof by the definition of RFC 6962, section 2.1.2.
fn subproof(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if whole { Vec::new() } else { vec![root(leaves)] };
    }
    let middle = 1 << (leaves.len() - 1).ilog2();
    let (left, right) = leaves.split_at(middle);
    let (mut proof, other) = if old <= middle {
        (subproof(old, left, whole), root(right))
    } else {
        (subproof(old - middle, right, false), root(left))
    };
    proof.push(other);
    proof
}

impl Log {
    fn new(leaves: usize, salt: u8) -> Self {
        let key = SignerKey::from_seed(ORIGIN, Algorithm::Ed25519, [7; 32]).unwrap();
        Self {
            key,
            leaves: (0..leaves).map(|n| leaf_hash(&[n as u8, if n < 3 { 0 } else { salt }])).collect(),
        }
    }

    fn request(&self, old: usize, new: usize) -> String {
        let proof = if old == 0 { Vec::new() } else { subproof(old, &self.leaves[..new], true) };
        self.request_with(old, new, &proof)
    }

    fn request_with(&self, old: usize, new: usize, proof: &[Hash]) -> String {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let root = root(&self.leaves[..new]);
        let checkpoint =
            Checkpoint { origin: ORIGIN.into(), size: new as u64, root, extension: String::new() };
        let signatures = vec![checkpoint.sign(&self.key, 0).unwrap()];
        let proof: String = proof.iter().map(|hash| STANDARD.encode(hash) + "\n").collect();
        format!("old {old}\n{proof}\n{}", SignedCheckpoint { checkpoint, signatures }.encode())
    }
}

fn ask(witness: &Witness, body: &str) -> Answer {
    witness.add_checkpoint(body.as_bytes(), 1_700_000_000).unwrap()
}

#[test]
fn d3_a_witness_never_signs_a_fork() {
    let folder = tempfile::tempdir().unwrap();
    let (log, fork) = (Log::new(40, 0), Log::new(40, 1));
    let witness = witness(ORIGIN, log.key.public().clone(), folder.path());
    assert_eq!(ask(&witness, &log.request(0, 5)).status, 200);
    // The same size with another root, and a larger tree without a proof, with the fork's own, and with one too many.
    assert_eq!(ask(&witness, &fork.request(5, 5)).status, 422);
    for size in 6..40 {
        assert_eq!(ask(&witness, &fork.request(5, size)).status, 422, "{size}");
        assert_eq!(ask(&witness, &log.request_with(5, size, &[])).status, 422, "{size}");
    }
    let mut long = subproof(5, &log.leaves[..9], true);
    long.push([0; 32]);
    assert_eq!(ask(&witness, &log.request_with(5, 9, &long)).status, 422);
    assert_eq!(ask(&witness, &log.request_with(0, 5, &[])).body, "5\n");
    // What the log did before is over.
    let conflict = ask(&witness, &log.request(3, 9));
    assert_eq!((conflict.status, conflict.content_type, &*conflict.body), (409, "text/x.tlog.size", "5\n"));
    for (old, new) in [(5, 5), (5, 9), (9, 32), (32, 40)] {
        assert_eq!(ask(&witness, &log.request(old, new)).status, 200, "{old} {new}");
    }
}

#[test]
fn requests_that_are_none_are_answered_as_the_specification_says() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::new(10, 0);
    let witness = witness(ORIGIN, log.key.public().clone(), folder.path());
    let good = log.request(0, 5);
    let status = |body: &str| ask(&witness, body).status;
    for bad in ["", "old 0\n", "old -1\n\nx", "old 00\n\n"] {
        assert_eq!(status(bad), 400, "{bad:?}");
    }
    assert_eq!(status(&good.replace("old 0", "old 00")), 400);
    assert_eq!(status(&good.replace("old 0", "old 6")), 400, "the old size is above the new one");
    assert_eq!(status(&good.replace("old 0\n", &format!("old 0\n{}", "A\n".repeat(3)))), 400);
    let line = format!("{}\n", "A".repeat(43) + "=");
    assert_eq!(status(&good.replace("old 0\n", &format!("old 0\n{}", line.repeat(64)))), 400);
    assert_eq!(
        status(&good.replace("old 0\n", &format!("old 0\n{line}"))),
        422,
        "no proof is needed from nothing"
    );
    assert_eq!(status(&good.replace(&format!("\n{ORIGIN}\n"), "\nlog.example/unknown\n")), 404);
    let stranger = SignerKey::from_seed(ORIGIN, Algorithm::Ed25519, [8; 32]).unwrap();
    let unsigned = Log { key: stranger, leaves: log.leaves.clone() }.request(0, 5);
    assert_eq!(status(&unsigned), 403);
    assert_eq!(status(&good), 200, "none of it had an effect");
}

#[test]
fn d3_a_witness_remembers_across_restarts_runs_once_and_signs_nothing_without_its_memory() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::new(10, 0);
    let start = || {
        let logs = vec![WatchedLog { origin: ORIGIN.into(), keys: vec![log.key.public().clone()] }];
        Witness::new(witness_keys(1), logs, folder.path())
    };
    let first = start().unwrap();
    assert_eq!(ask(&first, &log.request(0, 5)).status, 200);
    assert!(matches!(start(), Err(WitnessStateError::Running(_))));
    drop(first);
    let second = start().unwrap();
    assert_eq!(ask(&second, &log.request(0, 9)).body, "5\n");
    assert_eq!(ask(&second, &log.request(5, 9)).status, 200);

    let hash = {
        use sha2::Digest;
        hex::encode(sha2::Sha256::digest(ORIGIN))
    };
    let shown = second.checkpoint(&hash).unwrap();
    let shown = SignedCheckpoint::parse(shown.body.as_bytes()).unwrap();
    assert_eq!((shown.checkpoint.size, shown.signatures.len()), (9, 2));
    assert_eq!(second.checkpoint(&"0".repeat(64)).unwrap().status, 404);

    std::fs::write(folder.path().join(hash), "nonsense").unwrap();
    let refused = second.add_checkpoint(log.request(9, 10).as_bytes(), 1);
    assert!(matches!(refused, Err(WitnessStateError::Damaged { .. })), "{refused:?}");
}
