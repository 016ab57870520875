//! Making X.509 structures: the few that a development chain needs.

use super::Result;
use crate::{endorsement::DEVELOPMENT_ORGANISATION, pss::RSA_PSS_SHA384};
use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeyPair as RsaKeyPair,
    signature::{KeyPair as _, RSA_PSS_SHA384 as SIGN_PSS},
};
use der::{
    Decode, Encode, Sequence,
    asn1::{Any, BitString, GeneralizedTime, ObjectIdentifier, OctetString},
};
use std::{str::FromStr, time::SystemTime};
use x509_cert::{
    certificate::Version,
    ext::{
        Extension,
        pkix::{BasicConstraints, KeyUsage, KeyUsages},
    },
    name::Name,
    serial_number::SerialNumber,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
    time::{Time, Validity},
};

/// RFC 5280 `TBSCertificate`, as far as it is needed here.
#[derive(Sequence)]
struct TbsCertificate {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: Version,
    serial_number: SerialNumber,
    signature: AlgorithmIdentifierOwned,
    issuer: Name,
    validity: Validity,
    subject: Name,
    subject_public_key_info: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

/// RFC 5280 `Certificate`.
#[derive(Sequence)]
struct Certificate {
    tbs_certificate: TbsCertificate,
    signature_algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

/// All of a certificate but who signs it.
pub(super) struct Request {
    pub(super) serial: u8,
    pub(super) subject: Name,
    pub(super) key: SubjectPublicKeyInfoOwned,
    pub(super) validity: Validity,
    pub(super) extensions: Vec<Extension>,
}

impl Request {
    pub(super) fn authority(
        serial: u8,
        subject: &Name,
        key: &RsaKeyPair,
        validity: Validity,
        path_len: u8,
    ) -> Result<Self> {
        let key = SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned {
                oid: ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1"),
                parameters: Some(Any::null()),
            },
            subject_public_key: BitString::from_bytes(key.public_key().as_ref())?,
        };
        let constraints = BasicConstraints { ca: true, path_len_constraint: Some(path_len) };
        let usage = KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign);
        let extensions = vec![
            critical_extension(ObjectIdentifier::new_unwrap("2.5.29.19"), constraints.to_der()?)?,
            critical_extension(ObjectIdentifier::new_unwrap("2.5.29.15"), usage.to_der()?)?,
        ];
        Ok(Self { serial, subject: subject.clone(), key, validity, extensions })
    }

    pub(super) fn sign(self, issuer: &Name, key: &RsaKeyPair) -> Result<Vec<u8>> {
        let tbs_certificate = TbsCertificate {
            version: Version::V3,
            serial_number: serial(self.serial)?,
            signature: algorithm()?,
            issuer: issuer.clone(),
            validity: self.validity,
            subject: self.subject,
            subject_public_key_info: self.key,
            extensions: self.extensions,
        };
        let signature = sign(&tbs_certificate.to_der()?, key)?;
        Ok(Certificate { tbs_certificate, signature_algorithm: algorithm()?, signature }.to_der()?)
    }
}

pub(super) fn sign(content: &[u8], key: &RsaKeyPair) -> Result<BitString> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&SIGN_PSS, &SystemRandom::new(), content, &mut signature)?;
    Ok(BitString::from_bytes(&signature)?)
}

pub(super) fn algorithm() -> Result<AlgorithmIdentifierOwned> {
    Ok(AlgorithmIdentifierOwned::from_der(RSA_PSS_SHA384)?)
}

pub(super) fn name(common_name: &str) -> Result<Name> {
    // RFC 4514: the comma inside the organisation is escaped.
    let organisation = DEVELOPMENT_ORGANISATION.replace(',', "\\,");
    Ok(Name::from_str(&format!("CN={common_name},O={organisation},OU=SNP model"))?)
}

pub(super) fn serial(number: u8) -> Result<SerialNumber> {
    Ok(SerialNumber::new(&[number])?)
}

pub(super) fn time(at: SystemTime) -> Result<Time> {
    let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(GeneralizedTime::from_unix_duration(at)?.to_date_time().into())
}

pub(super) fn validity(from: SystemTime, until: SystemTime) -> Result<Validity> {
    Ok(Validity::new(time(from)?, time(until)?))
}

pub(super) fn extension(oid: ObjectIdentifier, value: Vec<u8>) -> Result<Extension> {
    Ok(Extension { extn_id: oid, critical: false, extn_value: OctetString::new(value)? })
}

fn critical_extension(oid: ObjectIdentifier, value: Vec<u8>) -> Result<Extension> {
    Ok(Extension { critical: true, ..extension(oid, value)? })
}
