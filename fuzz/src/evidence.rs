//! What a client reads from a guest that it does not trust yet: evidence and certificates.

use attestation::certificate_table;
use attestation::evidence::{CertificateEvidence, FreshEvidence};
use attestation::report::Report;
use attestation::verifier::{
    Digest, Image, Policy, stapled_proof, verify_certificate, verify_fresh, verify_unbound,
};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// A report of a chip, version 5, and the key certificate of the chip (attestation/tests/data/README.md).
const REPORT: &[u8] = include_bytes!("../../attestation/tests/data/genoa-v5.report");
const VCEK: &[u8] = include_bytes!("../../attestation/tests/data/genoa-v5.vcek.der");

/// Accepts one image, which nobody has.
fn policy() -> &'static Policy {
    static POLICY: OnceLock<Policy> = OnceLock::new();
    POLICY.get_or_init(|| {
        let digest = |byte| Digest::try_from([byte; 48]).expect("not zero");
        Policy::accepting(
            Image {
                name: "cloister".into(),
                version: "1.0.0".into(),
                model: "mini".into(),
                manifest_digest: digest(1),
                launch_digests: digest(2).into(),
            }
            .into(),
        )
    })
}

/// The time of the checks, which is the same in every run: in November 2026.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000)
}

fn report(bytes: &[u8]) {
    let Ok(report) = Report::parse(bytes) else { return };
    let _ = (report.policy(), report.platform_info(), report.cpuid(), report.signature());
    let _ = (report.reported_tcb(), report.chip_id(), report.current_version());
}

/// Evidence in a certificate, fresh evidence, and the report in either.
pub fn evidence(data: &[u8]) {
    report(data);
    if let Ok(evidence) = CertificateEvidence::decode(data) {
        assert_eq!(CertificateEvidence::decode(&evidence.encode()), Ok(evidence.clone()));
        assert_eq!(CertificateEvidence::from_extension(&evidence.to_extension()), Ok(evidence.clone()));
        report(&evidence.report);
        assert!(
            verify_unbound(&evidence.report, &evidence.certificates, policy(), now()).is_err(),
            "evidence of another image was accepted"
        );
    }
    if let Ok(evidence) = FreshEvidence::decode(data) {
        assert_eq!(FreshEvidence::decode(&evidence.encode()), Ok(evidence));
        assert!(verify_fresh(data, &[0; 32], VCEK, &[0; 32], policy(), now()).is_err());
    }
}

/// A certificate in DER, as a guest's and as one of the chip's.
pub fn certificate(data: &[u8]) {
    let _ = stapled_proof(data);
    assert!(verify_certificate(data, policy(), now()).is_err(), "a guest's certificate without evidence");
    let table = certificate_table::encode(&[(certificate_table::VCEK, data)]);
    assert!(verify_unbound(REPORT, &table, policy(), now()).is_err(), "another image was accepted");
}

/// Evidence of a real report.
pub fn evidence_seeds() -> Vec<Vec<u8>> {
    let report = REPORT.to_vec();
    let certificates = certificate_table::encode(&[(certificate_table::VCEK, VCEK)]);
    let fresh = |index, path| FreshEvidence { report: REPORT.to_vec(), certificates: vec![], index, path };
    vec![
        REPORT.to_vec(),
        CertificateEvidence { report: report.clone(), certificates: vec![] }.encode(),
        CertificateEvidence { report, certificates }.encode(),
        fresh(0, vec![]).encode(),
        fresh(2, vec![[7; 64]; 3]).encode(),
    ]
}

/// Certificates of chips.
pub fn certificate_seeds() -> Vec<Vec<u8>> {
    vec![
        VCEK.to_vec(),
        include_bytes!("../../attestation/tests/data/milan-v3-vlek.vlek.der").to_vec(),
        include_bytes!("../../attestation/tests/data/turin-v5.vcek.der").to_vec(),
    ]
}
