//! Two builders before one entry: `cloister-image key`, `vouch`, `publish`, and an entry against what is rebuilt.

#[path = "../../transparency/tests/common/mod.rs"]
mod common;
#[path = "../../service/tests/support/model.rs"]
#[allow(dead_code, reason = "only its model file is needed")]
mod model;
mod samples;

use common::World;
use image_builder::audit::{Rebuilt, logged};
use image_builder::publish::agree::{Refused, agree};
use image_builder::publish::builders::{Builders, BuildersError};
use image_builder::publish::statement::{self, NotAStatement};
use model::Ending;
use std::fs;
use std::path::Path;
use std::process::Command;
use transparency::entry::{Entry, Kind, Subject};
use transparency::key::{Algorithm, SignerKey};
use transparency::log::config::read_key;
use transparency::note::Note;
use transparency::verify::verify;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn cloister_image(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_cloister-image"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (said, error) = (text(output.stdout), text(output.stderr));
    assert!(!error.contains("panicked"), "{error}");
    (output.status.code().unwrap(), said, error)
}

fn done(folder: &Path, arguments: &[&str]) -> String {
    let (code, said, error) = cloister_image(folder, arguments);
    assert_eq!(code, 0, "{arguments:?}: {error}");
    said
}

/// A folder with an image in `out`, another one in `other`, two builders' keys, and a `builders.toml`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("manifest.toml"), include_str!("../../models/manifest.toml")).unwrap();
    fs::write(at.join("cloister-mini.gguf"), model::gguf(Ending::Stops)).unwrap();
    fs::write(at.join("out.elf"), samples::kernel(&[0xf4])).unwrap();
    fs::write(at.join("other.elf"), samples::kernel(&[0xf4, 0x90])).unwrap();
    for name in ["out", "other"] {
        let kernel = format!("{name}.elf");
        done(at, &["build", "--out", name, "--manifest", "manifest.toml", "--kernel", &kernel]);
    }
    let mut builders = "threshold = 2\n".to_owned();
    for name in ["a", "b"] {
        let key = done(at, &["key", "--name", &format!("builder.example/{name}"), "--out", name]);
        builders += &format!("[[builder]]\nkey = {:?}\n", key.trim());
    }
    fs::write(at.join("builders.toml"), builders).unwrap();
    folder
}

#[derive(serde::Serialize)]
struct Section<'a> {
    log: &'a transparency::trust::TrustFile,
}

fn vouch(folder: &Path, key: &str, built: &str, more: &[&str]) -> String {
    let out = format!("{key}-{built}.statement");
    let words = ["vouch", "--key", key, "--built", built, "--commit", COMMIT, "--vcpus", "2", "--out", &out];
    done(folder, &[&words, more].concat());
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_an_image_is_logged_when_two_builders_agree_and_not_before() {
    let folder = folder();
    let at = folder.path();
    let world = World::new(1, 1).await;
    let config = world.config();
    let config = config.to_str().unwrap();
    let (a, b, other) =
        (vouch(at, "a", "out", &[]), vouch(at, "b", "out", &[]), vouch(at, "b", "other", &[]));
    let publish = |notes: &[&str], more: &[&str]| {
        let words = ["publish", "--builders", "builders.toml", "--config", config];
        cloister_image(at, &[&words, notes, more].concat())
    };

    // One builder, one builder twice, and two that disagree: each is told why, and the log stays as it was.
    let before = world.writer().await.checkpoint().clone();
    fs::copy(at.join(&a), at.join("again.statement")).unwrap();
    for (notes, part) in [
        (vec![a.as_str()], "1 of the builders"),
        (vec![&a, "again.statement"], "1 of the builders"),
        (vec![&a, &other], "subject.image.files[cloister.rom].sha384"),
    ] {
        let (code, said, error) = publish(&notes, &[]);
        assert_eq!((code, said.as_str()), (10, ""), "{error}");
        assert!(error.contains(part), "{error}");
    }
    assert!(publish(&[&a, &b], &["--file", "other/cloister.rom"]).2.contains("not among the files"));
    assert_eq!(*world.writer().await.checkpoint(), before);

    // Two that agree.
    let checked = done(at, &["publish", "--builders", "builders.toml", "--check", &a, &b]);
    assert_eq!(checked, "builder.example/a, builder.example/b agree on image cloister 0.1.0\n");
    let (code, said, error) = publish(&[&a, &b], &["--file", "out/cloister.rom"]);
    assert!(code == 0 && said.ends_with("published 2\n"), "{said}{error}");
    let writer = world.writer().await;
    let index = writer.newest(Kind::Image, "cloister", "guest").unwrap();
    let proof = writer.prove(index).await.unwrap().encode();
    drop(writer);
    let logged = verify(proof.as_bytes(), Kind::Image, &world.trust, std::time::SystemTime::now()).unwrap();
    let statement = Note::parse(&fs::read(at.join(&a)).unwrap()).unwrap();
    assert_eq!(logged.entry, statement::entry_of(&statement).unwrap());
    // Their statements are beside it, as one note that both signed, and an auditor is told who they are or what is wrong.
    let kept = world.tiles().join("statements").join(hex::encode(logged.leaf));
    let text = fs::read(&kept).unwrap();
    assert_eq!(Note::parse(&text).unwrap().signatures.len(), 2);
    assert!(text.starts_with(statement.text.as_bytes()));
    fs::write(at.join("proof"), &proof).unwrap();
    fs::write(at.join("trust.toml"), toml::to_string(&Section { log: world.trust.file() }).unwrap()).unwrap();
    let tiles = world.tiles();
    let words =
        ["audit", "proof", "--trust", "trust.toml", "--builders", "builders.toml", "--folder", "none"];
    let audit = || cloister_image(at, &[&words[..], &["--log", tiles.to_str().unwrap()]].concat());
    let (code, _, error) = audit();
    assert!(code != 10 && error.contains("none"), "only the source is missing: {code} {error}");
    let signed = String::from_utf8(text.clone()).unwrap();
    let one = signed.trim_end().rsplit_once('\n').unwrap().0.to_owned() + "\n";
    let key = read_key(&at.join("a")).unwrap();
    let mut entry = statement::entry_of(&statement).unwrap();
    entry.version = transparency::entry::Version::new(9, 9, 9);
    let mut other = statement::sign(&entry, &key).unwrap();
    let second = statement::sign(&entry, &read_key(&at.join("b")).unwrap()).unwrap();
    other.signatures.extend(second.signatures);
    for (content, part) in [
        (Some(one), "1 of the builders"),
        (Some(signed.replace("cloister.rom", "cloister.rim")), "is wrong"),
        (Some(other.encode()), "not the entry: version: 9.9.9"),
        (None, "keeps no builders' statements"),
    ] {
        match content {
            Some(content) => fs::write(&kept, content).unwrap(),
            None => fs::remove_file(&kept).unwrap(),
        }
        let (code, said, error) = audit();
        assert_eq!((code, said.as_str()), (10, ""), "{error}");
        assert!(error.contains(part), "{error}");
    }
    fs::write(&kept, "nothing").unwrap();
    assert_eq!(audit().0, 13);
    fs::write(&kept, text).unwrap();

    // A version is logged once.
    assert_eq!(publish(&[&a, &b], &[]).0, 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_logged_by_the_same_command() {
    let folder = folder();
    let at = folder.path();
    let world = World::new(1, 1).await;
    let config = world.config();
    for key in ["a", "b"] {
        let words = ["vouch", "--key", key, "--weights", "cloister-mini.gguf", "--name", "mini"];
        done(at, &[&words, ["--version", "1.0.0", "--out", &format!("{key}.statement")].as_slice()].concat());
    }
    let words = ["publish", "--builders", "builders.toml", "--config", config.to_str().unwrap()];
    let more = ["a.statement", "b.statement", "--file", "cloister-mini.gguf"];
    assert!(done(at, &[&words[..], &more].concat()).contains("model mini 1.0.0"));
    let writer = world.writer().await;
    let index = writer.newest(Kind::Model, "mini", "weights").unwrap();
    let proof = writer.prove(index).await.unwrap();
    let Subject::Model(model) = Entry::decode(&proof.entry.entry).unwrap().subject else { panic!() };
    // The image's manifest names the same root.
    let digests: serde_json::Value =
        serde_json::from_slice(&fs::read(at.join("out/digests.json")).unwrap()).unwrap();
    assert_eq!(digests["weights_root"], hex::encode(model.weights_root));
}

#[test]
fn files_that_do_not_belong_together_get_no_statement() {
    let folder = folder();
    let at = folder.path();
    fs::copy(at.join("other/cloister.igvm"), at.join("out/cloister.igvm")).unwrap();
    let words = ["vouch", "--key", "a", "--built", "out", "--commit", COMMIT, "--out", "statement"];
    let (code, _, error) = cloister_image(at, &words);
    assert!(code == 6 && error.contains("one build"), "{error}");
    assert!(!at.join("statement").exists());
}

/// Builders `a`, `b` and `c`, of whom two must agree, and their keys.
fn three() -> (Builders, [SignerKey; 3]) {
    let key = |name: &str, seed| {
        SignerKey::from_seed(&format!("builder.example/{name}"), Algorithm::Ed25519, [seed; 32]).unwrap()
    };
    let keys = [key("a", 1), key("b", 2), key("c", 3)];
    (Builders::parse(&builders(2, &keys)).unwrap(), keys)
}

fn builders(threshold: usize, keys: &[SignerKey]) -> String {
    let listed = keys.iter().map(|key| format!("[[builder]]\nkey = \"{}\"\n", key.public()));
    format!("threshold = {threshold}\n{}", listed.collect::<String>())
}

#[test]
fn d5_each_way_in_which_statements_do_not_agree_has_its_own_error() {
    let (known, [a, b, _]) = three();
    let entry = common::image(1);
    let sign = |key: &SignerKey| statement::sign(&entry, key).unwrap();
    let good = [sign(&a), sign(&b)];
    assert_eq!(agree(&good, &known).unwrap().entry, entry);
    // One note with both signatures is as good as two.
    let both = Note {
        signatures: good.iter().flat_map(|note| note.signatures.clone()).collect(),
        ..good[0].clone()
    };
    assert_eq!(agree(&[both], &known).unwrap().builders.len(), 2);

    let stranger = SignerKey::from_seed("builder.example/a", Algorithm::Ed25519, [9; 32]).unwrap();
    assert!(matches!(agree(&[sign(&a), sign(&stranger)], &known), Err(Refused::Unknown { number: 2, .. })));
    assert_eq!(agree(&[], &known), Err(Refused::TooFew { found: 0, needed: 2 }));
    let mut altered = sign(&b);
    altered.text = altered.text.replace("\"version\": \"0.1.0\"", "\"version\": \"0.2.0\"");
    let wrong = Err(Refused::WrongSignature("builder.example/b".into()));
    assert_eq!(agree(&[sign(&a), altered], &known), wrong);
    let mut twice = sign(&a);
    twice.signatures.push(twice.signatures[0].clone());
    assert_eq!(agree(&[twice, sign(&b)], &known), Err(Refused::Repeated("builder.example/a".into())));

    // Signed with the right key, and something else than a statement in the one form that there is.
    let text = &good[0].text;
    for (text, expected) in [
        ("log.example/cloister\n1\nAAAA\n".to_owned(), NotAStatement::Label),
        (text.replace("  ", " "), NotAStatement::NotCanonical),
        (
            text.replacen("\n{", &format!("\n{{\"previous\":\"{}\",", "00".repeat(32)), 1),
            NotAStatement::Previous,
        ),
    ] {
        let found = agree(&[Note::sign(text, &a).unwrap(), sign(&b)], &known);
        assert_eq!(found, Err(Refused::Statement { builder: "builder.example/a".into(), source: expected }));
    }

    // Every field counts, and the message names it.
    let changed = |change: fn(&mut Entry)| {
        let mut other = entry.clone();
        change(&mut other);
        match agree(&[sign(&a), statement::sign(&other, &b).unwrap()], &known) {
            Err(refused @ Refused::Disagree { .. }) => refused.to_string(),
            other => panic!("{other:?}"),
        }
    };
    fn image(entry: &mut Entry) -> &mut transparency::entry::Image {
        let Subject::Image(image) = &mut entry.subject else { unreachable!() };
        image
    }
    for (message, field) in [
        (changed(|e| e.role = common::name("front")), "role: guest and front"),
        (changed(|e| image(e).source_commit = vec![8; 20]), "source_commit: 0707"),
        (changed(|e| image(e).manifest_digest[0] ^= 1), "manifest_digest"),
        (changed(|e| image(e).launches[0].digest[47] ^= 1), "launches[rom, 1 vCPUs, EPYC-Genoa].digest"),
        (changed(|e| image(e).files[0].size += 1), "files[cloister.rom].size: 1048576 and 1048577"),
    ] {
        assert!(message.contains(field), "{field} in: {message}");
        assert!(message.contains("builder.example/a and builder.example/b disagree"), "{message}");
    }
}

#[test]
fn d5_builders_who_are_one_or_would_count_twice_are_refused() {
    let (_, [a, b, c]) = three();
    let parse = |threshold, keys: &[SignerKey]| Builders::parse(&builders(threshold, keys)).unwrap_err();
    let renamed = SignerKey::from_seed("other.example", Algorithm::Ed25519, [1; 32]).unwrap();
    let same_name = SignerKey::from_seed("builder.example/a", Algorithm::Ed25519, [9; 32]).unwrap();
    let cosigner = SignerKey::from_seed("w", Algorithm::CosignatureEd25519, [7; 32]).unwrap();
    let [x, y] = [1, 4].map(|threshold| BuildersError::Threshold { threshold, builders: 3 });
    let (_, keys) = three();
    assert_eq!([parse(1, &keys), parse(4, &keys)], [x, y]);
    assert_eq!(parse(2, &[a, renamed]), BuildersError::Repeated("other.example".into()));
    let (_, [a, ..]) = three();
    assert_eq!(parse(2, &[a, same_name]), BuildersError::Repeated("builder.example/a".into()));
    assert_eq!(parse(2, &[b, c, cosigner]), BuildersError::Algorithm("w".into()));
    assert!(matches!(Builders::parse("threshold = 2\nkeys = []\n"), Err(BuildersError::Format(_))));
}

#[test]
fn d5_an_entry_is_compared_field_by_field_with_what_is_rebuilt() {
    let folder = folder();
    let out = |name: &str| fs::read(folder.path().join("out").join(name)).unwrap();
    let rebuilt = Rebuilt {
        rom: out("cloister.rom"),
        igvm: out("cloister.igvm"),
        digests: String::from_utf8(out("digests.json")).unwrap(),
        kernel: Vec::new(),
    };
    let statement = vouch(folder.path(), "a", "out", &["--vcpus", "4"]);
    let note = Note::parse(&fs::read(folder.path().join(statement)).unwrap()).unwrap();
    let mut entry = statement::entry_of(&note).unwrap();
    entry.previous = Some([1; 32]);
    let commit = hex::decode(COMMIT).unwrap();
    for commit in [None, Some(commit.as_slice())] {
        let (comparison, others) = logged::compare(&rebuilt, &entry, commit).unwrap();
        assert_eq!((comparison.to_string().as_str(), others), ("identical\n", Vec::new()));
    }

    let named = |change: &dyn Fn(&mut transparency::entry::Image)| {
        let mut entry = entry.clone();
        let Subject::Image(image) = &mut entry.subject else { panic!() };
        change(image);
        let (comparison, _) = logged::compare(&rebuilt, &entry, Some(&commit)).unwrap();
        assert!(!comparison.identical);
        comparison.to_string()
    };
    for (said, part) in [
        (named(&|image| image.launches[0].digest[0] ^= 1), "+subject.image.launches[igvm, 2 vCPUs"),
        (named(&|image| image.launches[0].cpu_type = common::name("EPYC-Nova")), "EPYC-Nova"),
        (named(&|image| image.weights_root[0] ^= 1), "-subject.image.weights_root"),
        (named(&|image| image.source_commit[0] ^= 1), "+subject.image.source_commit"),
        (named(&|image| image.files[1].sha384[0] ^= 1), "files[cloister.rom].sha384"),
    ] {
        assert!(said.contains(part), "{part} in: {said}");
    }
    assert!(logged::compare(&rebuilt, &common::ohttp_key(1), None).is_err());
}
