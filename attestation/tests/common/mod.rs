//! A development chain, reports that it signs, and a policy that accepts them.
#![allow(dead_code, reason = "each test binary uses its part")]

use attestation::{
    development::Chain,
    report::{self, GuestPolicy, PlatformInfo, SigningKey, offset},
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

/// What a platform would report of a guest launched as it should be; not signed yet.
pub fn unsigned_report(chain: &Chain, report_data: &[u8; 64]) -> [u8; report::LEN] {
    let endorsement = chain.endorsement();
    let tcb = endorsement.tcb.to_bytes(endorsement.product);
    let mut report = [0; report::LEN];
    let fields: [(usize, &[u8]); 18] = [
        (offset::VERSION, &5u32.to_le_bytes()),
        (offset::POLICY, &GuestPolicy::CLOISTER.0.to_le_bytes()),
        (offset::SIGNATURE_ALGO, &report::ECDSA_P384_SHA384.to_le_bytes()),
        (offset::CURRENT_TCB, &tcb),
        (offset::PLATFORM_INFO, &PlatformInfo::CLOISTER.0.to_le_bytes()),
        (offset::KEY_INFO, &report::key_info(false, SigningKey::Vcek).to_le_bytes()),
        (offset::REPORT_DATA, report_data),
        (offset::MEASUREMENT, &LAUNCH_DIGEST),
        (offset::REPORT_ID, &[0x77; 32]),
        (offset::REPORT_ID_MA, &[0xFF; 32]),
        (offset::REPORTED_TCB, &tcb),
        (offset::CPUID_FAMILY, &[0x19, 0x11, 0x00]),
        (offset::CHIP_ID, chain.chip_id()),
        (offset::COMMITTED_TCB, &tcb),
        (offset::CURRENT_VERSION, &[41, 55, 1]),
        (offset::COMMITTED_VERSION, &[41, 55, 1]),
        (offset::LAUNCH_TCB, &tcb),
        (offset::LAUNCH_MIT_VECTOR, &[0; 16]),
    ];
    for (at, bytes) in fields {
        report[at..at + bytes.len()].copy_from_slice(bytes);
    }
    report
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
    let mut report = unsigned_report(&CHAIN, report_data);
    alter(&mut report);
    CHAIN.sign(&mut report).unwrap();
    report
}
