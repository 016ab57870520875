//! Evidence in TLS certificates, and fresh evidence after the handshake. The certificates are made by rcgen, another
//! implementation of X.509.

mod common;

use attestation::{
    batch,
    evidence::{self, CertificateEvidence, EvidenceError, FreshEvidence},
    report_data,
    verifier::{
        CertificateProblem, Check, Policy, Role, Verdict, VerifyError, verify_certificate, verify_fresh,
    },
};
use common::{CHAIN, MANIFEST_DIGEST, now, policy};
use der::asn1::ObjectIdentifier;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519, PublicKeyData, SignatureAlgorithm, date_time_ymd,
};

const ID_PE_CMW: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 35];
const NONCE: [u8; 32] = [3; 32];
const EXPORTER: [u8; 32] = [4; 32];

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).unwrap()
}

fn evidence_for(spki: &[u8]) -> CertificateEvidence {
    let report = common::report(&report_data::certificate(spki, &MANIFEST_DIGEST));
    CertificateEvidence { report: report.to_vec(), certificates: CHAIN.certificate_table() }
}

fn extension(evidence: &CertificateEvidence) -> CustomExtension {
    CustomExtension::from_oid_content(ID_PE_CMW, evidence.to_extension())
}

fn certificate_with(key: &KeyPair, extensions: Vec<CustomExtension>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.custom_extensions = extensions;
    params.self_signed(key).unwrap().der().to_vec()
}

/// An honest certificate.
fn certificate(key: &KeyPair) -> Vec<u8> {
    certificate_with(key, vec![extension(&evidence_for(&key.subject_public_key_info()))])
}

fn verify(certificate: &[u8]) -> Result<Verdict, VerifyError> {
    verify_certificate(certificate, &policy(), now())
}

fn problem(problem: CertificateProblem) -> Result<Verdict, VerifyError> {
    Err(VerifyError::Certificate { role: Role::Tls, problem })
}

#[test]
fn an_honest_certificate_is_accepted() {
    let verdict = verify(&certificate(&key())).unwrap();
    assert_eq!(verdict.checked.first(), Some(&Check::Certificate));
    assert_eq!(verdict.checked.last(), Some(&Check::CertificateBinding));
}

#[test]
fn b5_a_certificate_without_evidence_is_refused() {
    assert_eq!(verify(&certificate_with(&key(), vec![])), Err(VerifyError::NoEvidence));
}

#[test]
fn b5_evidence_must_be_there_once() {
    let key = key();
    let evidence = extension(&evidence_for(&key.subject_public_key_info()));
    let twice = certificate_with(&key, vec![evidence.clone(), evidence]);
    let repeated =
        CertificateProblem::RepeatedExtension(ObjectIdentifier::from_bytes(&evidence::ID_PE_CMW).unwrap());
    assert_eq!(verify(&twice), problem(repeated));
}

#[test]
fn b5_a_certificate_altered_anywhere_is_refused() {
    let good = certificate(&key());
    for at in (0..good.len()).step_by(7).chain(good.len() - 110..good.len()) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(verify(&bad).is_err(), "byte {at}");
    }
    for length in (0..good.len()).step_by(97) {
        assert_eq!(verify(&good[..length]), problem(CertificateProblem::Malformed), "cut to {length}");
    }
    assert_eq!(verify(&[&good[..], &[0]].concat()), problem(CertificateProblem::Malformed));
    assert_eq!(verify(&vec![0x30; 100_000]), problem(CertificateProblem::TooLong(100_000)));
}

#[test]
fn b5_a_certificate_that_another_key_signed_is_refused() {
    struct Foreign<'a>(&'a KeyPair, KeyPair);
    impl PublicKeyData for Foreign<'_> {
        fn der_bytes(&self) -> &[u8] {
            self.0.der_bytes()
        }
        fn algorithm(&self) -> &'static SignatureAlgorithm {
            &PKCS_ED25519
        }
    }
    impl rcgen::SigningKey for Foreign<'_> {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
            rcgen::SigningKey::sign(&self.1, message)
        }
    }
    let victim = key();
    let mut params = CertificateParams::default();
    params.custom_extensions = vec![extension(&evidence_for(&victim.subject_public_key_info()))];
    let forged = params.self_signed(&Foreign(&victim, key())).unwrap();
    assert_eq!(verify(forged.der()), problem(CertificateProblem::Signature));
}

#[test]
fn b5_other_key_types_are_refused() {
    let p256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    assert_eq!(verify(&certificate(&p256)), problem(CertificateProblem::Algorithm));
}

#[test]
fn b5_critical_extensions_that_are_not_understood_are_refused() {
    let key = key();
    let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    unknown.set_criticality(true);
    let evidence = extension(&evidence_for(&key.subject_public_key_info()));
    let result = verify(&certificate_with(&key, vec![unknown, evidence]));
    assert!(
        matches!(
            result,
            Err(VerifyError::Certificate { problem: CertificateProblem::CriticalExtension(_), .. })
        ),
        "{result:?}"
    );
}

#[test]
fn b5_evidence_that_is_huge_or_nested_is_refused() {
    let key = key();
    let with_evidence = |value: Vec<u8>| {
        verify(&certificate_with(&key, vec![CustomExtension::from_oid_content(ID_PE_CMW, value)]))
    };
    assert_eq!(
        with_evidence(vec![0; evidence::MAX_ENCODED + 1]),
        Err(VerifyError::Evidence(EvidenceError::TooLong))
    );
    // A million nested arrays are 0x81 bytes; a few thousand fit.
    let nested = [&[0x04, 0x82, 0x40, 0x00][..], &[0x81; 0x4000]].concat();
    assert_eq!(with_evidence(nested), Err(VerifyError::Evidence(EvidenceError::Malformed)));
}

#[test]
fn b1_evidence_for_another_key_is_refused() {
    let (mine, theirs) = (key(), key());
    let relayed = certificate_with(&mine, vec![extension(&evidence_for(&theirs.subject_public_key_info()))]);
    assert_eq!(verify(&relayed), Err(VerifyError::CertificateBinding));
}

#[test]
fn b7_evidence_for_another_manifest_is_refused() {
    let mut manifest = MANIFEST_DIGEST;
    manifest[0] ^= 1;
    let policy = Policy::accepting(common::image(common::LAUNCH_DIGEST, manifest).into())
        .with_development_root(CHAIN.ark_der());
    let result = verify_certificate(&certificate(&key()), &policy, now());
    assert_eq!(result, Err(VerifyError::CertificateBinding));
}

#[test]
fn b9_expired_and_future_certificates_are_refused() {
    let key = key();
    let dated = |from, until| {
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        params.custom_extensions = vec![extension(&evidence_for(&key.subject_public_key_info()))];
        verify(params.self_signed(&key).unwrap().der())
    };
    assert!(dated(2026, 2027).is_ok());
    for (from, until) in [(2024, 2025), (2027, 2028)] {
        let result = dated(from, until);
        assert!(matches!(result, Err(VerifyError::Certificate { role: Role::Tls, .. })), "{result:?}");
    }
}

#[test]
fn a_certificate_may_say_that_it_is_no_authority() {
    let key = key();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.custom_extensions = vec![extension(&evidence_for(&key.subject_public_key_info()))];
    assert!(verify(params.self_signed(&key).unwrap().der()).is_ok());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert!(verify(params.self_signed(&key).unwrap().der()).is_ok());
}

/// Fresh evidence for the client at `index` of a batch of `count`.
fn fresh(certificate_key: &KeyPair, index: usize, count: usize) -> FreshEvidence {
    let leaves: Vec<batch::Node> = (0..count)
        .map(|i| {
            let nonce = if i == index { NONCE } else { [100 + i as u8; 32] };
            report_data::fresh(
                &nonce,
                &certificate_key.subject_public_key_info(),
                &EXPORTER,
                &MANIFEST_DIGEST,
            )
        })
        .collect();
    FreshEvidence {
        report: common::report(&batch::root(&leaves)).to_vec(),
        certificates: CHAIN.certificate_table(),
        index: index as u32,
        path: batch::Tree::new(&leaves).path(index).unwrap(),
    }
}

#[test]
fn fresh_evidence_is_accepted_alone_and_in_a_batch() {
    let key = key();
    let certificate = certificate(&key);
    for (index, count) in [(0, 1), (0, 2), (1, 2), (4, 5)] {
        let evidence = fresh(&key, index, count).encode();
        let verdict = verify_fresh(&evidence, &NONCE, &certificate, &EXPORTER, &policy(), now()).unwrap();
        assert_eq!(verdict.checked.last(), Some(&Check::FreshBinding));
    }
}

#[test]
fn b1_fresh_evidence_is_for_one_nonce_key_and_connection() {
    let key = key();
    let certificate = certificate(&key);
    let evidence = fresh(&key, 1, 3);
    let verify = |evidence: &FreshEvidence, nonce: &[u8; 32], certificate: &[u8], exporter: &[u8; 32]| {
        verify_fresh(&evidence.encode(), nonce, certificate, exporter, &policy(), now())
    };
    assert!(verify(&evidence, &NONCE, &certificate, &EXPORTER).is_ok());

    let refused = Err(VerifyError::FreshBinding);
    assert_eq!(verify(&evidence, &[9; 32], &certificate, &EXPORTER), refused, "replayed to another nonce");
    assert_eq!(verify(&evidence, &NONCE, &certificate, &[9; 32]), refused, "relayed from another connection");
    let other = self::certificate(&self::key());
    assert_eq!(verify(&evidence, &NONCE, &other, &EXPORTER), refused, "of another TLS key");
    let place = FreshEvidence { index: 0, ..evidence.clone() };
    assert_eq!(verify(&place, &NONCE, &certificate, &EXPORTER), refused, "at another place of the batch");
    let beyond = FreshEvidence { index: 1 << 16, ..evidence.clone() };
    assert_eq!(verify(&beyond, &NONCE, &certificate, &EXPORTER), refused, "beyond the batch");
    let short = FreshEvidence { path: evidence.path[..1].to_vec(), ..evidence.clone() };
    assert_eq!(verify(&short, &NONCE, &certificate, &EXPORTER), refused, "with a shorter path");

    // The report in the certificate, offered as if it were fresh: the cached report of a stolen TLS key.
    let cached = evidence_for(&key.subject_public_key_info());
    let cached = FreshEvidence {
        report: cached.report,
        certificates: cached.certificates,
        index: 0,
        path: Vec::new(),
    };
    assert_eq!(verify(&cached, &NONCE, &certificate, &EXPORTER), refused, "cached");
}

#[test]
fn b12_fresh_evidence_of_every_wrong_shape_is_refused() {
    let key = key();
    let certificate = certificate(&key);
    let good = fresh(&key, 0, 1).encode();
    let verify = |evidence: &[u8]| verify_fresh(evidence, &NONCE, &certificate, &EXPORTER, &policy(), now());
    assert!(verify(&good).is_ok());
    for length in (0..good.len()).step_by(61) {
        assert!(verify(&good[..length]).is_err(), "cut to {length}");
    }
    assert!(verify(&[&good[..], &[0]].concat()).is_err());
    assert!(verify(&vec![0xA2; 1 << 20]).is_err());
    let in_certificate = evidence_for(&key.subject_public_key_info()).encode();
    assert_eq!(verify(&in_certificate), Err(VerifyError::Evidence(EvidenceError::Malformed)));
}
