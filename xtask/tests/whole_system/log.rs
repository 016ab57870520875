//! The log, from the image to the client: published, proven, attached by the host, handed on by the guest, checked.

use crate::fixture::{Fixture, cloister, failure};
use std::process::Output;
use xtask::build;
use xtask::log::Log;

#[test]
fn d3_the_guest_hands_on_a_proof_that_the_client_checks() {
    let fixture = Fixture::get();
    let folder = build::target().unwrap().join("whole-system/log");
    // Three witnesses, each with Ed25519 and ML-DSA-44: what a client should ask for today.
    let log = Log::with_witnesses(&folder, 3).unwrap();
    let proof = log.publish(&fixture.folder).unwrap();
    let (guest, pinned) = fixture.boot(&["--proof", proof.to_str().unwrap()]);
    let verify = |policy: &std::path::Path, more: &[&str]| -> Output {
        let policy = policy.to_str().unwrap();
        cloister(&[&["verify", "--server", &guest.server(), "--policy", policy, "--json"], more].concat())
    };
    let json = |output: &Output| -> serde_json::Value { serde_json::from_slice(&output.stdout).unwrap() };

    let policy = log.policy("0.1.0", &fixture.root()).unwrap();
    let good = verify(&policy, &[]);
    assert!(good.status.success(), "{}", failure(&good).1);
    let evidence = &json(&good)["evidence"];
    assert_eq!(evidence["log"]["witnesses"].as_array().unwrap().len(), 3, "{evidence}");
    assert_eq!(evidence["checked"][0], "transparency log");
    assert_eq!(evidence["relaxed"].as_array().unwrap().len(), 2, "{evidence}");
    // A pinned image is accepted where the policy says so, and every verdict repeats it.
    let relaxed = json(&verify(&pinned, &[]))["evidence"]["relaxed"].to_string();
    assert!(relaxed.contains("pinned-image"), "{relaxed}");

    // A rollback, and a revoked image: the newer proof is the operator's to give, and the log's word to refuse it.
    let newer = log.policy("9.0.0", &fixture.root()).unwrap();
    let (code, error) = failure(&verify(&newer, &[]));
    assert!(code == 6 && error.contains("older than 9.0.0"), "{error}");
    let policy = log.policy("0.1.0", &fixture.root()).unwrap();
    let leaf = evidence["log"]["leaf"].as_str().unwrap();
    let revoked = log.command(&["revoke", "--leaf", leaf]).unwrap().status().unwrap();
    assert!(revoked.success());
    let fresh = folder.join("fresh.tlog-proof");
    let words = ["prove", "--name", "cloister", "--out", fresh.to_str().unwrap()];
    assert!(log.command(&words).unwrap().status().unwrap().success());
    let (code, error) = failure(&verify(&policy, &["--proof", fresh.to_str().unwrap()]));
    assert!(code == 6 && error.contains("revoked"), "{error}");
}
