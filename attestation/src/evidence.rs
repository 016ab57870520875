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

#[cfg(feature = "read")]
mod read;

#[cfg(feature = "read")]
pub use read::EvidenceError;

use crate::cbor::Writer;
use crate::{batch, tlv};
use alloc::vec::Vec;

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

/// Evidence in a guest's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateEvidence {
    /// The report; not looked into.
    pub report: Vec<u8>,
    /// The certificate table that the host gave with it (see [`crate::certificate_table`]); may be empty.
    pub certificates: Vec<u8>,
}

/// Evidence for one client's nonce on one TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreshEvidence {
    /// The report; not looked into.
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

    /// The value of the certificate extension [`ID_PE_CMW`]: the collection in a DER `OCTET STRING`.
    pub fn to_extension(&self) -> Vec<u8> {
        tlv::write(tlv::OCTET_STRING, &[&self.encode()])
    }
}

impl FreshEvidence {
    /// The CMW collection.
    pub fn encode(&self) -> Vec<u8> {
        let mut inclusion = self.index.to_le_bytes().to_vec();
        inclusion.extend(self.path.as_flattened());
        encode(&self.report, Some(&inclusion), &self.certificates)
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
