//! Certificate revocation lists (RFC 5280 §5), as AMD serves them under `/vcek/v1/{product}/crl`.

use super::{
    certificate::{Certificate, Signed, is_within},
    error::{CertificateProblem, RevocationProblem as Problem, VerifyError},
};
use der::Decode;
use std::time::Duration;
use x509_cert::crl::CertificateList;

/// A list that was read; its signature is checked when it is used.
#[derive(Clone, Debug)]
pub(super) struct RevocationList {
    der: Vec<u8>,
    parsed: CertificateList,
}

impl RevocationList {
    pub(super) fn parse(der: &[u8]) -> Result<Self, VerifyError> {
        let refuse = |_| VerifyError::Revocation(Problem::Malformed);
        Signed::parse(der).map_err(refuse)?;
        let parsed = CertificateList::from_der(der).map_err(refuse)?;
        // A delta or partial list says nothing about what it leaves out, so an extension that must be understood is
        // refused (RFC 5280 §5.2).
        let extensions = parsed.tbs_cert_list.crl_extensions.iter().flatten();
        let same_algorithm = parsed.tbs_cert_list.signature == parsed.signature_algorithm;
        if extensions.into_iter().any(|e| e.critical) || !same_algorithm {
            return Err(VerifyError::Revocation(Problem::Malformed));
        }
        Ok(Self { der: der.to_vec(), parsed })
    }

    /// True if `authority` is the issuer that this list names.
    pub(super) fn is_of(&self, authority: &Certificate) -> bool {
        &self.parsed.tbs_cert_list.issuer == authority.subject()
    }

    /// Checks the list's signature and dates, and that `certificate`, which `authority` issued, is not on it.
    pub(super) fn check(
        &self,
        authority: &Certificate,
        certificate: &Certificate,
        now: Duration,
    ) -> Result<(), VerifyError> {
        let list = &self.parsed.tbs_cert_list;
        Signed::parse(&self.der)
            .ok()
            .and_then(|signed| signed.check_rsa(authority).ok())
            .ok_or(VerifyError::Revocation(Problem::Signature))?;
        if !is_within(now, list.this_update, list.next_update) {
            return Err(VerifyError::Revocation(Problem::Dates));
        }
        let revoked = list.revoked_certificates.iter().flatten();
        for entry in revoked {
            if entry.serial_number.as_bytes() == certificate.serial_number() {
                return Err(certificate.refuse(CertificateProblem::Revoked));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::development::Chain;
    use der::{
        Encode,
        asn1::{ObjectIdentifier, OctetString},
    };
    use std::time::SystemTime;
    use x509_cert::ext::Extension;

    #[test]
    fn b9_lists_that_are_partial_or_name_two_algorithms_are_refused() {
        let now = SystemTime::now();
        let list = Chain::generate(now).unwrap().revocation_list(false, now, now).unwrap();
        let list = CertificateList::from_der(&list).unwrap();
        let parse = |list: &CertificateList| RevocationList::parse(&list.to_der().unwrap()).map(|_| ());
        let refused = Err(VerifyError::Revocation(Problem::Malformed));
        assert_eq!(parse(&list), Ok(()));

        // deltaCRLIndicator, RFC 5280 §5.2.4.
        for critical in [false, true] {
            let mut delta = list.clone();
            delta.tbs_cert_list.crl_extensions = Some(vec![Extension {
                extn_id: ObjectIdentifier::new_unwrap("2.5.29.27"),
                critical,
                extn_value: OctetString::new([2, 1, 1]).unwrap(),
            }]);
            assert_eq!(parse(&delta).is_err(), critical);
        }
        let mut two = list;
        two.signature_algorithm.parameters = None;
        assert_eq!(parse(&two), refused);
    }
}
