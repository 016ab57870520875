//! One X.509 certificate: strict reading, dates, and signatures over the bytes that were sent.

use super::error::{CertificateProblem as Problem, Role, VerifyError};
use crate::{
    evidence,
    pss::{RSA_PSS_SHA384, RSA_PSS_SHA384_WITH_TRAILER},
    report::SIGNED_LEN,
};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ED25519, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use der::{
    Decode, Encode, Reader, SliceReader,
    asn1::{BitStringRef, ObjectIdentifier},
};
use std::time::Duration;
use x509_cert::{
    ext::{
        Extension,
        pkix::{BasicConstraints, KeyUsage},
    },
    name::Name,
    spki::AlgorithmIdentifierOwned,
    time::Time,
};

/// No certificate of AMD's, nor a TLS certificate with the largest evidence, has more bytes.
const MAX_BYTES: usize = evidence::MAX_ENCODED + 4 * 1024;
/// `id-pe-cmw` (RFC 9999).
pub(super) const ID_PE_CMW: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.35");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
/// The critical extensions that are understood: the first two are checked, a TLS certificate may limit its use, and
/// evidence is always looked at.
const UNDERSTOOD: [ObjectIdentifier; 4] = [BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_KEY_USAGE, ID_PE_CMW];

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// Key and signature algorithm alike (RFC 8410 §3).
const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// Bytes of an Ed25519 public key.
const ED25519_KEY: usize = 32;
/// Bytes of an uncompressed point on P-384.
const P384_POINT: usize = 97;
/// Bytes of the modulus of AMD's RSA keys.
const RSA_MODULUS: usize = 512;

/// What a signature covers, and the signature: the outer structure of certificates and revocation lists.
pub(super) struct Signed<'a> {
    pub(super) content: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    pub(super) fn parse(der: &'a [u8]) -> Result<Self, der::Error> {
        let mut reader = SliceReader::new(der)?;
        let signed = reader.sequence(|r| {
            let (content, algorithm) = (r.tlv_bytes()?, r.tlv_bytes()?);
            let signature = BitStringRef::decode(r)?;
            let signature = signature.as_bytes().ok_or(der::ErrorKind::Failed)?;
            Ok::<_, der::Error>(Self { content, algorithm, signature })
        })?;
        reader.finish()?;
        Ok(signed)
    }

    /// Checks an RSASSA-PSS signature of AMD's kind under the 4096-bit key of `issuer`.
    pub(super) fn check_rsa(&self, issuer: &Certificate) -> Result<(), Problem> {
        if ![RSA_PSS_SHA384, RSA_PSS_SHA384_WITH_TRAILER].contains(&self.algorithm) {
            return Err(Problem::Algorithm);
        }
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, issuer.rsa_key()?)
            .verify(self.content, self.signature)
            .map_err(|_| Problem::Signature)
    }
}

/// A certificate that was read strictly. Nothing in it is true before its signature is verified.
pub(super) struct Certificate {
    role: Role,
    der: Vec<u8>,
    parsed: x509_cert::Certificate,
}

impl Certificate {
    pub(super) fn parse(role: Role, der: &[u8]) -> Result<Self, VerifyError> {
        let refuse = |problem| VerifyError::Certificate { role, problem };
        if der.len() > MAX_BYTES {
            return Err(refuse(Problem::TooLong(der.len())));
        }
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| refuse(Problem::Malformed))?;
        let tbs = parsed.tbs_certificate();
        // RFC 5280 §4.1.1.2: the algorithm inside the signed part is the one outside.
        let same_algorithm = tbs.signature() == parsed.signature_algorithm();
        if tbs.version() != x509_cert::Version::V3 || !same_algorithm || Signed::parse(der).is_err() {
            return Err(refuse(Problem::Malformed));
        }
        let extensions: &[Extension] = tbs.extensions().map_or(&[], |e| e.as_slice());
        for (i, extension) in extensions.iter().enumerate() {
            let oid = extension.extn_id;
            if extensions[..i].iter().any(|earlier| earlier.extn_id == oid) {
                return Err(refuse(Problem::RepeatedExtension(oid)));
            }
            if extension.critical && !UNDERSTOOD.contains(&oid) {
                return Err(refuse(Problem::CriticalExtension(oid)));
            }
        }
        Ok(Self { role, der: der.to_vec(), parsed })
    }

    /// An error about this certificate.
    pub(super) fn refuse(&self, problem: Problem) -> VerifyError {
        VerifyError::Certificate { role: self.role, problem }
    }

    pub(super) fn subject(&self) -> &Name {
        self.parsed.tbs_certificate().subject()
    }

    pub(super) fn issuer(&self) -> &Name {
        self.parsed.tbs_certificate().issuer()
    }

    pub(super) fn serial_number(&self) -> &[u8] {
        self.parsed.tbs_certificate().serial_number().as_bytes()
    }

    /// The one common name of the subject.
    pub(super) fn common_name(&self) -> Option<String> {
        Some(self.subject().common_name().ok()??.value().into_owned())
    }

    pub(super) fn check_common_name(&self, expected: &str) -> Result<(), VerifyError> {
        let found = self.common_name().unwrap_or_default();
        if found == expected {
            return Ok(());
        }
        Err(self.refuse(Problem::CommonName { expected: expected.to_owned(), found }))
    }

    /// The octets of an extension.
    pub(super) fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        let extensions = self.parsed.tbs_certificate().extensions()?;
        Some(extensions.iter().find(|e| e.extn_id == oid)?.extn_value.as_bytes())
    }

    /// An extension that must be there, read as `T`.
    pub(super) fn read_extension<'a, T>(&'a self, oid: ObjectIdentifier) -> Result<T, VerifyError>
    where
        T: Decode<'a, Error = der::Error>,
    {
        self.extension(oid)
            .and_then(|octets| T::from_der(octets).ok())
            .ok_or_else(|| self.refuse(Problem::Extension(oid)))
    }

    /// The DER of the `SubjectPublicKeyInfo`.
    pub(super) fn spki_der(&self) -> Result<Vec<u8>, VerifyError> {
        let spki = self.parsed.tbs_certificate().subject_public_key_info();
        spki.to_der().map_err(|_| self.refuse(Problem::Key))
    }

    pub(super) fn check_dates(&self, now: Duration) -> Result<(), VerifyError> {
        let validity = self.parsed.tbs_certificate().validity();
        if now < validity.not_before.to_unix_duration() {
            return Err(self.refuse(Problem::NotYetValid(validity.not_before.to_date_time())));
        }
        if now > validity.not_after.to_unix_duration() {
            return Err(self.refuse(Problem::Expired(validity.not_after.to_date_time())));
        }
        Ok(())
    }

    /// Checks that this may, or may not, sign other certificates.
    pub(super) fn check_authority(&self, expected: bool) -> Result<(), VerifyError> {
        let constraints = match self.extension(BASIC_CONSTRAINTS) {
            Some(_) => self.read_extension::<BasicConstraints>(BASIC_CONSTRAINTS)?.ca,
            None => false,
        };
        let usage = match self.extension(KEY_USAGE) {
            Some(_) => self.read_extension::<KeyUsage>(KEY_USAGE)?.key_cert_sign(),
            None => constraints,
        };
        if constraints == expected && usage == expected {
            Ok(())
        } else {
            Err(self.refuse(Problem::Authority))
        }
    }

    /// Checks that the RSA key of `issuer` signed this, and that the names chain.
    pub(super) fn check_issued_by(&self, issuer: &Self) -> Result<(), VerifyError> {
        if self.issuer() != issuer.subject() {
            return Err(self.refuse(Problem::Issuer));
        }
        self.signed().and_then(|signed| signed.check_rsa(issuer)).map_err(|p| self.refuse(p))
    }

    /// Checks that this certificate's own Ed25519 key signed it.
    pub(super) fn check_self_signed(&self) -> Result<(), VerifyError> {
        if self.issuer() != self.subject() {
            return Err(self.refuse(Problem::Issuer));
        }
        let ed25519 = AlgorithmIdentifierOwned { oid: ID_ED25519, parameters: None };
        if self.parsed.signature_algorithm() != &ed25519 {
            return Err(self.refuse(Problem::Algorithm));
        }
        let spki = self.parsed.tbs_certificate().subject_public_key_info();
        let key = spki.subject_public_key.as_bytes().filter(|key| key.len() == ED25519_KEY);
        let key = key.filter(|_| spki.algorithm == ed25519).ok_or_else(|| self.refuse(Problem::Key))?;
        let key = UnparsedPublicKey::new(&ED25519, key);
        let signed = self.signed().map_err(|p| self.refuse(p))?;
        key.verify(signed.content, signed.signature).map_err(|_| self.refuse(Problem::Signature))
    }

    /// Checks a report's signature under this certificate's P-384 key.
    pub(super) fn check_report(&self, signed: &[u8], signature: &[u8; 96]) -> Result<(), VerifyError> {
        debug_assert_eq!(signed.len(), SIGNED_LEN);
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, self.p384_key()?)
            .verify(signed, signature)
            .map_err(|_| VerifyError::ReportSignature)
    }

    fn signed(&self) -> Result<Signed<'_>, Problem> {
        Signed::parse(&self.der).map_err(|_| Problem::Malformed)
    }

    fn p384_key(&self) -> Result<&[u8], VerifyError> {
        let spki = self.parsed.tbs_certificate().subject_public_key_info();
        let curve = spki.algorithm.parameters.as_ref().and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
        match spki.subject_public_key.as_bytes() {
            Some(point)
                if spki.algorithm.oid == EC_PUBLIC_KEY
                    && curve == Some(SECP384R1)
                    && point.len() == P384_POINT =>
            {
                Ok(point)
            }
            _ => Err(self.refuse(Problem::Key)),
        }
    }

    /// The DER of the `RSAPublicKey`, which has 4096 bits.
    fn rsa_key(&self) -> Result<&[u8], Problem> {
        let spki = self.parsed.tbs_certificate().subject_public_key_info();
        let key = spki.subject_public_key.as_bytes().ok_or(Problem::Key)?;
        let modulus = SliceReader::new(key)
            .and_then(|mut r| {
                r.sequence(|r| {
                    let modulus = der::asn1::UintRef::decode(r)?;
                    der::asn1::UintRef::decode(r)?;
                    Ok::<_, der::Error>(modulus)
                })
            })
            .map_err(|_| Problem::Key)?;
        if spki.algorithm.oid == RSA_ENCRYPTION && modulus.as_bytes().len() == RSA_MODULUS {
            Ok(key)
        } else {
            Err(Problem::Key)
        }
    }
}

/// True if `now` is neither before `from` nor after `until`; a list without `until` never ends.
pub(super) fn is_within(now: Duration, from: Time, until: Option<Time>) -> bool {
    now >= from.to_unix_duration() && until.is_none_or(|until| now <= until.to_unix_duration())
}

#[cfg(test)]
mod tests {
    use super::{super::roots::AMD, *};
    use crate::report::Product;

    #[test]
    fn b8_only_authorities_may_sign_and_only_as_what_they_are_called() {
        for (keys, product) in AMD.iter().zip(Product::ALL) {
            for (role, der, name) in [(Role::Ark, keys.ark, "ARK"), (Role::Ask, keys.ask, "SEV")] {
                let authority = Certificate::parse(role, der).unwrap();
                authority.check_authority(true).unwrap();
                assert_eq!(authority.check_authority(false), Err(authority.refuse(Problem::Authority)));
                authority.check_common_name(&format!("{name}-{product}")).unwrap();
                assert!(authority.check_common_name("SEV-VCEK").is_err());
            }
        }
        let vcek = include_bytes!("../../tests/data/turin-v5.vcek.der");
        let vcek = Certificate::parse(Role::EndorsementKey, vcek).unwrap();
        vcek.check_authority(false).unwrap();
        assert_eq!(vcek.check_authority(true), Err(vcek.refuse(Problem::Authority)));
    }

    #[test]
    fn b8_only_the_algorithm_of_amd_is_accepted() {
        let ark = Certificate::parse(Role::Ark, AMD[0].ark).unwrap();
        let signed = Signed::parse(AMD[0].ask).unwrap();
        assert_eq!(signed.check_rsa(&ark), Ok(()));
        // The same signature, said to be one with another salt length, or of another algorithm.
        let mut other_salt = signed.algorithm.to_vec();
        let salt = other_salt.windows(5).position(|w| w == [0xA2, 3, 2, 1, 48]).unwrap() + 4;
        other_salt[salt] = 32;
        for algorithm in [&other_salt[..], &[0x30, 0], &[]] {
            assert_eq!(Signed { algorithm, ..signed }.check_rsa(&ark), Err(Problem::Algorithm));
        }
        let vcek = include_bytes!("../../tests/data/turin-v5.vcek.der");
        let vcek = Certificate::parse(Role::EndorsementKey, vcek).unwrap();
        assert_eq!(signed.check_rsa(&vcek), Err(Problem::Key));
    }

    #[test]
    fn b8_amd_signing_keys_are_signed_by_the_root_of_their_own_product_only() {
        for (i, above) in AMD.iter().enumerate() {
            let ark = Certificate::parse(Role::Ark, above.ark).unwrap();
            ark.check_issued_by(&ark).unwrap();
            for (j, below) in AMD.iter().enumerate() {
                for der in [below.ask, below.asvk] {
                    let ask = Certificate::parse(Role::Ask, der).unwrap();
                    let expected = if i == j { Ok(()) } else { Err(ask.refuse(Problem::Issuer)) };
                    assert_eq!(ask.check_issued_by(&ark), expected);
                }
            }
        }
    }
}
