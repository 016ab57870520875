//! A client written from the specification talks to the AMD-SP: what it is told, and everything that is refused.

use super::*;
use crate::{
    PAGE_BYTES,
    bundle::{TcbVersions, VcekScalar},
    cpu_type::CpuSignature,
    cpuid_page::Machine,
};
use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
use alloc::vec;
use attestation::report::{GuestPolicy, PlatformInfo, Product, Report, Tcb};
use p384::ecdsa::{Signature, VerifyingKey, signature::Verifier};

const TCB: TcbVersions = TcbVersions {
    current: 0x5417_0000_0000_000A,
    reported: 0x5416_0000_0000_0009,
    committed: 0x5416_0000_0000_0009,
    launch: 0x5417_0000_0000_000A,
};
const MEASUREMENT: LaunchDigest = [0x4D; 48];

fn bundle(policy: u64, vcek: [u8; 48]) -> Bundle<'static> {
    Bundle {
        image: &[],
        memory_mib: 1024,
        vcpus: 1,
        signature: CpuSignature::new(25, 17, 0),
        policy,
        chip_id: [0xC1; 64],
        tcb: TCB,
        vcek: VcekScalar(vcek),
        certificates: &[],
        scenario: "",
        strict: true,
    }
}

fn cpuid_page() -> CpuidPage {
    CpuidPage::build(Machine { signature: CpuSignature::new(25, 17, 0), vcpus: 1 }, |_, _| [0; 4])
}

fn launch_seeded(seed: u8) -> AmdSp {
    AmdSp::launch(&bundle(GuestPolicy::CLOISTER.0, [7; 48]), MEASUREMENT, cpuid_page(), [seed; 64]).unwrap()
}

fn launch() -> AmdSp {
    launch_seeded(1)
}

/// The guest's end: SNP ABI §8.26 as a guest driver reads it.
struct Client {
    vmpl: u8,
    key: [u8; 32],
    sequence: u64,
}

impl Client {
    fn new(sp: &AmdSp, vmpl: u8) -> Self {
        let at = 0x20 + 0x20 * usize::from(vmpl);
        Self { vmpl, key: sp.secrets_page()[at..at + 32].try_into().unwrap(), sequence: 1 }
    }

    /// A request with a header that `change` may spoil before it is authenticated.
    fn seal(&self, kind: u8, payload: &[u8], change: impl FnOnce(&mut Page)) -> Page {
        let mut page = [0; PAGE_BYTES];
        page[0x20..0x28].copy_from_slice(&self.sequence.to_le_bytes());
        page[0x30..0x38].copy_from_slice(&[1, 1, 0x60, 0, kind, 1, 0, 0]);
        page[0x36..0x38].copy_from_slice(&(payload.len() as u16).to_le_bytes());
        page[0x3C] = self.vmpl;
        page[0x60..0x60 + payload.len()].copy_from_slice(payload);
        change(&mut page);
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&page[0x20..0x28]);
        let (header, body) = page.split_at_mut(0x60);
        let tag = Aes256Gcm::new(&self.key.into())
            .encrypt_inout_detached(&nonce.into(), &header[0x30..], (&mut body[..payload.len()]).into())
            .unwrap();
        page[..16].copy_from_slice(&tag);
        page
    }

    fn open(&self, page: &Page, kind: u8) -> Vec<u8> {
        assert_eq!(page[0x20..0x28], (self.sequence + 1).to_le_bytes());
        assert_eq!(page[0x30..0x36], [1, 1, 0x60, 0, kind, 1]);
        assert_eq!(page[0x3C], self.vmpl);
        assert_eq!((&page[0x10..0x20], &page[0x28..0x30]), (&[0; 16][..], &[0; 8][..]));
        assert_eq!((&page[0x38..0x3C], &page[0x3D..0x60]), (&[0; 4][..], &[0; 35][..]));
        let size = usize::from(u16::from_le_bytes([page[0x36], page[0x37]]));
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&page[0x20..0x28]);
        let tag: [u8; 16] = page[..16].try_into().unwrap();
        let mut payload = page[0x60..0x60 + size].to_vec();
        Aes256Gcm::new(&self.key.into())
            .decrypt_inout_detached(
                &nonce.into(),
                &page[0x30..0x60],
                payload.as_mut_slice().into(),
                &tag.into(),
            )
            .expect("the response authenticates");
        payload
    }

    fn call(&mut self, sp: &mut AmdSp, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut response = [0; PAGE_BYTES];
        sp.guest_request(&self.seal(kind, payload, |_| ()), &mut response).unwrap();
        let payload = self.open(&response, kind + 1);
        self.sequence += 2;
        payload
    }
}

fn report_request(vmpl: u32, key_select: u32) -> Vec<u8> {
    let mut request = vec![0; 0x60];
    request[..64].copy_from_slice(&[0xDA; 64]);
    request[0x40..0x44].copy_from_slice(&vmpl.to_le_bytes());
    request[0x44..0x48].copy_from_slice(&key_select.to_le_bytes());
    request
}

fn status(response: &[u8]) -> u32 {
    u32::from_le_bytes(response[..4].try_into().unwrap())
}

#[test]
fn a_report_verifies_and_says_what_was_launched() {
    let mut sp = launch();
    let response = Client::new(&sp, 0).call(&mut sp, 5, &report_request(0, 0));
    assert_eq!(response.len(), 0x20 + 1184);
    assert_eq!(status(&response), 0);
    assert_eq!(response[4..8], 1184_u32.to_le_bytes());
    assert_eq!(response[8..0x20], [0; 0x18]);

    let raw = &response[0x20..];
    // R and S as the specification stores them: little-endian, 72 bytes each.
    let mut signature = [0; 96];
    for (scalar, at) in signature.chunks_exact_mut(48).zip([0x2A0, 0x2A0 + 72]) {
        scalar.copy_from_slice(&raw[at..at + 48]);
        scalar.reverse();
        assert_eq!(raw[at + 48..at + 72], [0; 24]);
    }
    assert!(raw[0x2A0 + 144..].iter().all(|b| *b == 0));
    let vcek = VerifyingKey::from(SigningKey::from_slice(&[7; 48]).unwrap());
    let signature = Signature::from_slice(&signature).unwrap();
    vcek.verify(&raw[..0x2A0], &signature).unwrap();
    for at in (0..0x2A0).step_by(41) {
        let mut changed = raw[..0x2A0].to_vec();
        changed[at] ^= 1;
        assert!(vcek.verify(&changed, &signature).is_err(), "{at:#x}");
    }

    let report = Report::parse(raw).unwrap();
    assert_eq!((report.version(), report.vmpl(), report.guest_svn()), (3, 0, 0));
    assert_eq!(report.policy(), GuestPolicy::CLOISTER);
    assert_eq!(report.platform_info(), PlatformInfo::CLOISTER);
    assert_eq!(report.report_data(), [0xDA; 64]);
    assert_eq!(report.measurement(), MEASUREMENT);
    assert_eq!(report.chip_id(), [0xC1; 64]);
    assert_eq!(report.cpuid(), Some((25, 17, 0)));
    assert_eq!(report.report_id_ma(), [0xFF; 32]);
    assert_eq!(report.host_data(), [0; 32]);
    let tcb = |bytes| Tcb::from_bytes(Product::Genoa, bytes).unwrap();
    assert_eq!(
        tcb(report.current_tcb()),
        Tcb { fmc: 0, boot_loader: 10, tee: 0, snp: 0x17, microcode: 0x54 }
    );
    assert_eq!(tcb(report.reported_tcb()), tcb(report.committed_tcb()));
    assert_eq!(tcb(report.launch_tcb()), tcb(report.current_tcb()));
    assert!(report.current_version() >= (1, 55, 0) && report.current_version() == report.committed_version());
}

#[test]
fn reports_are_repeatable_and_guests_are_not_alike() {
    let report = |seed| {
        let mut sp = launch_seeded(seed);
        let response = Client::new(&sp, 0).call(&mut sp, 5, &report_request(0, 1));
        Report::parse(&response[0x20..]).unwrap()
    };
    assert_eq!(report(1), report(1));
    assert_ne!(report(1).report_id(), report(2).report_id());
}

#[test]
fn the_secrets_page_has_the_layout_of_the_specification() {
    let page = launch().secrets_page();
    assert_eq!(page[..4], 3_u32.to_le_bytes());
    assert_eq!(page[4..8], [0; 4], "IMI_EN and reserved");
    assert_eq!(page[8..12], 0x00A1_0F10_u32.to_le_bytes());
    assert_eq!(page[12..0x20], [0; 0x14]);
    let keys: Vec<_> = page[0x20..0xA0].chunks_exact(32).collect();
    for (i, key) in keys.iter().enumerate() {
        assert!(key.iter().any(|b| *b != 0));
        assert!(keys[i + 1..].iter().all(|other| other != key));
    }
    assert!(page[0xA0..].iter().all(|b| *b == 0));
    assert_ne!(launch_seeded(2).secrets_page()[0x20..0x40], page[0x20..0x40]);
}

#[test]
fn each_level_counts_for_itself() {
    let mut sp = launch();
    let (mut zero, mut three) = (Client::new(&sp, 0), Client::new(&sp, 3));
    for _ in 0..3 {
        assert_eq!(status(&zero.call(&mut sp, 5, &report_request(0, 0))), 0);
    }
    assert_eq!(status(&three.call(&mut sp, 5, &report_request(3, 0))), 0);
    assert_eq!((zero.sequence, three.sequence), (7, 3));
}

#[test]
fn a_level_speaks_for_itself_and_lower_privileges_only() {
    let mut sp = launch();
    let mut one = Client::new(&sp, 1);
    for (vmpl, expected) in [(0, 0x16), (1, 0), (2, 0), (3, 0), (4, 0x16), (u32::MAX, 0x16)] {
        let response = one.call(&mut sp, 5, &report_request(vmpl, 0));
        assert_eq!(status(&response), expected, "{vmpl}");
        assert_eq!(response[0x20..].iter().any(|b| *b != 0), expected == 0, "no report comes with a refusal");
    }
}

#[test]
fn report_requests_are_checked() {
    let mut sp = launch();
    let mut client = Client::new(&sp, 0);
    // VLEK, reserved key selection, reserved bits, reserved bytes.
    for (at, value, expected) in
        [(0x44, 2, 0x27), (0x44, 3, 0x27), (0x44, 4, 0x16), (0x48, 1, 0x16), (0x5F, 1, 0x16)]
    {
        let mut request = report_request(0, 0);
        request[at] = value;
        assert_eq!(status(&client.call(&mut sp, 5, &request)), expected, "{at:#x}");
    }
    // Shorter than the structure.
    let mut response = [0; PAGE_BYTES];
    let short = client.seal(5, &report_request(0, 0)[..0x50], |_| ());
    assert_eq!(sp.guest_request(&short, &mut response), Err(Status::InvalidParam));
}

#[test]
fn headers_that_firmware_refuses_are_refused() {
    let mut sp = launch();
    let mut client = Client::new(&sp, 0);
    let request = report_request(0, 0);
    let untouched = [0x55; PAGE_BYTES];
    for (at, value, name) in [
        (0x30, 0, "algorithm"),
        (0x30, 2, "algorithm"),
        (0x31, 0, "header version"),
        (0x31, 2, "header version"),
        (0x32, 0x40, "header size"),
        (0x34, 0, "type"),
        (0x34, 6, "a response"),
        (0x34, 7, "migration"),
        (0x34, 0xFF, "type"),
        (0x35, 0, "version"),
        (0x35, 2, "version"),
        (0x36, 0, "size"),
        (0x36, 0x5F, "size"),
        (0x37, 0x10, "size beyond the page"),
        (0x3C, 4, "VMPCK"),
    ] {
        let page = client.seal(5, &request, |page| page[at] = value);
        let mut response = untouched;
        assert_eq!(sp.guest_request(&page, &mut response), Err(Status::InvalidParam), "{name} {value}");
        assert_eq!(response, untouched);
    }
    // None of these moved the count.
    assert_eq!(status(&client.call(&mut sp, 5, &request)), 0);
}

#[test]
fn a_message_that_was_touched_is_refused() {
    let mut sp = launch();
    let mut client = Client::new(&sp, 0);
    let good = client.seal(5, &report_request(0, 0), |_| ());
    let mut response = [0; PAGE_BYTES];
    // Tag, sequence number (the nonce), authenticated header fields, payload.
    for at in [0x00, 0x0F, 0x20, 0x38, 0x3D, 0x5F, 0x60, 0xBF] {
        let mut page = good;
        page[at] ^= 0x80;
        assert_eq!(sp.guest_request(&page, &mut response), Err(Status::BadMeasurement), "{at:#x}");
    }
    // Another level's key.
    let mut page = good;
    page[0x3C] = 1;
    assert_eq!(sp.guest_request(&page, &mut response), Err(Status::BadMeasurement));
    assert_eq!(status(&client.call(&mut sp, 5, &report_request(0, 0))), 0);
}

#[test]
fn sequence_numbers_neither_repeat_nor_jump() {
    let mut sp = launch();
    let mut client = Client::new(&sp, 0);
    let mut response = [0; PAGE_BYTES];
    let first = client.seal(5, &report_request(0, 0), |_| ());
    client.call(&mut sp, 5, &report_request(0, 0));
    assert_eq!(sp.guest_request(&first, &mut response), Err(Status::AeadOverflow), "replayed");
    for sequence in [0, 1, 2, 4, 5, u64::MAX] {
        client.sequence = sequence;
        let page = client.seal(5, &report_request(0, 0), |_| ());
        assert_eq!(sp.guest_request(&page, &mut response), Err(Status::AeadOverflow), "{sequence}");
    }
    client.sequence = 3;
    assert_eq!(status(&client.call(&mut sp, 5, &report_request(0, 0))), 0);
}

#[test]
fn the_last_sequence_number_is_not_reused() {
    let mut sp = launch();
    sp.guest.channels[0].count = u64::MAX - 3;
    let mut client = Client::new(&sp, 0);
    client.sequence = u64::MAX - 2;
    client.call(&mut sp, 5, &report_request(0, 0));
    client.sequence = u64::MAX;
    let page = client.seal(5, &report_request(0, 0), |_| ());
    assert_eq!(sp.guest_request(&page, &mut [0; PAGE_BYTES]), Err(Status::AeadOverflow));
}

fn key_request(select: u32, fields: u64, vmpl: u32) -> Vec<u8> {
    let mut request = vec![0; 0x20];
    request[..4].copy_from_slice(&select.to_le_bytes());
    request[8..16].copy_from_slice(&fields.to_le_bytes());
    request[16..20].copy_from_slice(&vmpl.to_le_bytes());
    request
}

#[test]
fn derived_keys_hang_on_what_was_selected() {
    let key = |seed, request: &[u8]| {
        let mut sp = launch_seeded(seed);
        let response = Client::new(&sp, 0).call(&mut sp, 3, request);
        assert_eq!((status(&response), response.len()), (0, 0x40));
        response[0x20..].to_vec()
    };
    let requests = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 8, 0), (0, 0x20, 0), (2, 0, 0), (1, 0, 0)]
        .map(|(s, f, v)| key_request(s, f, v));
    let keys: Vec<_> = requests.iter().map(|r| key(1, r)).collect();
    for (i, one) in keys.iter().enumerate() {
        assert!(keys[i + 1..].iter().all(|other| other != one), "{i}");
    }
    // The chip's keys outlive the guest, those of its VMRK do not.
    assert_eq!(key(2, &requests[0]), keys[0]);
    assert_ne!(key(2, &requests[6]), keys[6]);
}

#[test]
fn key_requests_are_checked() {
    let mut sp = launch();
    let mut client = Client::new(&sp, 2);
    let mut newer = key_request(0, 0x20, 2);
    newer[0x18] = 10;
    let mut svn = key_request(0, 0x10, 2);
    svn[0x14] = 1;
    let mut reserved = key_request(0, 0, 2);
    reserved[4] = 1;
    for (request, expected) in [
        (key_request(0, 0, 2), 0),
        (key_request(0, 0, 1), 0x16),
        (key_request(0, 0, 4), 0x16),
        (key_request(0, 0x40, 2), 0x16),
        (key_request(4, 0, 2), 0x27),
        (key_request(6, 0, 2), 0x27),
        (key_request(8, 0, 2), 0x16),
        (newer, 0x16),
        (svn, 0x16),
        (reserved, 0x16),
    ] {
        let response = client.call(&mut sp, 3, &request);
        assert_eq!(status(&response), expected, "{request:?}");
        assert_eq!(response[0x20..].iter().any(|b| *b != 0), expected == 0);
    }
}

#[test]
fn cpuid_values_are_put_right() {
    let mut sp = launch();
    let mut client = Client::new(&sp, 0);
    let page = cpuid_page().to_page();
    // The page itself, as a request, is right in every entry.
    let size = 16 + 48 * cpuid_page().entries().len();
    let response = client.call(&mut sp, 1, &page[..size]);
    let judged = cpuid_page().entries().iter().filter(|entry| entry.leaf >> 30 != 1).count() as u32;
    assert_eq!((status(&response), &response[4..8]), (0, &judged.to_le_bytes()[..]));
    assert_eq!(response[16..], page[16..size]);

    // A lie in the first entry (leaf 0, EAX) is put right and reported.
    let mut lie = page[..size].to_vec();
    lie[16 + 0x18] ^= 1;
    let response = client.call(&mut sp, 1, &lie);
    assert_eq!(status(&response), 0x16);
    assert_eq!(response[16..], page[16..size]);

    // A leaf of neither range is not judged; an unknown one of the ranges is zero.
    for (leaf, judged, kept) in [(0x4000_0000_u32, 0_u32, true), (0x8000_00FF, 1, false)] {
        let mut request = vec![0; 64];
        request[0] = 1;
        request[16..20].copy_from_slice(&leaf.to_le_bytes());
        request[16 + 0x18] = 9;
        let response = client.call(&mut sp, 1, &request);
        assert_eq!(response[4..8], judged.to_le_bytes());
        assert_eq!(response[16 + 0x18] == 9, kept);
    }
}

#[test]
fn cpuid_counts_are_checked() {
    let mut sp = launch();
    let mut client = Client::new(&sp, 0);
    for (at, value) in [(0, 65), (4, 1), (8, 1)] {
        let mut request = vec![0; 64];
        request[at] = value;
        let response = client.call(&mut sp, 1, &request);
        assert_eq!((status(&response), response.len()), (0x16, 64));
    }
    // More functions than the message has room for.
    let mut request = vec![0; 64];
    request[0] = 2;
    let page = client.seal(1, &request, |_| ());
    assert_eq!(sp.guest_request(&page, &mut [0; PAGE_BYTES]), Err(Status::InvalidParam));
}

#[test]
fn policies_that_firmware_refuses_are_refused() {
    let launch =
        |policy| AmdSp::launch(&bundle(policy, [7; 48]), MEASUREMENT, cpuid_page(), [1; 64]).map(|_| ());
    let refused = |policy, status| Err(LaunchError::Policy { policy, status });
    assert_eq!(launch(0x3_0000), Ok(()));
    assert_eq!(launch(0x1_0000), refused(0x1_0000, Status::InvalidParam));
    assert_eq!(launch(1 << 63 | 0x2_0000), refused(1 << 63 | 0x2_0000, Status::InvalidParam));
    assert_eq!(launch(0x2_FF01), refused(0x2_FF01, Status::PolicyFailure));
    assert_eq!(launch(0x2_013A), refused(0x2_013A, Status::PolicyFailure));
}

#[test]
fn a_vcek_must_be_a_scalar() {
    for scalar in [[0; 48], [0xFF; 48]] {
        let bundle = bundle(GuestPolicy::CLOISTER.0, scalar);
        assert_eq!(
            AmdSp::launch(&bundle, MEASUREMENT, cpuid_page(), [1; 64]).map(|_| ()),
            Err(LaunchError::Vcek)
        );
    }
}

proptest::proptest! {
    /// Whoever holds a VMPCK may say anything: every message has an answer or a status.
    #[test]
    fn no_authenticated_message_is_too_odd(
        kind in 0_u8..16,
        blocks in 1_usize..250,
        head in proptest::collection::vec(0_u8.., 0x60),
    ) {
        let mut sp = launch();
        let client = Client::new(&sp, 0);
        let mut payload = vec![0; 16 * blocks];
        for (place, byte) in payload.iter_mut().zip(head) {
            *place = byte;
        }
        let mut response = [0; PAGE_BYTES];
        let result = sp.guest_request(&client.seal(kind, &payload, |_| ()), &mut response);
        match result {
            Ok(()) => assert!(!client.open(&response, kind + 1).is_empty()),
            Err(status) => assert_eq!(status, Status::InvalidParam),
        }
    }
}
