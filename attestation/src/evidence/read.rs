//! Reading evidence: exactly what encoding gives, and nothing after.

use super::{
    CERTIFICATES, CertificateEvidence, ENDORSEMENTS, EVIDENCE, FreshEvidence, INCLUSION, MAX_CERTIFICATES,
    MAX_ENCODED, REPORT,
};
use crate::cbor::read::{NotExpected, Reader};
use crate::{batch, report, tlv};
use alloc::vec::Vec;
use core::fmt;

/// Why bytes are not evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvidenceError {
    /// More than [`MAX_ENCODED`] bytes, or a certificate table of more than [`MAX_CERTIFICATES`].
    TooLong,
    /// Not the one encoding of the one structure.
    Malformed,
    /// The report has another length than a report has.
    ReportLength(usize),
}

impl fmt::Display for EvidenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str(
                "the evidence is larger than any real evidence; the server is not a Cloister guest",
            ),
            Self::Malformed => f.write_str(
                "the evidence is not encoded as a Cloister guest does it; the server is something else, or the \
                 evidence was altered on the way",
            ),
            Self::ReportLength(n) => {
                write!(f, "the evidence holds a report of {n} bytes instead of {}; it was cut or altered", report::LEN)
            }
        }
    }
}

impl core::error::Error for EvidenceError {}

impl From<NotExpected> for EvidenceError {
    fn from(_: NotExpected) -> Self {
        Self::Malformed
    }
}

impl CertificateEvidence {
    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let (mut reader, has_certificates) = start(bytes, 1)?;
        let report = read_report(&mut reader)?;
        let certificates = read_certificates(reader, has_certificates)?;
        Ok(Self { report, certificates })
    }

    /// Reads the value of the certificate extension [`ID_PE_CMW`](super::ID_PE_CMW).
    pub fn from_extension(value: &[u8]) -> Result<Self, EvidenceError> {
        if value.len() > MAX_ENCODED {
            return Err(EvidenceError::TooLong);
        }
        Self::decode(tlv::read(tlv::OCTET_STRING, value).ok_or(EvidenceError::Malformed)?)
    }
}

impl FreshEvidence {
    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let (mut reader, has_certificates) = start(bytes, 2)?;
        let report = read_report(&mut reader)?;
        let inclusion = read_record(&mut reader, INCLUSION, EVIDENCE)?;
        let (index, path) = inclusion.split_first_chunk().ok_or(EvidenceError::Malformed)?;
        let (path, []) = path.as_chunks() else { return Err(EvidenceError::Malformed) };
        if path.len() > batch::MAX_DEPTH {
            return Err(EvidenceError::Malformed);
        }
        let certificates = read_certificates(reader, has_certificates)?;
        Ok(Self { report, certificates, index: u32::from_le_bytes(*index), path: path.to_vec() })
    }
}

/// Opens the map, which has `required` entries and perhaps the certificates.
fn start(bytes: &[u8], required: u64) -> Result<(Reader<'_>, bool), EvidenceError> {
    if bytes.len() > MAX_ENCODED {
        return Err(EvidenceError::TooLong);
    }
    let mut reader = Reader(bytes);
    match reader.map()?.checked_sub(required) {
        Some(0) => Ok((reader, false)),
        Some(1) => Ok((reader, true)),
        _ => Err(EvidenceError::Malformed),
    }
}

fn read_record<'a>(
    reader: &mut Reader<'a>,
    (key, media_type): (&str, &str),
    kind: u64,
) -> Result<&'a [u8], EvidenceError> {
    if reader.text()? != key || reader.array()? != 3 || reader.text()? != media_type {
        return Err(EvidenceError::Malformed);
    }
    let value = reader.bytes()?;
    if reader.unsigned()? == kind { Ok(value) } else { Err(EvidenceError::Malformed) }
}

fn read_report(reader: &mut Reader<'_>) -> Result<Vec<u8>, EvidenceError> {
    let report = read_record(reader, REPORT, EVIDENCE)?;
    if report.len() == report::LEN {
        Ok(report.to_vec())
    } else {
        Err(EvidenceError::ReportLength(report.len()))
    }
}

/// The last entry; an empty table has no entry, so that it has one encoding.
fn read_certificates(mut reader: Reader<'_>, present: bool) -> Result<Vec<u8>, EvidenceError> {
    let mut certificates = &[][..];
    if present {
        certificates = read_record(&mut reader, CERTIFICATES, ENDORSEMENTS)?;
        if certificates.is_empty() {
            return Err(EvidenceError::Malformed);
        }
        if certificates.len() > MAX_CERTIFICATES {
            return Err(EvidenceError::TooLong);
        }
    }
    reader.finish()?;
    Ok(certificates.to_vec())
}
