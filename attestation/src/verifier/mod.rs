//! Appraisal of evidence: may this client trust the guest at the other end?
//!
//! [`verify_certificate`] decides during the TLS handshake, [`verify_fresh`] right after it and before the first byte
//! of a request: a cached report and a stolen TLS key pass the first, but not the second (REQUIREMENTS B1). Both take
//! the caller's clock. Either everything holds and there is a [`Verdict`], or there is one [`VerifyError`] that says
//! what happened, why, and what to do; there is no third outcome.

mod appraisal;
mod certificate;
mod chain;
mod error;
mod expected;
mod policy;
mod policy_file;
mod relaxation;
mod revocation;
mod roots;
mod verdict;

pub use chain::Root;
pub use error::{CertificateProblem, RevocationProblem, Role, TcbKind, VerifyError, Weakness};
pub use expected::{ChipId, Digest, Empty, Image, NonEmpty, NotHex};
pub use policy::{Policy, Terms};
pub use policy_file::{MinimumTcb, PolicyError, PolicyFile, ProductKey};
pub use relaxation::Relaxation;
pub use verdict::{Check, Relaxed, Verdict};

use crate::{
    batch, certificate_table,
    evidence::{CertificateEvidence, FreshEvidence},
    report::Report,
    report_data::{self, Exporter, Nonce},
};
use certificate::Certificate;
use std::time::{Duration, SystemTime};

/// Verifies a guest's TLS certificate, given in DER, and the evidence in it.
///
/// The certificate must be signed by its own P-384 key and hold one evidence extension, whose report is bound to that
/// key and to the manifest of an image that the policy lists.
pub fn verify_certificate(
    certificate: &[u8],
    policy: &Policy,
    now: SystemTime,
) -> Result<Verdict, VerifyError> {
    let now = since_epoch(now)?;
    let certificate = Certificate::parse(Role::Tls, certificate)?;
    certificate.check_self_signed()?;
    certificate.check_dates(now)?;
    let extension = certificate.extension(certificate::ID_PE_CMW).ok_or(VerifyError::NoEvidence)?;
    let evidence = CertificateEvidence::from_extension(extension)?;

    let report = Report::parse(&evidence.report)?;
    let mut verdict = verify_report(&report, &evidence.certificates, policy, now)?;
    let manifest = verdict.image.manifest_digest.as_bytes();
    if report.report_data() != report_data::certificate(&certificate.spki_der()?, manifest) {
        return Err(VerifyError::CertificateBinding);
    }
    verdict.checked.insert(0, Check::Certificate);
    verdict.checked.push(Check::CertificateBinding);
    Ok(verdict)
}

/// The log's proof that the host attached to the evidence in a TLS certificate, in DER; `None` if there is none. It is the
/// host's word, as its certificates are, until it was checked.
pub fn stapled_proof(certificate: &[u8]) -> Result<Option<Vec<u8>>, VerifyError> {
    let certificate = Certificate::parse(Role::Tls, certificate)?;
    let extension = certificate.extension(certificate::ID_PE_CMW).ok_or(VerifyError::NoEvidence)?;
    let evidence = CertificateEvidence::from_extension(extension)?;
    let table = certificate_table::decode(&evidence.certificates)?;
    Ok(table.iter().find(|(guid, _)| *guid == certificate_table::PROOF).map(|(_, proof)| proof.to_vec()))
}

/// Verifies fresh evidence, as the guest sent it: it must be bound to `nonce`, to the key of `certificate` (the one of
/// this connection, in DER), to this connection's `exporter`, and to the manifest.
pub fn verify_fresh(
    evidence: &[u8],
    nonce: &Nonce,
    certificate: &[u8],
    exporter: &Exporter,
    policy: &Policy,
    now: SystemTime,
) -> Result<Verdict, VerifyError> {
    let now = since_epoch(now)?;
    let spki = Certificate::parse(Role::Tls, certificate)?.spki_der()?;
    let evidence = FreshEvidence::decode(evidence)?;

    let report = Report::parse(&evidence.report)?;
    let mut verdict = verify_report(&report, &evidence.certificates, policy, now)?;
    let leaf = report_data::fresh(nonce, &spki, exporter, verdict.image.manifest_digest.as_bytes());
    let root = batch::climb(&leaf, evidence.index, &evidence.path).ok_or(VerifyError::FreshBinding)?;
    if report.report_data() != root {
        return Err(VerifyError::FreshBinding);
    }
    verdict.checked.push(Check::FreshBinding);
    Ok(verdict)
}

/// Verifies a report and appraises it, but not what its `REPORT_DATA` is bound to: that is for the caller.
///
/// `certificates` is the host's certificate table and may be empty.
pub fn verify_unbound(
    report: &[u8],
    certificates: &[u8],
    policy: &Policy,
    now: SystemTime,
) -> Result<Verdict, VerifyError> {
    verify_report(&Report::parse(report)?, certificates, policy, since_epoch(now)?)
}

fn verify_report(
    report: &Report,
    certificates: &[u8],
    policy: &Policy,
    now: Duration,
) -> Result<Verdict, VerifyError> {
    let endorsed = chain::endorse(report, certificates, policy, now)?;
    let image = appraisal::appraise(report, &endorsed, policy)?;
    let launch_digest = report.measurement();
    let launch_digest =
        Digest::try_from(launch_digest).map_err(|_| VerifyError::LaunchDigest(hex::encode(launch_digest)))?;

    let mut checked = vec![Check::Chain, Check::Signature, Check::Platform, Check::Image];
    checked.extend([Check::MinimumTcb, Check::GuestPolicy]);
    let mut relaxed = Vec::new();
    if endorsed.root == Root::Development {
        relaxed.push(Relaxed::DevelopmentRoot);
    }
    relaxed.extend(appraisal::granted(policy).map(Relaxed::Granted));
    if policy.lowers_minimum_tcb(endorsed.product, report.cpuid()) {
        relaxed.push(Relaxed::MinimumTcb(endorsed.product));
    }
    if endorsed.revocation {
        checked.insert(1, Check::Revocation);
    } else {
        relaxed.push(Relaxed::NoRevocationList);
    }
    if policy.chips.is_some() {
        checked.push(Check::Chip);
    }
    Ok(Verdict {
        image: image.clone(),
        launch_digest,
        product: endorsed.product,
        chip_id: report.chip_id()[..endorsed.product.hardware_id_len()].to_vec(),
        tcb: endorsed.tcb,
        root: endorsed.root,
        checked,
        relaxed,
    })
}

fn since_epoch(now: SystemTime) -> Result<Duration, VerifyError> {
    now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| VerifyError::Clock)
}
