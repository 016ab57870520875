//! Notes, checkpoints, keys, cosignatures and proofs: the examples of the C2SP specifications, the cases of
//! transparency-dev/formats, and other implementations (`signed_note`, `ml-dsa`).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use signed_note::Verifier as _;
use transparency::checkpoint::{Checkpoint, CheckpointError, SignedBy, SignedCheckpoint};
use transparency::key::{Algorithm, KeyError, SignerKey, VerifierKey};
use transparency::merkle::{Hash, empty_root, leaf_hash};
use transparency::note::{MAX_SIGNATURES, Note, NoteError, Signature};
use transparency::proof::{ProofFormatError, TlogProof};

fn checkpoint() -> Checkpoint {
    Checkpoint { origin: "log.example/a".into(), size: 7, root: leaf_hash(b"x"), extension: String::new() }
}

fn signed(keys: &[&SignerKey]) -> SignedCheckpoint {
    let checkpoint = checkpoint();
    let signatures = keys.iter().map(|key| checkpoint.sign(key, 1_700_000_000).unwrap()).collect();
    SignedCheckpoint { checkpoint, signatures }
}

fn key(name: &str, algorithm: Algorithm, seed: u8) -> SignerKey {
    SignerKey::from_seed(name, algorithm, [seed; 32]).unwrap()
}

/// C2SP signed-note, "Example": key and note.
#[test]
fn the_example_key_of_signed_note() {
    let text = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    let key: VerifierKey = text.parse().unwrap();
    assert_eq!(
        (key.name(), key.algorithm(), key.to_string().as_str()),
        ("example.com/foo", Algorithm::Ed25519, text)
    );
    let note = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Z\
                tg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    let note = Note::parse(note.as_bytes()).unwrap();
    assert!(note.signatures[0].claims(&key));
    // The text is no checkpoint, so only the other implementation can check it; it reads the note as we wrote it.
    let theirs = signed_note::Note::from_bytes(note.encode().as_bytes()).unwrap();
    let verifier = signed_note::StandardVerifier::new(text).unwrap();
    assert!(verifier.verify(theirs.text(), &note.signatures[0].bytes));
}

#[test]
fn keys_that_were_altered_are_refused() {
    let good = key("log.example/a", Algorithm::Ed25519, 1).public().to_string();
    assert_eq!(good.parse::<VerifierKey>().unwrap().to_string(), good);
    let refused = |text: &str| text.parse::<VerifierKey>().unwrap_err();
    assert_eq!(refused(&good.replace("log.", "lag.")), KeyError::Id);
    assert_eq!(refused(&good[..good.len() - 4]), KeyError::Format);
    assert_eq!(refused(""), KeyError::Format);
    assert_eq!(refused("a b+00000000+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"), KeyError::Format);
    let unknown = format!("a+00000000+{}", STANDARD.encode([2; 33]));
    assert_eq!(refused(&unknown), KeyError::Algorithm);
    // Secret keys are written and read, and do not show themselves.
    let secret = key("log.example/a", Algorithm::CosignatureMlDsa44, 9);
    let again = SignerKey::from_secret_text(&secret.to_secret_text()).unwrap();
    assert_eq!(again.public(), secret.public());
    assert!(!format!("{secret:?}").contains(&secret.to_secret_text()[40..80]));
}

#[test]
fn every_kind_of_key_signs_what_it_verifies_and_nothing_else() {
    for algorithm in [Algorithm::Ed25519, Algorithm::CosignatureEd25519, Algorithm::CosignatureMlDsa44] {
        let key = key("log.example/a", algorithm, 3);
        let good = signed(&[&key]);
        let again = SignedCheckpoint::parse(good.encode().as_bytes()).unwrap();
        assert_eq!(again, good);
        let time = (algorithm != Algorithm::Ed25519).then_some(1_700_000_000);
        assert_eq!(again.signed_by(key.public()), SignedBy::Signed(time));

        let altered = |alter: fn(&mut SignedCheckpoint)| {
            let mut other = good.clone();
            alter(&mut other);
            other.signed_by(key.public())
        };
        assert_eq!(altered(|s| s.checkpoint.size += 1), SignedBy::Wrong);
        assert_eq!(altered(|s| s.checkpoint.root[0] ^= 1), SignedBy::Wrong);
        assert_eq!(altered(|s| s.checkpoint.origin.push('x')), SignedBy::Wrong);
        assert_eq!(altered(|s| s.signatures[0].bytes[7] ^= 1), SignedBy::Wrong);
        assert_eq!(altered(|s| s.signatures[0].bytes.truncate(8)), SignedBy::Wrong);
        assert_eq!(altered(|s| s.signatures[0].id[0] ^= 1), SignedBy::Missing);
        assert_eq!(altered(|s| s.signatures.push(s.signatures[0].clone())), SignedBy::Repeated);
        // A cosignature that states no time states nothing about the newest tree.
        if algorithm != Algorithm::Ed25519 {
            let mut timeless = good.clone();
            timeless.signatures[0] = timeless.checkpoint.sign(&key, 0).unwrap();
            assert_eq!(timeless.signed_by(key.public()), SignedBy::Wrong);
        }
    }
}

/// The other implementation checks the Ed25519 signature of the log, and the cosignature over the text that the
/// specification gives.
#[test]
fn signed_note_accepts_what_we_sign() {
    let log = key("log.example/a", Algorithm::Ed25519, 1);
    let witness = key("witness.example/w", Algorithm::CosignatureEd25519, 2);
    let text = signed(&[&log, &witness]).encode();
    let note = signed_note::Note::from_bytes(text.as_bytes()).unwrap();
    let verifier = signed_note::StandardVerifier::new(&log.public().to_string()).unwrap();
    let list = signed_note::VerifierList::new(vec![Box::new(verifier)]);
    let (verified, unverified) = note.verify(&list).unwrap();
    assert_eq!((verified.len(), unverified.len()), (1, 1));

    let line = &unverified[0];
    let (time, signature) = line.signature().split_at(8);
    let time = u64::from_be_bytes(time.try_into().unwrap());
    let message = format!("cosignature/v1\ntime {time}\n{}", String::from_utf8_lossy(note.text()));
    // The same key as a plain one, for an implementation that knows only those.
    let plain = key("witness.example/w", Algorithm::Ed25519, 2).public().to_string();
    let plain = signed_note::StandardVerifier::new(&plain).unwrap();
    assert!(plain.verify(message.as_bytes(), signature));
}

#[test]
fn another_ml_dsa_accepts_what_we_sign_over_the_message_of_the_specification() {
    use ml_dsa::{B32, EncodedSignature, EncodedVerifyingKey, MlDsa44, Signature, SigningKey, VerifyingKey};
    let witness = key("witness.example/w", Algorithm::CosignatureMlDsa44, 5);
    let text = witness.public().to_string();
    let public = STANDARD.decode(text.splitn(3, '+').nth(2).unwrap()).unwrap();
    let theirs = SigningKey::<MlDsa44>::from_seed(&B32::from([5; 32]));
    let encoded = EncodedVerifyingKey::<MlDsa44>::try_from(&public[1..]).unwrap();
    let verifying = VerifyingKey::<MlDsa44>::decode(&encoded);
    assert_eq!(ml_dsa::signature::Keypair::verifying_key(&theirs).encode(), encoded);

    let signed = signed(&[&witness]);
    let (time, signature) = signed.signatures[0].bytes.split_at(8);
    let mut message = b"subtree/v1\n\0".to_vec();
    for part in ["witness.example/w", "log.example/a"] {
        message.push(part.len() as u8);
        message.extend_from_slice(part.as_bytes());
        if part.starts_with('w') {
            message.extend_from_slice(time);
        }
    }
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&7_u64.to_be_bytes());
    message.extend_from_slice(&signed.checkpoint.root);
    let signature = Signature::<MlDsa44>::decode(&EncodedSignature::<MlDsa44>::try_from(signature).unwrap());
    assert!(verifying.verify_with_context(&message, b"", &signature.unwrap()));
}

#[test]
fn notes_are_read_strictly() {
    let log = key("log.example/a", Algorithm::Ed25519, 1);
    let good = signed(&[&log]).encode();
    assert!(Note::parse(good.as_bytes()).is_ok());
    let refused = |text: &[u8]| Note::parse(text).unwrap_err();
    assert_eq!(refused(b""), NoteError::Format);
    assert_eq!(refused(b"text\n\n"), NoteError::Format);
    assert_eq!(refused(good.trim_end().as_bytes()), NoteError::Format);
    assert_eq!(refused(good.replace("— ", "- ").as_bytes()), NoteError::Line);
    assert_eq!(refused(good.replace("— log", "—  log").as_bytes()), NoteError::Line);
    assert_eq!(refused(&[good.as_bytes(), b"\xff\n"].concat()), NoteError::NotText);
    assert_eq!(refused(good.replace('7', "\t").as_bytes()), NoteError::NotText);
    let line = signed(&[&log]).signatures[0].line();
    assert_eq!(refused(format!("{good}{}", line.repeat(MAX_SIGNATURES)).as_bytes()), NoteError::TooLarge);
    assert!(Note::parse(format!("{good}{}", line.repeat(15)).as_bytes()).is_ok());
    assert_eq!(refused(&vec![b'a'; 300 * 1024]), NoteError::TooLarge);
    assert!(Signature::parse("— a AAAA").is_err());
}

/// The cases of transparency-dev/formats `log/checkpoint_test.go`, with roots that are SHA-256 hashes, which
/// tlog-checkpoint asks for.
#[test]
fn checkpoints_are_read_as_in_transparency_dev_formats() {
    let root = STANDARD.encode(leaf_hash(b"x"));
    let read = |text: &str| Checkpoint::parse(text);
    for (text, origin, size, extension) in [
        (format!("Log\n123\n{root}\n"), "Log", 123, ""),
        (format!("Banana\n9944\n{root}\n"), "Banana", 9944, ""),
        (format!("Log\n9944\n{root}\nHere's some data.\n"), "Log", 9944, "Here's some data.\n"),
        (format!("Log\n9944\n{root}\nlots\nof\nlines\n"), "Log", 9944, "lots\nof\nlines\n"),
        (format!("go.sum database tree\n1\n{root}\n"), "go.sum database tree", 1, ""),
    ] {
        let checkpoint = read(&text).unwrap();
        assert_eq!((checkpoint.origin.as_str(), checkpoint.size), (origin, size));
        assert_eq!((checkpoint.extension.as_str(), checkpoint.text()), (extension, text));
    }
    for text in [
        "Head\n9944\n".into(),
        format!("\n9944\n{root}\n"),
        format!("Log\n123\n{root}"),
        format!("Log\nbananas\n{root}\n"),
        format!("Log\n-34\n{root}\n"),
        format!("Log\n+34\n{root}\n"),
        format!("Log\n034\n{root}\n"),
        format!("Log\n3438945738945739845734895735\n{root}\n"),
        format!("Log\n9223372036854775808\n{root}\n"),
        "Log\n123\nThisIsn'tBase64\n".into(),
        "Log\n123\nYmFuYW5hcw==\n".into(),
        format!("Log\n123\n{root}\n\n\n"),
    ] {
        assert_eq!(read(&text), Err(CheckpointError::Format), "{text:?}");
    }
    assert_eq!(read(&format!("Log\n0\n{root}\n")), Err(CheckpointError::EmptyRoot));
    assert!(read(&format!("Log\n0\n{}\n", STANDARD.encode(empty_root()))).is_ok());
}

fn sha256(text: &str) -> Hash {
    use sha2::Digest;
    sha2::Sha256::digest(text).into()
}

/// The cases of transparency-dev/formats `proof/tlog_proof_test.go`.
#[test]
fn proofs_are_written_and_read_as_in_transparency_dev_formats() {
    let (h1, h2) = (sha256("hash1"), sha256("hash2"));
    let (b1, b2) = (STANDARD.encode(h1), STANDARD.encode(h2));
    let extra = b"extra information".to_vec();
    let proof = |index, hashes: &[Hash], checkpoint: &str, extra: Option<Vec<u8>>| TlogProof {
        extra,
        index,
        hashes: hashes.to_vec(),
        checkpoint: checkpoint.into(),
    };
    for (proof, text) in [
        (
            proof(5, &[h1, h2], "test checkpoint\n", None),
            format!("c2sp.org/tlog-proof@v1\nindex 5\n{b1}\n{b2}\n\ntest checkpoint\n"),
        ),
        (
            proof(10, &[h1], "checkpoint data\n", Some(extra.clone())),
            format!(
                "c2sp.org/tlog-proof@v1\nextra {}\nindex 10\n{b1}\n\ncheckpoint data\n",
                STANDARD.encode(&extra)
            ),
        ),
        (proof(0, &[], "checkpoint\n", None), "c2sp.org/tlog-proof@v1\nindex 0\n\ncheckpoint\n".into()),
    ] {
        assert_eq!(proof.encode(), text);
        assert_eq!(TlogProof::parse(text.as_bytes()), Ok(proof));
    }
    use ProofFormatError as E;
    let short = STANDARD.encode([0; 64]);
    for (text, error) in [
        ("wrong-header\nindex 0\n\ncheckpoint\n".to_owned(), E::Format),
        ("c2sp.org/tlog-proof@v1\nextra !!notbase64!!\nindex 0\n\ncheckpoint\n".into(), E::Extra),
        ("c2sp.org/tlog-proof@v1\n\n\ncheckpoint\n".into(), E::Index),
        ("c2sp.org/tlog-proof@v1\nindex notanumber\n\ncheckpoint\n".into(), E::Index),
        ("c2sp.org/tlog-proof@v1\nindex -5\n\ncheckpoint\n".into(), E::Index),
        ("c2sp.org/tlog-proof@v1\nindex 05\n\ncheckpoint\n".into(), E::Index),
        ("c2sp.org/tlog-proof@v1\nindex 18446744073709551615\n\ncheckpoint\n".into(), E::Index),
        ("c2sp.org/tlog-proof@v1\nindex 0\n!!notbase64!!\n\ncheckpoint\n".into(), E::Hash),
        (format!("c2sp.org/tlog-proof@v1\nindex 0\n{short}\n\ncheckpoint\n"), E::Hash),
        (format!("c2sp.org/tlog-proof@v1\nindex 0\n{}\n", "a".repeat(65 * 1024)), E::Format),
        (format!("c2sp.org/tlog-proof@v1\nindex 0\n{}\n\nx\n", vec![b1.clone(); 64].join("\n")), E::TooLong),
        ("x".repeat(600 * 1024), E::TooLarge),
    ] {
        assert_eq!(TlogProof::parse(text.as_bytes()), Err(error), "{text:.80}");
    }
}
