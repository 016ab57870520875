//! What clients, witnesses and monitors read of a log.

use crate::bytes::Bytes;
use transparency::checkpoint::SignedCheckpoint;
use transparency::entry::{
    Entry, File, Image, Launch, Name, PublicKey, Revocations, Revoked, Subject, Version,
};
use transparency::key::VerifierKey;
use transparency::merkle::{verify_consistency, verify_inclusion};
use transparency::note::Note;
use transparency::proof::{Proof, TlogProof};

/// An entry: what is read is the only encoding of it.
pub fn entry(data: &[u8]) {
    if let Ok(entry) = Entry::decode(data) {
        assert_eq!(entry.encode().as_deref(), Ok(data), "two encodings of one entry");
    }
}

/// A proof, its checkpoint, the text of a key; and numbers and hashes as proofs of a tree.
pub fn proof(data: &[u8]) {
    if let Ok(proof) = TlogProof::parse(data) {
        assert_eq!(TlogProof::parse(proof.encode().as_bytes()), Ok(proof));
    }
    if let Ok(proof) = Proof::parse(data) {
        assert_eq!(Proof::parse(proof.encode().as_bytes()), Ok(proof));
    }
    if let Ok(note) = Note::parse(data) {
        assert_eq!(note.encode().as_bytes(), data, "two texts of one note");
    }
    if let Ok(checkpoint) = SignedCheckpoint::parse(data) {
        assert_eq!(checkpoint.encode().as_bytes(), data, "two texts of one checkpoint");
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = text.parse::<VerifierKey>()
    {
        assert_eq!(key.to_string().parse::<VerifierKey>(), Ok(key));
    }
    let mut rest = Bytes(data);
    let (index, size, root) = (rest.u64(), rest.u64(), [rest.u8(); 32]);
    let (path, _) = rest.0.as_chunks::<32>();
    let held = verify_inclusion(&[1; 32], index, size, path, &root).is_ok();
    assert!(!held || path.is_empty() && root == [1; 32] && size == 1, "a root that nobody computed");
    let held = verify_consistency((index, &[1; 32]), (size, &root), path).is_ok();
    assert!(!held || index == 0 || index == size && root == [1; 32], "a history that nobody made");
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

/// One entry of each shape.
pub fn entry_seeds() -> Vec<Vec<u8>> {
    let files = vec![File { name: name("cloister.rom"), size: 1 << 20, sha384: [3; 48] }];
    let launch = |vcpus| Launch { container: name("rom"), vcpus, cpu_type: name("EPYC-v4"), digest: [4; 48] };
    let image = Image {
        manifest_digest: [1; 48],
        model: name("mini"),
        weights_root: [2; 48],
        launches: vec![launch(1), launch(2)],
        files,
        source_commit: vec![5; 20],
    };
    let key = PublicKey { key: vec![6; 40], not_before: 1, not_after: 2 };
    let revoked = vec![Revoked { leaf: [8; 32], reason: name("withdrawn") }];
    let subjects = [
        Subject::Image(image),
        Subject::OhttpKey(key),
        Subject::Revocations(Revocations { number: 1, issued: 2, revoked }),
    ];
    subjects
        .into_iter()
        .map(|subject| {
            let entry = Entry {
                name: name("cloister"),
                role: name("guest"),
                version: Version::new(1, 0, 0),
                previous: None,
                subject,
            };
            entry.encode().expect("within its bounds")
        })
        .collect()
}

/// A proof with all its parts, its checkpoint, and a key.
pub fn proof_seeds() -> Vec<Vec<u8>> {
    let checkpoint = "log.example/c\n7\nAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n\n\
         \u{2014} log.example/c AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";
    let hash = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    vec![
        checkpoint.into(),
        format!("c2sp.org/tlog-proof@v1\nextra AQEB\nindex 3\n{hash}\n{hash}\n\n{checkpoint}").into(),
        b"PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".to_vec(),
        [&3_u64.to_le_bytes()[..], &7_u64.to_le_bytes(), &[1; 97]].concat(),
        [&0_u64.to_le_bytes()[..], &1_u64.to_le_bytes(), &[1]].concat(),
    ]
}
