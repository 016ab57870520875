//! The policy file: everything that could weaken it by accident is refused.

mod common;

use attestation::verifier::{
    ChipId, Digest, NonEmpty, Policy, PolicyError, PolicyFile, ProductKey, Relaxation,
};
use attestation::{
    report::Product,
    verifier::{MinimumTcb, verify_unbound},
};
use common::{CHAIN, now};
use std::{fs, path::Path};

fn digest(byte: u8) -> String {
    hex::encode([byte; 48])
}

fn image(launch_digests: &str) -> String {
    let manifest = digest(0xB2);
    format!(
        "[[image]]\nname = \"cloister\"\nversion = \"0.1.0\"\nmodel = \"cloister-mini.gguf\"\n\
         manifest_digest = \"{manifest}\"\nlaunch_digests = {launch_digests}\n"
    )
}

fn accepted_image() -> String {
    image(&format!("[\"{}\"]", digest(0xA1)))
}

fn refusal(text: &str) -> String {
    PolicyFile::from_toml(text).expect_err(text).to_string()
}

#[test]
fn the_smallest_policy_lists_one_image_and_relaxes_nothing() {
    let file = PolicyFile::from_toml(&accepted_image()).unwrap();
    let image = common::image(common::LAUNCH_DIGEST, common::MANIFEST_DIGEST);
    assert_eq!(file, PolicyFile { relax: Vec::new(), ..PolicyFile::pinning(NonEmpty::from(image)) });
}

#[test]
fn what_is_written_is_read() {
    let file = PolicyFile {
        development_root: Some("ark.pem".into()),
        chips: Some(NonEmpty::from(ChipId::try_from(hex::encode([3; 64])).unwrap())),
        id_keys: vec![Digest::try_from([4; 48]).unwrap()],
        certificates: vec!["vcek.pem".into()],
        revocation_lists: vec!["crl.pem".into()],
        relax: Relaxation::ALL.to_vec(),
        minimum_tcb: [(
            ProductKey(Product::Turin),
            MinimumTcb { fmc: 1, boot_loader: 2, tee: 3, snp: 4, microcode: 5 },
        )]
        .into(),
        ..PolicyFile::from_toml(&accepted_image()).unwrap()
    };
    let text = file.to_toml().unwrap();
    assert_eq!(PolicyFile::from_toml(&text).unwrap(), file, "{text}");
    for relaxation in Relaxation::ALL {
        assert!(text.contains(&format!("\"{relaxation}\"")), "{relaxation} is not its name in the file");
    }
}

#[test]
fn b7_nothing_expected_cannot_be_said() {
    for text in [
        image("[]"),
        image("[\"\"]"),
        image(&format!("[\"{}\"]", digest(0))),
        image(&format!("[\"{}\"]", &digest(0xA1)[2..])),
        image(&format!("[\"{}00\"]", digest(0xA1))),
        image(&format!("[\"{}zz\"]", &digest(0xA1)[2..])),
        accepted_image().replace(&digest(0xB2), &digest(0)),
        accepted_image().replace(&digest(0xB2), ""),
        format!("chips = []\n{}", accepted_image()),
        format!("chips = [\"{}\"]\n{}", "00".repeat(64), accepted_image()),
        format!("chips = [\"{}\"]\n{}", "ab".repeat(9), accepted_image()),
    ] {
        refusal(&text);
    }
    for nothing in ["", "image = []"] {
        let loaded = PolicyFile::from_toml(nothing).unwrap().load(Path::new("."));
        assert!(matches!(loaded, Err(PolicyError::NoImage)), "{nothing}");
    }
}

#[test]
fn d3_a_pinned_image_is_accepted_only_where_the_policy_says_that_it_does_without_a_log() {
    let file = PolicyFile::from_toml(&accepted_image()).unwrap();
    assert!(matches!(file.clone().load(Path::new(".")), Err(PolicyError::Pinned)));
    assert!(matches!(file.terms(Path::new(".")), Err(PolicyError::Pinned)));
    let file = PolicyFile::from_toml(&format!("relax = [\"pinned-image\"]\n{}", accepted_image())).unwrap();
    let policy = file.load(Path::new(".")).unwrap().with_development_root(CHAIN.ark_der());
    let verdict =
        verify_unbound(&common::report(&[1; 64]), &CHAIN.certificate_table(), &policy, now()).unwrap();
    assert!(verdict.to_string().contains("relaxed: pinned-image"), "{verdict}");
}

#[test]
fn b12_unknown_keys_products_and_relaxations_are_refused() {
    let image = accepted_image();
    for line in ["chip = []", "relax = [\"debug\"]", "relax = [\"everything\"]", "vmpl = 1"] {
        let reason = refusal(&format!("{line}\n{image}"));
        assert!(reason.contains("unknown"), "{reason}");
    }
    for table in [
        "[minimum_tcb.Rome]\nboot_loader = 1\ntee = 0\nsnp = 1\nmicrocode = 1",
        "[minimum_tcb.Genoa]\nboot_loader = 1\ntee = 0\nsnp = 1\nucode = 1",
        "[minimum_tcb.Genoa]\nboot_loader = 1\ntee = 0\nsnp = 1",
        "[minimum_tcb.Genoa]\nboot_loader = 1\ntee = 0\nsnp = 256\nmicrocode = 1",
    ] {
        refusal(&format!("{image}{table}\n"));
    }
}

#[test]
fn named_files_are_found_beside_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    CHAIN.save(&folder.path().join("chain")).unwrap();
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    let list = CHAIN.revocation_list(false, now() - day, now() + day).unwrap();
    fs::write(folder.path().join("crl.der"), list).unwrap();
    let path = folder.path().join("policy.toml");
    let text = format!(
        "relax = [\"pinned-image\"]\ndevelopment_root = \"chain/ark.pem\"\ncertificates = [\"chain/vcek.pem\", \"chain/ask.pem\"]\n\
         revocation_lists = [\"crl.der\"]\n{}",
        accepted_image()
    );
    fs::write(&path, text).unwrap();
    let policy = Policy::from_file(&path).unwrap();
    assert_eq!(policy.images()[0].name, "cloister");
    // The policy's certificates stand in for the host's.
    assert!(verify_unbound(&common::report(&[1; 64]), &[], &policy, now()).is_ok());
}

#[test]
fn b12_files_that_are_missing_or_something_else_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert!(matches!(Policy::from_file(&folder.join("none.toml")), Err(PolicyError::Read { .. })));

    CHAIN.save(folder).unwrap();
    let two = CHAIN.ark_pem().unwrap().repeat(2);
    fs::write(folder.join("two.pem"), two).unwrap();
    fs::write(folder.join("text.pem"), "no certificate").unwrap();
    fs::write(folder.join("empty.pem"), "-----BEGIN NOTHING-----\n").unwrap();
    let load = |line: &str, folder: &Path| {
        PolicyFile::from_toml(&format!("{line}\nrelax = [\"pinned-image\"]\n{}", accepted_image()))
            .unwrap()
            .load(folder)
    };
    for (line, file) in [
        ("development_root = \"gone.pem\"", "gone.pem"),
        ("development_root = \"two.pem\"", "two.pem"),
        ("development_root = \"empty.pem\"", "empty.pem"),
        ("development_root = \"ark.key.pem\"", "ark.key.pem"),
        ("certificates = [\"text.pem\"]", "text.pem"),
        ("certificates = [\"vcek.key.pem\"]", "vcek.key.pem"),
        ("revocation_lists = [\"ark.pem\"]", "ark.pem"),
        ("revocation_lists = [\"text.pem\"]", "text.pem"),
    ] {
        let reason = load(line, folder).expect_err(line).to_string();
        assert!(reason.contains(file), "{line}: {reason}");
    }
    assert!(load("development_root = \"ark.pem\"", folder).is_ok());
}
