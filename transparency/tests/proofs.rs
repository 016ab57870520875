//! A proof's check: what is good is accepted, and each way to be bad has its own error.

mod common;

use common::{ORIGIN, World, image, name, ohttp_key, witness_keys};
use std::time::{Duration, SystemTime};
use transparency::checkpoint::Checkpoint;
use transparency::entry::{Kind, Revoked, Version};
use transparency::key::{Algorithm, SignerKey};
use transparency::log::with_witnesses;
use transparency::merkle::TreeError;
use transparency::proof::Proof;
use transparency::trust::{Trust, TrustError, TrustFile, Witness};
use transparency::verify::{CheckpointRefused as Refused, VerifyError, verify};

const HOUR: Duration = Duration::from_secs(3600);

/// A log with two images and a key of the same name and role, three witnesses of which two must cosign.
async fn world() -> (World, Proof) {
    let world = World::new(3, 2).await;
    let mut writer = world.writer().await;
    let appended = writer.append(vec![image(1), ohttp_key(1), image(2)]).await.unwrap();
    assert_eq!(appended.iter().map(|signed| signed.index).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(writer.publish().await.unwrap().is_empty());
    let proof = writer.prove(3).await.unwrap();
    (world, proof)
}

fn check(proof: &Proof, trust: &Trust) -> Result<(), VerifyError> {
    check_at(proof, trust, SystemTime::now())
}

fn check_at(proof: &Proof, trust: &Trust, now: SystemTime) -> Result<(), VerifyError> {
    verify(proof.encode().as_bytes(), Kind::Image, trust, now).map(drop)
}

fn refused(proof: &Proof, trust: &Trust) -> Refused {
    match check(proof, trust) {
        Err(VerifyError::Checkpoint(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_proof_says_what_was_logged_and_who_saw_it() {
    let (world, proof) = world().await;
    assert_eq!(Proof::parse(proof.encode().as_bytes()), Ok(proof.clone()));
    let logged = verify(proof.encode().as_bytes(), Kind::Image, &world.trust, SystemTime::now()).unwrap();
    assert_eq!((logged.index, logged.size, logged.revocations), (3, 4, 0));
    assert_eq!(logged.entry.version, Version::new(0, 2, 0));
    assert_eq!(logged.witnessed.witnesses.len(), 3);
    // The entry before it is named by its leaf.
    let first = world.writer().await.prove(1).await.unwrap();
    assert_eq!(logged.entry.previous, Some(transparency::merkle::leaf_hash(&first.entry.entry)));
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_an_entry_of_another_kind_name_or_role_is_refused() {
    let (world, proof) = world().await;
    // The same name, role and version, in the same log, with a proof that holds: but a key, not an image.
    let key = world.writer().await.prove(2).await.unwrap();
    let wrong_kind = VerifyError::Kind { expected: Kind::Image, found: Kind::OhttpKey };
    assert_eq!(check(&key, &world.trust), Err(wrong_kind));
    for change in [
        (|trust: &mut TrustFile| trust.accept[0].name = name("other")) as fn(&mut TrustFile),
        |trust| trust.accept[0].role = name("gateway"),
        |trust| trust.accept[0].kind = Kind::Model,
        |trust| trust.accept.clear(),
    ] {
        let refusal = check(&proof, &world.trusting(change));
        assert!(matches!(refusal, Err(VerifyError::Name { .. })), "{refusal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_an_entry_that_is_not_canonical_is_refused() {
    let (world, proof) = world().await;
    let mut altered = proof.clone();
    altered.entry.entry.push(0);
    let not_included = VerifyError::NotIncluded(TreeError::Root);
    assert_eq!(check(&altered, &world.trust), Err(not_included.clone()));
    let mut altered = proof.clone();
    let digest = altered.entry.entry.windows(48).position(|bytes| bytes == [0xA1; 48]).unwrap();
    altered.entry.entry[digest] ^= 1;
    assert_eq!(check(&altered, &world.trust), Err(not_included.clone()));
    let mut altered = proof.clone();
    altered.entry.index -= 1;
    assert_eq!(check(&altered, &world.trust), Err(not_included));
    let mut huge = proof.clone();
    huge.entry.index = i64::MAX as u64;
    assert_eq!(check(&huge, &world.trust), Err(VerifyError::NotIncluded(TreeError::OutOfRange)));
    let mut long = proof.clone();
    long.entry.path.push([0; 32]);
    assert_eq!(check(&long, &world.trust), Err(VerifyError::NotIncluded(TreeError::Length)));

    // A log that did log something else than an entry: its proof holds, and it is refused all the same.
    let (log, witness) = (key(ORIGIN, Algorithm::Ed25519, 1), &witness_keys(1)[0]);
    let list = proof.revocations.entry.clone();
    for (entry, expected) in [
        (b"cloister".to_vec(), "not the canonical encoding"),
        ([&proof.entry.entry[..], &[0]].concat(), "not the canonical encoding"),
    ] {
        let leaves = [transparency::merkle::leaf_hash(&list), transparency::merkle::leaf_hash(&entry)];
        let root = transparency::merkle::node_hash(&leaves[0], &leaves[1]);
        let checkpoint = Checkpoint { origin: ORIGIN.into(), size: 2, root, extension: String::new() };
        let now = transparency::log::unix_now();
        let signatures = vec![checkpoint.sign(&log, now).unwrap(), checkpoint.sign(witness, now).unwrap()];
        let mut other = proof.clone();
        other.checkpoint = transparency::checkpoint::SignedCheckpoint { checkpoint, signatures };
        other.entry = transparency::proof::Leaf { index: 1, entry, path: vec![leaves[0]] };
        other.revocations.index = 0;
        other.revocations.path = vec![leaves[1]];
        let trust = world.trusting(|trust| {
            trust.keys = vec![log.public().clone()];
            trust.witnesses = vec![Witness { keys: vec![witness.public().clone()] }];
            trust.threshold = 1;
        });
        let refusal = check(&other, &trust).unwrap_err();
        assert!(refusal.to_string().contains(expected), "{refusal}");
    }
}

fn key(name: &str, algorithm: Algorithm, seed: u8) -> SignerKey {
    SignerKey::from_seed(name, algorithm, [seed; 32]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_stale_proofs_wrong_clocks_and_old_versions_are_refused() {
    let (world, proof) = world().await;
    let now = SystemTime::now();
    assert_eq!(check_at(&proof, &world.trust, now + 167 * HOUR), Ok(()));
    let refused = |now| match check_at(&proof, &world.trust, now) {
        Err(VerifyError::Checkpoint(refused)) => refused,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(now + 169 * HOUR), Refused::Stale { hours: 169, limit: 168 });
    // A clock that is off by years, either way.
    let years = 5 * 365 * 24 * HOUR;
    assert!(matches!(refused(now + years), Refused::Stale { .. }));
    assert!(matches!(refused(now - years), Refused::FromTheFuture { hours } if hours > 43_000));
    assert_eq!(refused(SystemTime::UNIX_EPOCH - HOUR), Refused::Clock);
    assert_eq!(check_at(&proof, &world.trust, now - HOUR / 12), Ok(()), "a clock may be a little behind");

    let newer = world.trusting(|trust| trust.accept[0].minimum_version = Version::new(0, 3, 0));
    let (found, minimum) = (Version::new(0, 2, 0), Version::new(0, 3, 0));
    assert_eq!(check(&proof, &newer), Err(VerifyError::Rollback { found, minimum }));
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_revoked_entry_is_refused_and_an_old_list_as_well() {
    let (world, before) = world().await;
    let mut writer = world.writer().await;
    let leaf = transparency::merkle::leaf_hash(&before.entry.entry);
    writer.revoke(vec![Revoked { leaf, reason: name("withdrawn") }]).await.unwrap();
    writer.publish().await.unwrap();
    let after = writer.prove(3).await.unwrap();
    assert_eq!(check(&after, &world.trust), Err(VerifyError::Revoked(name("withdrawn"))));
    assert_eq!(check(&writer.prove(1).await.unwrap(), &world.trust), Ok(()), "only that entry");

    let strict = world.trusting(|trust| trust.accept[0].minimum_revocations = 1);
    assert_eq!(check(&before, &strict), Err(VerifyError::OldRevocations { found: 0, minimum: 1 }));
    // Something else in place of the list.
    let mut other = after.clone();
    other.revocations = after.entry.clone();
    assert_eq!(check(&other, &world.trust), Err(VerifyError::NotRevocations(Kind::Image)));
    let mut altered = after;
    altered.revocations.entry.push(0);
    assert_eq!(check(&altered, &world.trust), Err(VerifyError::RevocationsNotIncluded(TreeError::Root)));
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_only_a_checkpoint_that_log_and_witnesses_signed_counts() {
    let (world, proof) = world().await;
    let trust = &world.trust;

    let mut other = proof.clone();
    other.checkpoint.checkpoint.origin = "log.example/other".into();
    let origin = Refused::Origin { expected: ORIGIN.into(), found: "log.example/other".into() };
    assert_eq!(refused(&other, trust), origin);

    let wrong_key =
        world.trusting(|trust| trust.keys = vec![key(ORIGIN, Algorithm::Ed25519, 1).public().clone()]);
    assert_eq!(refused(&proof, &wrong_key), Refused::NotSigned);

    let mut forged = proof.clone();
    forged.checkpoint.checkpoint.size += 1;
    assert_eq!(refused(&forged, trust), Refused::WrongSignature);

    // Each of the log's keys must have signed, also the post-quantum one.
    let mut one_key = proof.clone();
    one_key.checkpoint.signatures.remove(1);
    assert_eq!(refused(&one_key, trust), Refused::NotSigned);

    let lines = |proof: &Proof, number: usize| -> Vec<usize> {
        let named = format!("witness.example/w{number}");
        let lines = proof.checkpoint.signatures.iter().enumerate();
        lines.filter(|(_, line)| line.name == named).map(|(at, _)| at).collect()
    };
    let without = |proof: &Proof, number: usize| {
        let mut less = proof.clone();
        less.checkpoint.signatures.retain(|line| line.name != format!("witness.example/w{number}"));
        less
    };
    let two = without(&proof, 0);
    assert_eq!(check(&two, trust), Ok(()), "two of three are enough");
    let one = without(&two, 1);
    assert_eq!(refused(&one, trust), Refused::TooFewWitnesses { found: 1, needed: 2 });

    // The same witness again does not make two of one.
    let mut repeated = one.clone();
    let line = repeated.checkpoint.signatures[lines(&one, 2)[0]].clone();
    repeated.checkpoint.signatures.push(line);
    assert_eq!(refused(&repeated, trust), Refused::Repeated("witness.example/w2".into()));

    // Neither does one whom nobody knows.
    let mut unknown = one.clone();
    let stranger = &witness_keys(9)[0];
    let line = unknown.checkpoint.checkpoint.sign(stranger, transparency::log::unix_now()).unwrap();
    unknown.checkpoint.signatures.push(line);
    assert_eq!(refused(&unknown, trust), Refused::UnknownWitnesses { found: 1, needed: 2, unknown: 1 });

    // A witness with two keys counts only when both cosigned.
    let mut half = without(&proof, 1);
    half.checkpoint.signatures.remove(lines(&half, 2)[1]);
    assert_eq!(refused(&half, trust), Refused::TooFewWitnesses { found: 1, needed: 2 });

    let mut forged = proof.clone();
    let at = lines(&forged, 0)[0];
    forged.checkpoint.signatures[at].bytes[20] ^= 1;
    assert_eq!(refused(&forged, trust), Refused::WrongCosignature("witness.example/w0".into()));
}

#[test]
fn d3_a_trust_in_which_somebody_counts_twice_or_nothing_is_checked_is_refused() {
    let log = key(ORIGIN, Algorithm::Ed25519, 1).public().clone();
    let witness =
        |number| Witness { keys: witness_keys(number).iter().map(|k| k.public().clone()).collect() };
    let good = TrustFile {
        witnesses: vec![witness(1), witness(2)],
        ..TrustFile::new(ORIGIN.into(), vec![log.clone()], 2)
    };
    let refusal = |change: &dyn Fn(&mut TrustFile)| {
        let mut file = good.clone();
        change(&mut file);
        Trust::try_from(file).unwrap_err()
    };
    assert!(Trust::try_from(good.clone()).is_ok());
    assert_eq!(refusal(&|t| t.origin = "a b".into()), TrustError::Origin);
    assert_eq!(refusal(&|t| t.keys.clear()), TrustError::NoLogKey);
    assert_eq!(refusal(&|t| t.origin = "log.example/x".into()), TrustError::KeyName);
    assert_eq!(refusal(&|t| t.witnesses[0].keys.clear()), TrustError::KeyName);
    assert_eq!(
        refusal(&|t| t.witnesses[0].keys = vec![key("w", Algorithm::Ed25519, 5).public().clone()]),
        TrustError::KeyName
    );
    assert_eq!(refusal(&|t| t.witnesses[1] = t.witnesses[0].clone()), TrustError::RepeatedKey);
    // One key under two names would count twice.
    let twin = key("witness.example/twin", Algorithm::CosignatureEd25519, 101).public().clone();
    assert_eq!(refusal(&|t| t.witnesses[1].keys = vec![twin.clone()]), TrustError::RepeatedKey);
    assert_eq!(refusal(&|t| t.threshold = 3), TrustError::Threshold);
    assert_eq!(refusal(&|t| t.threshold = 0), TrustError::Threshold);
    assert_eq!(refusal(&|t| t.max_age_hours = 0), TrustError::Age);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_may_leave_out_the_witnesses_that_nobody_asks_for() {
    let (world, whole) = world().await;
    let keep = |count| {
        let checkpoint = with_witnesses(&whole.checkpoint, &world.trust, count)?;
        Ok::<_, Refused>(Proof { checkpoint, ..whole.clone() })
    };
    let short = keep(2).unwrap();
    assert!(short.encode().len() < whole.encode().len());
    let logged = verify(short.encode().as_bytes(), Kind::Image, &world.trust, SystemTime::now()).unwrap();
    assert_eq!(logged.witnessed.witnesses.len(), 2);
    assert_eq!(keep(3).unwrap(), whole);
    assert_eq!(keep(1), Err(Refused::TooFewWitnesses { found: 1, needed: 2 }));
    assert_eq!(keep(4), Err(Refused::TooFewWitnesses { found: 3, needed: 4 }));
    assert_eq!(
        refused(&short, &world.trusting(|trust| trust.threshold = 3)),
        Refused::TooFewWitnesses { found: 2, needed: 3 }
    );
}
