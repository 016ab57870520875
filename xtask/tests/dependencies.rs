//! The rules for dependencies can be broken: each kind of offence is reported.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use xtask::{advisories, build, deny};

/// A folder of advisories, and what cargo-deny says of our dependencies with it.
fn judged(name: &str, more: &[(&str, &str)], change: impl FnOnce(String) -> String) -> (bool, String) {
    let folder: PathBuf = build::target().unwrap().join("tools").join(name);
    advisories::lay_out(&folder, more).unwrap();
    let output = deny::check(&folder, change).unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn e6_a_vulnerable_version_an_unknown_licence_and_another_source_are_reported() {
    // The next vulnerability in a crate that the guest holds.
    let advisory = "```toml\n[advisory]\nid = \"RUSTSEC-2026-9999\"\npackage = \"sha2\"\ndate = \"2026-11-01\"\n\
                    [versions]\npatched = [\">= 99.0.0\"]\n```\n\n# An invented one";
    let (passed, said) =
        judged("deny-vulnerable", &[("crates/sha2/RUSTSEC-2026-9999.md", advisory)], |rules| rules);
    assert!(!passed && said.contains("RUSTSEC-2026-9999") && said.contains("sha2"), "{said}");
    // The same, of versions that are not ours.
    let other = advisory.replace(">= 99.0.0", ">= 0.0.1");
    let (passed, said) =
        judged("deny-patched", &[("crates/sha2/RUSTSEC-2026-9999.md", &other)], |rules| rules);
    assert!(passed, "{said}");

    let fewer = |rules: String| rules.replace("\"0BSD\",", "");
    let (passed, said) = judged("deny-licence", &[], fewer);
    assert!(!passed && said.contains("smoltcp"), "{said}");
    let elsewhere = |rules: String| {
        rules.replace("https://github.com/rust-lang/crates.io-index", "https://crates.example")
    };
    let (passed, said) = judged("deny-source", &[], elsewhere);
    assert!(!passed && said.contains("source-not-allowed"), "{said}");
}
