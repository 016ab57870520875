//! The guest's identity: a key made in the guest and a certificate that carries the AMD-SP's report about it.
//!
//! The certificate is self-signed X.509 v3, ECDSA P-384. Its `id-pe-cmw` extension holds
//! [`CertificateEvidence`]; `report_data` binds the key and the measured manifest.
//!
//! Validity: the guest has no clock that it may trust (REQUIREMENTS A14), so the certificate claims none. It has the
//! fixed `notBefore` below and RFC 5280 §4.1.2.5's "no well-defined expiration date". How recent an identity is, a
//! client learns from the evidence that answers its nonce, and an identity is replaced after so many connections or
//! so much time, whichever comes first.

use crate::platform::{AttestError, Platform};
use crate::tls::{SigningKey, Tls};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use attestation::evidence::{CertificateEvidence, ID_PE_CMW};
use attestation::manifest::ManifestDigest;
use attestation::report_data;
use core::fmt;
use der::asn1::{OctetString, UtcTime};
use der::{DateTime, Encode};
use p384::ecdsa::DerSignature;
use p384::pkcs8::EncodePublicKey;
use rustls::ServerConfig;
use rustls::crypto::SecureRandom;
use rustls::pki_types::CertificateDer;
use spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder};
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage, KeyUsages};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time, Validity};
use x509_cert::{TbsCertificate, builder};

const SUBJECT: &str = "CN=Cloister guest";

/// Why there is no identity.
#[derive(Clone, Debug, PartialEq)]
pub enum IdentityError {
    /// The platform gave no randomness for the key or the serial number.
    Random,
    /// The AMD-SP gave no report.
    Attest(AttestError),
    /// The certificate could not be encoded or signed.
    Certificate,
    /// rustls refused the configuration.
    Tls(rustls::Error),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random => f.write_str("the platform gave no randomness"),
            Self::Attest(AttestError::Throttled) => f.write_str("the host throttles requests to the AMD-SP"),
            Self::Attest(AttestError::Failed) => f.write_str("the AMD-SP gave no report"),
            Self::Certificate => f.write_str("the certificate could not be made, which is a defect"),
            Self::Tls(error) => write!(f, "rustls refused the configuration, which is a defect: {error}"),
        }
    }
}

impl core::error::Error for IdentityError {}

impl From<builder::Error> for IdentityError {
    fn from(_: builder::Error) -> Self {
        Self::Certificate
    }
}

impl From<der::Error> for IdentityError {
    fn from(_: der::Error) -> Self {
        Self::Certificate
    }
}

impl From<spki::Error> for IdentityError {
    fn from(_: spki::Error) -> Self {
        Self::Certificate
    }
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
        let spki = key.p384().verifying_key().to_public_key_der()?.into_vec();
        let attested =
            platform.attest(&report_data::certificate(&spki, manifest)).map_err(IdentityError::Attest)?;
        let evidence = CertificateEvidence { report: attested.report, certificates: attested.certificates };
        let certificate = certificate(&key, &evidence, tls.random)?;
        let config = tls.server_config(Arc::new(key), certificate).map_err(IdentityError::Tls)?;
        Ok(Self { config, spki: spki.into() })
    }
}

fn certificate(
    key: &SigningKey,
    evidence: &CertificateEvidence,
    random: &dyn SecureRandom,
) -> Result<CertificateDer<'static>, IdentityError> {
    // RFC 5280 §4.1.2.2: positive and at most 20 octets; CA/B Forum baseline: 64 random bits or more.
    let mut serial = [0; 16];
    random.fill(&mut serial).map_err(|_| IdentityError::Random)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    let not_before = UtcTime::from_date_time(DateTime::new(2025, 1, 1, 0, 0, 0)?)?;
    let validity = Validity::new(Time::UtcTime(not_before), Time::INFINITY);
    let spki = SubjectPublicKeyInfoOwned::from_key(key.p384().verifying_key())?;
    let profile = Profile { name: SUBJECT.parse()?, evidence: evidence.to_extension()? };
    let builder = CertificateBuilder::new(profile, SerialNumber::new(&serial)?, validity, spki)?;
    let certificate = builder.build::<_, DerSignature>(key.p384())?;
    Ok(CertificateDer::from(certificate.to_der()?))
}

/// What the certificate says besides its key.
struct Profile {
    name: Name,
    evidence: Vec<u8>,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, subject: &Name) -> Name {
        subject.clone()
    }

    fn get_subject(&self) -> Name {
        self.name.clone()
    }

    fn build_extensions(
        &self,
        _spki: SubjectPublicKeyInfoRef<'_>,
        _issuer_spki: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        let usage = KeyUsage(KeyUsages::DigitalSignature.into());
        let extended = ExtendedKeyUsage(vec![der::oid::db::rfc5280::ID_KP_SERVER_AUTH]);
        Ok(vec![
            usage.to_extension(tbs.subject(), &[])?,
            extended.to_extension(tbs.subject(), &[])?,
            Extension {
                extn_id: ID_PE_CMW,
                critical: false,
                extn_value: OctetString::new(self.evidence.as_slice())?,
            },
        ])
    }
}
