//! The TCB report of the image that this checkout builds, and the statements made of it.

use image_builder::checkout::Checkout;
use image_builder::dsse;
use image_builder::freestanding::Toolchain;
use image_builder::rom;
use image_builder::source::Source;
use image_builder::tcb::statements::{Artifact, Build, cyclonedx, provenance};
use image_builder::tcb::{self, Budget};
use image_builder::tools;
use std::fs;
use std::process::Command;
use transparency::key::{Algorithm, SignerKey};

#[test]
fn the_report_is_whole_within_its_budget_and_its_statements_please_their_judges() {
    let checkout = Checkout::find().unwrap();
    let report = tcb::report(&checkout).unwrap_or_else(|error| panic!("{error}"));

    // What every reader would look for first.
    for (name, own) in
        [("kernel", true), ("service", true), ("inference", true), ("rustls", false), ("sha2", false)]
    {
        let part = report.crates.iter().find(|part| part.name == name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!((part.own, part.sha256.is_none()), (own, own), "{name}");
        assert!(part.lines > 300 && part.bytes > 1000 && !part.why.is_empty(), "{part:?}");
    }
    // No bytes are counted twice or lost.
    let named: u64 = report.crates.iter().map(|part| part.bytes).sum::<u64>()
        + report.toolchain.iter().map(|part| part.bytes).sum::<u64>();
    let sections: u64 = report.sections.values().sum();
    assert_eq!(named + report.unnamed_bytes, sections);
    assert!(sections <= report.totals.image_bytes && named * 2 > sections, "{:?}", report.totals);
    // What only runs in the build is not in the image.
    assert!(report.build_packages.iter().any(|part| part.name == "semver"));
    assert!(!report.crates.iter().any(|part| part.name == "semver"));

    let budget = Budget::load(checkout.root()).unwrap();
    match Budget::before(checkout.root()).unwrap() {
        Some(before) => budget.follows(&before).unwrap_or_else(|error| panic!("{error}")),
        None => eprintln!("no older budget is at hand (a source archive, or a clone without history)"),
    }
    budget.check(&report.totals).unwrap_or_else(|error| panic!("{error}\n{:#?}", report.totals));

    let manifest = Source::load(&checkout.root().join("models/manifest.toml")).unwrap().manifest;
    let rom = rom::build(&report.kernel, &manifest).unwrap();
    let toolchain = Toolchain::of(&checkout).unwrap();
    let build = Build {
        repository: "git+https://git.example/cloister".into(),
        commit: "0123456789abcdef0123456789abcdef01234567".into(),
        builder: "https://builder.example/a".into(),
        rust: toolchain.version,
        rust_commit: toolchain.commit,
    };
    let folder = tempfile::tempdir().unwrap();
    let (sbom, statement) = (folder.path().join("sbom.json"), folder.path().join("provenance.json"));
    fs::write(&sbom, cyclonedx(&report, &manifest, &rom).to_string()).unwrap();
    let artifacts = [Artifact { name: "cloister.rom", bytes: &rom }];
    let made = provenance(&report, &artifacts, &build);
    fs::write(&statement, made.to_string()).unwrap();
    let key = SignerKey::generate("builder.example/a", Algorithm::Ed25519).unwrap();
    let envelope = folder.path().join("provenance.dsse.json");
    fs::write(&envelope, dsse::envelope(&made, &key).unwrap().to_string()).unwrap();
    let python = tools::statement_judges(&checkout).unwrap_or_else(|error| panic!("{error}"));
    let script = checkout.root().join("image-builder/tests/judge_statements.py");
    let judged = Command::new(python).arg(script).arg(&sbom).arg(&statement).arg(&envelope).output().unwrap();
    let said = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
    let expected = "CycloneDX 1.6: valid\nin-toto v1, SLSA v1: valid\nDSSE: valid, and not when altered\n";
    assert_eq!(said, expected);
}
