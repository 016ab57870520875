//! The guest's identity: a key made in the guest and a certificate that carries the AMD-SP's report about it.
//!
//! The certificate is self-signed X.509 v3, Ed25519. Its `id-pe-cmw` extension holds
//! [`CertificateEvidence`]; `report_data` binds the key and the measured manifest.
//!
//! Validity: the guest has no clock that it may trust (REQUIREMENTS A14), so the certificate claims none. It has the
//! fixed `notBefore` below and RFC 5280 §4.1.2.5's "no well-defined expiration date". How recent an identity is, a
//! client learns from the evidence that answers its nonce, and an identity is replaced after so many connections or
//! so much time, whichever comes first.

use crate::platform::{AttestError, Platform};
use crate::tls::{SigningKey, Tls};
use alloc::sync::Arc;
use attestation::evidence::{CertificateEvidence, ID_PE_CMW};
use attestation::manifest::ManifestDigest;
use attestation::report_data;
use attestation::tlv::{self, write};
use rustls::ServerConfig;
use rustls::crypto::SecureRandom;
use rustls::pki_types::CertificateDer;

/// `commonName` of subject and issuer.
const SUBJECT: &[u8] = b"Cloister guest";
/// `notBefore`, a `UTCTime`, and RFC 5280 §4.1.2.5's "no well-defined expiration date", a `GeneralizedTime`.
const VALIDITY: &[u8] = b"\x17\x0d250101000000Z\x18\x0f99991231235959Z";
/// `id-Ed25519`, which takes no parameters (RFC 8410 §3).
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// `id-at-commonName` (RFC 5280 App. A.1).
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
/// Version 3, in its explicit context tag (RFC 5280 §4.1.2.1).
const VERSION: &[u8] = &[0xa0, 3, tlv::INTEGER, 1, 2];
/// Context tag of the extensions (RFC 5280 §4.1).
const EXTENSIONS: u8 = 0xa3;
/// `id-ce-keyUsage`, critical, digitalSignature only (RFC 5280 §4.2.1.3).
const KEY_USAGE: &[u8] = &[0x30, 14, 6, 3, 0x55, 0x1d, 15, 1, 1, 0xff, 4, 4, 3, 2, 7, 0x80];
/// `id-ce-extKeyUsage`, `id-kp-serverAuth` only (RFC 5280 §4.2.1.12).
const EXTENDED_KEY_USAGE: &[u8] =
    &[0x30, 19, 6, 3, 0x55, 0x1d, 37, 4, 12, 0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 1];

/// Why there is no identity.
#[derive(Clone, Debug, PartialEq)]
pub enum IdentityError {
    /// The platform gave no randomness for the key or the serial number.
    Random,
    /// The AMD-SP gave no report.
    Attest(AttestError),
    /// rustls refused the configuration.
    Tls(rustls::Error),
}

/// A key with its certificate. The key is wiped when the last connection that uses it has ended.
pub(crate) struct Identity {
    /// To be cloned for each connection, with that connection's exporter capture.
    pub(crate) config: ServerConfig,
    /// The certificate's SubjectPublicKeyInfo, DER.
    pub(crate) spki: Arc<[u8]>,
}

impl Identity {
    /// Makes a key and has it attested.
    pub(crate) fn make(
        tls: &Tls,
        platform: &mut impl Platform,
        manifest: &ManifestDigest,
    ) -> Result<Self, IdentityError> {
        let key = SigningKey::generate(tls.random).map_err(|_| IdentityError::Random)?;
        let spki = key.spki();
        let attested =
            platform.attest(&report_data::certificate(&spki, manifest)).map_err(IdentityError::Attest)?;
        let evidence = CertificateEvidence { report: attested.report, certificates: attested.certificates };
        let certificate = certificate(&key, &spki, &evidence, tls.random)?;
        let config = tls.server_config(Arc::new(key), certificate).map_err(IdentityError::Tls)?;
        Ok(Self { config, spki: spki.into() })
    }
}

/// The certificate in DER (RFC 5280 §4.1).
fn certificate(
    key: &SigningKey,
    spki: &[u8],
    evidence: &CertificateEvidence,
    random: &dyn SecureRandom,
) -> Result<CertificateDer<'static>, IdentityError> {
    // RFC 5280 §4.1.2.2: positive and at most 20 octets; CA/B Forum baseline: 64 random bits or more.
    let mut serial = [0; 16];
    random.fill(&mut serial).map_err(|_| IdentityError::Random)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    let sequence = |parts: &[&[u8]]| write(tlv::SEQUENCE, parts);
    let algorithm = sequence(&[&write(tlv::OID, &[ED25519])]);
    let common_name = sequence(&[&write(tlv::OID, &[COMMON_NAME]), &write(tlv::UTF8_STRING, &[SUBJECT])]);
    let name = sequence(&[&write(tlv::SET, &[&common_name])]);
    let cmw =
        sequence(&[&write(tlv::OID, &[&ID_PE_CMW]), &write(tlv::OCTET_STRING, &[&evidence.to_extension()])]);
    let extensions = write(EXTENSIONS, &[&sequence(&[KEY_USAGE, EXTENDED_KEY_USAGE, &cmw])]);
    let signed = sequence(&[
        VERSION,
        &write(tlv::INTEGER, &[&serial]),
        &algorithm,
        &name,
        &sequence(&[VALIDITY]),
        &name,
        spki,
        &extensions,
    ]);
    let signature = write(tlv::BIT_STRING, &[&[0], &key.signature(&signed)]);
    Ok(CertificateDer::from(sequence(&[&signed, &algorithm, &signature])))
}
