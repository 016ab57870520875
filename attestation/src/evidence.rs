//! Evidence on the wire: a CMW collection (RFC 9999) in deterministic CBOR.
//!
//! ```text
//! {
//!   "report":       ["application/vnd.amd.sev-snp.attestation-report", bytes, evidence],
//!   "inclusion":    ["application/vnd.cloister.batch-inclusion", bytes, evidence],     fresh evidence only
//!   "certificates": ["application/vnd.amd.ghcb.guid-table", bytes, endorsements],      if the host gave any
//! }
//! ```
//!
//! Media types of the report and of the certificates are those of draft-deeglaze-amd-sev-snp-corim-profile. Decoding
//! accepts exactly what encoding gives (REQUIREMENTS B5): these entries in this order, nothing else, nothing after.

use crate::{
    batch,
    cbor::{NotExpected, Reader, Writer},
    report, tlv,
};
use alloc::vec::Vec;
use core::fmt;

/// `id-pe-cmw`, 1.3.6.1.5.5.7.1.35 (RFC 9999): the certificate extension that carries evidence, as contents of an
/// `OBJECT IDENTIFIER`.
pub const ID_PE_CMW: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 1, 35];
/// Most bytes that the host's certificate table may have: the pages that the guest offers for it. A chain takes 5 KiB; a log's
/// proof with Ed25519 and ML-DSA-44 by five witnesses 24 KiB. The host's side has no limit of its own: KVM hands these pages
/// to the VMM, which fills them (Linux, Documentation/virt/kvm/api.rst, `KVM_EXIT_SNP_REQ_CERTS`); the 16 KiB of
/// `SEV_FW_BLOB_MAX_SIZE` are those of Linux as a guest.
pub const MAX_CERTIFICATES: usize = 32 * 1024;
/// Most bytes that encoded evidence may have: the largest table, the report and the path to it. A certificate with it stays below
/// the 64 KiB that rustls takes as one handshake message.
pub const MAX_ENCODED: usize = 40 * 1024;

const REPORT: (&str, &str) = ("report", "application/vnd.amd.sev-snp.attestation-report");
const INCLUSION: (&str, &str) = ("inclusion", "application/vnd.cloister.batch-inclusion");
const CERTIFICATES: (&str, &str) = ("certificates", "application/vnd.amd.ghcb.guid-table");
/// Bits of RFC 9999's conceptual message type.
const ENDORSEMENTS: u64 = 1 << 1;
const EVIDENCE: u64 = 1 << 2;

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

/// Evidence in a guest's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateEvidence {
    /// The report; [`report::LEN`] bytes, not looked into.
    pub report: Vec<u8>,
    /// The certificate table that the host gave with it (see [`crate::certificate_table`]); may be empty.
    pub certificates: Vec<u8>,
}

/// Evidence for one client's nonce on one TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreshEvidence {
    /// The report; [`report::LEN`] bytes, not looked into.
    pub report: Vec<u8>,
    /// The certificate table that the host gave with it (see [`crate::certificate_table`]); may be empty.
    pub certificates: Vec<u8>,
    /// Place of the client's leaf in the batch.
    pub index: u32,
    /// Its path to the root that the report holds.
    pub path: Vec<batch::Node>,
}

impl CertificateEvidence {
    /// The CMW collection.
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.report, None, &self.certificates)
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let (mut reader, has_certificates) = start(bytes, 1)?;
        let report = read_report(&mut reader)?;
        let certificates = read_certificates(reader, has_certificates)?;
        Ok(Self { report, certificates })
    }

    /// The value of the certificate extension [`ID_PE_CMW`]: the collection in a DER `OCTET STRING`.
    pub fn to_extension(&self) -> Vec<u8> {
        tlv::write(tlv::OCTET_STRING, &[&self.encode()])
    }

    /// Reads the value of the certificate extension [`ID_PE_CMW`].
    pub fn from_extension(value: &[u8]) -> Result<Self, EvidenceError> {
        if value.len() > MAX_ENCODED {
            return Err(EvidenceError::TooLong);
        }
        Self::decode(tlv::read(tlv::OCTET_STRING, value).ok_or(EvidenceError::Malformed)?)
    }
}

impl FreshEvidence {
    /// The CMW collection.
    pub fn encode(&self) -> Vec<u8> {
        let mut inclusion = self.index.to_le_bytes().to_vec();
        inclusion.extend(self.path.as_flattened());
        encode(&self.report, Some(&inclusion), &self.certificates)
    }

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

fn encode(report: &[u8], inclusion: Option<&[u8]>, certificates: &[u8]) -> Vec<u8> {
    let certificates = (!certificates.is_empty()).then_some(certificates);
    let records = [
        Some((REPORT, report, EVIDENCE)),
        inclusion.map(|value| (INCLUSION, value, EVIDENCE)),
        certificates.map(|value| (CERTIFICATES, value, ENDORSEMENTS)),
    ];
    let mut w = Writer::default();
    w.map(records.iter().flatten().count() as u64);
    for ((key, media_type), value, kind) in records.into_iter().flatten() {
        w.text(key);
        w.array(3);
        w.text(media_type);
        w.bytes(value);
        w.unsigned(kind);
    }
    w.finish()
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
