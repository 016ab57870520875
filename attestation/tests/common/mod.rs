//! A development chain, reports that it signs, and a policy that accepts them.
#![allow(dead_code, reason = "each test binary uses its part")]

use attestation::{
    development::Chain,
    report,
    verifier::{Digest, Image, NonEmpty, Policy},
};
use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

/// 20 February 2026: every real certificate but the older ones is valid.
pub const FEBRUARY_2026: Duration = Duration::from_secs(1_771_545_600);

pub const LAUNCH_DIGEST: [u8; 48] = [0xA1; 48];
pub const MANIFEST_DIGEST: [u8; 48] = [0xB2; 48];

pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + FEBRUARY_2026
}

/// One chain for all tests of a binary: RSA keys take their time.
pub static CHAIN: LazyLock<Chain> = LazyLock::new(|| Chain::generate(now()).unwrap());

pub fn image(launch_digest: [u8; 48], manifest_digest: [u8; 48]) -> Image {
    Image {
        name: "cloister".into(),
        version: "0.1.0".into(),
        model: "cloister-mini.gguf".into(),
        manifest_digest: Digest::try_from(manifest_digest).unwrap(),
        launch_digests: NonEmpty::from(Digest::try_from(launch_digest).unwrap()),
    }
}

/// Accepts the test image on the development chain, with no relaxation.
pub fn policy() -> Policy {
    Policy::accepting(NonEmpty::from(image(LAUNCH_DIGEST, MANIFEST_DIGEST)))
        .with_development_root(CHAIN.ark_der())
}

/// An honest, signed report.
pub fn report(report_data: &[u8; 64]) -> [u8; report::LEN] {
    altered_report(report_data, |_| {})
}

/// A report that the platform signed after something in it was altered.
pub fn altered_report(
    report_data: &[u8; 64],
    alter: impl FnOnce(&mut [u8; report::LEN]),
) -> [u8; report::LEN] {
    let mut report = CHAIN.unsigned_report(report_data, &LAUNCH_DIGEST);
    alter(&mut report);
    CHAIN.sign(&mut report).unwrap();
    report
}
