//! Evidence as a CMW: another implementation (the `cmw` crate of the Veraison project) reads what is written here, and
//! nothing but what is written here is read.

use attestation::{
    batch,
    evidence::{CertificateEvidence, EvidenceError, FreshEvidence, MAX_CERTIFICATES, MAX_ENCODED},
    report,
};
use cmw::{CMW, Collection, collection::Label};
use proptest::{collection::vec, prelude::*};

const REPORT: &[u8] = include_bytes!("data/turin-v5.report");
const EVIDENCE: u8 = 1 << 2;
const ENDORSEMENTS: u8 = 1 << 1;

fn in_certificate(certificates: &[u8]) -> CertificateEvidence {
    CertificateEvidence { report: REPORT.to_vec(), certificates: certificates.to_vec() }
}

/// Type, value and indicator of a record, as the other implementation sees them.
fn record(collection: &Collection, key: &str) -> (String, Vec<u8>, u8) {
    let Some(CMW::Monad(record)) = collection.get_item(&Label::from(key)) else { panic!("no record {key}") };
    (record.type_(), record.value(), record.indicator().map_or(0, |indicator| indicator.bits()))
}

fn collection(encoded: &[u8]) -> Collection {
    let Ok(CMW::Collection(collection)) = CMW::unmarshal_cbor(encoded) else { panic!("no collection") };
    collection.validate().unwrap();
    collection
}

#[test]
fn another_implementation_reads_evidence_of_a_certificate() {
    let read = collection(&in_certificate(b"table").encode());
    assert_eq!(read.get_meta().len(), 2);
    let report = ("application/vnd.amd.sev-snp.attestation-report".into(), REPORT.to_vec(), EVIDENCE);
    assert_eq!(record(&read, "report"), report);
    let table = ("application/vnd.amd.ghcb.guid-table".into(), b"table".to_vec(), ENDORSEMENTS);
    assert_eq!(record(&read, "certificates"), table);

    assert_eq!(collection(&in_certificate(b"").encode()).get_meta().len(), 1);
}

#[test]
fn another_implementation_reads_fresh_evidence() {
    let path = vec![[1; 64], [2; 64]];
    let fresh = FreshEvidence { report: REPORT.to_vec(), certificates: Vec::new(), index: 3, path };
    let read = collection(&fresh.encode());
    assert_eq!(read.get_meta().len(), 2);
    let inclusion = [&[3, 0, 0, 0][..], &[1; 64], &[2; 64]].concat();
    assert_eq!(
        record(&read, "inclusion"),
        ("application/vnd.cloister.batch-inclusion".into(), inclusion, EVIDENCE)
    );
}

#[test]
fn b5_other_collections_are_refused() {
    for other in [
        &include_bytes!("data/cmw-collection-cbor-ok.cbor")[..],
        include_bytes!("data/cmw-collection-cbor-ok-2.cbor"),
        include_bytes!("data/cmw-collection-cbor-mixed-keys.cbor"),
        b"",
        b"\xA0",
        b"\xBF\xFF",
    ] {
        assert_eq!(CertificateEvidence::decode(other), Err(EvidenceError::Malformed));
        assert_eq!(FreshEvidence::decode(other), Err(EvidenceError::Malformed));
    }
}

#[test]
fn b5_evidence_of_one_kind_is_not_the_other() {
    let fresh =
        FreshEvidence { report: REPORT.to_vec(), certificates: Vec::new(), index: 0, path: Vec::new() };
    assert_eq!(CertificateEvidence::decode(&fresh.encode()), Err(EvidenceError::Malformed));
    for certificates in [&b""[..], b"table"] {
        let encoded = in_certificate(certificates).encode();
        assert_eq!(FreshEvidence::decode(&encoded), Err(EvidenceError::Malformed));
    }
}

#[test]
fn b5_sizes_are_bounded() {
    let largest = in_certificate(&[7; MAX_CERTIFICATES]);
    assert_eq!(CertificateEvidence::decode(&largest.encode()), Ok(largest));
    let larger = in_certificate(&[7; MAX_CERTIFICATES + 1]);
    assert_eq!(CertificateEvidence::decode(&larger.encode()), Err(EvidenceError::TooLong));
    assert_eq!(CertificateEvidence::decode(&[0; MAX_ENCODED + 1]), Err(EvidenceError::TooLong));

    let short = CertificateEvidence { report: REPORT[1..].to_vec(), certificates: Vec::new() };
    let error = EvidenceError::ReportLength(report::LEN - 1);
    assert_eq!(CertificateEvidence::decode(&short.encode()), Err(error));

    let deep = |depth| FreshEvidence {
        report: REPORT.to_vec(),
        certificates: Vec::new(),
        index: 0,
        path: vec![[0; 64]; depth],
    };
    assert_eq!(FreshEvidence::decode(&deep(batch::MAX_DEPTH).encode()), Ok(deep(batch::MAX_DEPTH)));
    assert_eq!(FreshEvidence::decode(&deep(batch::MAX_DEPTH + 1).encode()), Err(EvidenceError::Malformed));
}

#[test]
fn b5_no_altered_encoding_is_read_as_the_same_evidence() {
    let evidence = in_certificate(b"table");
    let encoded = evidence.encode();
    for at in 0..encoded.len() {
        let mut altered = encoded.clone();
        altered[at] ^= 1 << (at % 8);
        assert_ne!(CertificateEvidence::decode(&altered).as_ref(), Ok(&evidence), "byte {at}");
        assert_eq!(CertificateEvidence::decode(&encoded[..at]), Err(EvidenceError::Malformed), "cut to {at}");
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        report in vec(any::<u8>(), report::LEN), certificates in vec(any::<u8>(), 0..300), index: u32,
        path in vec(vec(any::<u8>(), 64), 0..=batch::MAX_DEPTH), more in vec(any::<u8>(), 1..4),
    ) {
        let evidence = CertificateEvidence { report: report.clone(), certificates: certificates.clone() };
        let encoded = evidence.encode();
        prop_assert_eq!(CertificateEvidence::decode(&[&encoded[..], &more].concat()), Err(EvidenceError::Malformed));
        prop_assert_eq!(CertificateEvidence::from_extension(&evidence.to_extension()), Ok(evidence.clone()));
        prop_assert_eq!(CertificateEvidence::decode(&encoded), Ok(evidence));

        let path = path.into_iter().map(|node| node.try_into().unwrap()).collect();
        let evidence = FreshEvidence { report, certificates, index, path };
        let encoded = evidence.encode();
        prop_assert_eq!(FreshEvidence::decode(&[&encoded[..], &more].concat()), Err(EvidenceError::Malformed));
        prop_assert_eq!(FreshEvidence::decode(&encoded), Ok(evidence));
    }

    #[test]
    fn b5_no_bytes_make_reading_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = CertificateEvidence::decode(&bytes);
        let _ = FreshEvidence::decode(&bytes);
        let _ = CertificateEvidence::from_extension(&bytes);
        let _ = attestation::certificate_table::decode(&bytes);
    }
}
