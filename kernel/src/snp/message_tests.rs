//! Guest messages against an AMD-SP and a host that is honest or lies in one way.

use super::*;

const KEY: [u8; 32] = [7; 32];

type Page = [u8; MESSAGE_BYTES];

/// An AMD-SP that keeps the rules, behind a host that does `lie` to what it carries.
struct Platform<L> {
    sequence: u64,
    seen: Vec<Page>,
    rests: usize,
    lie: L,
}

impl<L: FnMut(usize, &mut Page) -> Option<GuestRequestStatus>> Platform<L> {
    fn new(lie: L) -> Self {
        Self { sequence: 0, seen: Vec::new(), rests: 0, lie }
    }

    /// `SNP_GUEST_REQUEST` as the firmware does it.
    fn firmware(&mut self, message: &Page, reply: &mut Page) -> GuestRequestStatus {
        let mut request = *message;
        if open(&KEY, self.sequence + 1, REPORT_REQUEST, &mut request).is_none() {
            return GuestRequestStatus(0x16);
        }
        let mut payload = [0; REPORT_OFFSET + REPORT_BYTES];
        payload[4..8].copy_from_slice(&(REPORT_BYTES as u32).to_le_bytes());
        payload[REPORT_OFFSET + 0x50..REPORT_OFFSET + 0x90]
            .copy_from_slice(&request[HEADER_BYTES..HEADER_BYTES + 64]);
        self.sequence += 2;
        *reply = *seal(&KEY, self.sequence, REPORT_RESPONSE, &payload).unwrap();
        GuestRequestStatus(0)
    }
}

impl<L: FnMut(usize, &mut Page) -> Option<GuestRequestStatus>> Carrier for Platform<L> {
    fn carry(
        &mut self,
        message: &Page,
        reply: &mut Page,
        certificates: Option<&mut Vec<u8>>,
    ) -> Result<GuestRequestStatus, HostFault> {
        self.seen.push(*message);
        let turn = self.seen.len();
        // A lie before delivery: the host answers by itself.
        if let Some(status) = (self.lie)(turn, &mut [0; MESSAGE_BYTES]) {
            return Ok(status);
        }
        let status = self.firmware(message, reply);
        (self.lie)(turn, reply);
        if let Some(table) = certificates {
            table.extend_from_slice(b"certificates");
        }
        Ok(status)
    }

    fn rest(&mut self) {
        self.rests += 1;
    }
}

fn messenger() -> Messenger {
    Messenger::new(Zeroizing::new(KEY))
}

fn honest(_: usize, _: &mut Page) -> Option<GuestRequestStatus> {
    None
}

#[test]
fn a_report_holds_what_was_asked_for() {
    let (mut guest, mut platform) = (messenger(), Platform::new(honest));
    for round in 0..3u8 {
        let report = guest.report(&mut platform, &[round; 64]).unwrap();
        assert_eq!(report.report[0x50..0x90], [round; 64]);
        assert_eq!(report.certificates, b"certificates");
    }
    let numbers: Vec<u8> = platform.seen.iter().map(|message| message[SEQUENCE.start]).collect();
    assert_eq!(numbers, [1, 3, 5]);
}

#[test]
fn the_report_data_does_not_appear_on_the_way() {
    let mut platform = Platform::new(honest);
    messenger().report(&mut platform, &[0x5a; 64]).ok();
    assert!(platform.seen.iter().all(|page| !page.windows(16).any(|run| run == [0x5a; 16])));
}

/// After a lie the guest has no key, whatever comes next.
fn wiped_by(lie: impl FnMut(usize, &mut Page) -> Option<GuestRequestStatus>) {
    let (mut guest, mut platform) = (messenger(), Platform::new(lie));
    assert_eq!(guest.report(&mut platform, &[1; 64]), Err(MessageError::Broken));
    assert!(guest.key.is_none());
    assert_eq!(guest.report(&mut Platform::new(honest), &[1; 64]), Err(MessageError::NoKey));
}

#[test]
fn a11_every_altered_byte_wipes_the_key() {
    let header = [TAG.start, SEQUENCE.start, ALGORITHM, HEADER_VERSION, HEADER_SIZE, KIND, MESSAGE_VERSION];
    for at in header.into_iter().chain([PAYLOAD_SIZE, PAYLOAD_SIZE + 1, KEY_INDEX, 0x5f, HEADER_BYTES, 0x500])
    {
        wiped_by(move |_, reply| {
            reply[at] ^= 1;
            None
        });
    }
}

#[test]
fn a11_a_replayed_answer_wipes_the_key() {
    let (mut guest, mut kept) = (messenger(), [0; MESSAGE_BYTES]);
    let mut platform = Platform::new(|turn, reply: &mut Page| {
        if reply[TAG] != [0; 16] {
            if turn == 1 { kept = *reply } else { *reply = kept }
        }
        None
    });
    assert!(guest.report(&mut platform, &[1; 64]).is_ok());
    assert_eq!(guest.report(&mut platform, &[1; 64]), Err(MessageError::Broken));
    assert!(guest.key.is_none());
}

#[test]
fn a11_an_answer_that_never_came_wipes_the_key() {
    wiped_by(|_, _| Some(GuestRequestStatus(0)));
    wiped_by(|_, _| Some(GuestRequestStatus(0x16)));
    wiped_by(|_, _| Some(GuestRequestStatus(3 << 32)));
    wiped_by(|_, _| Some(GuestRequestStatus::BUSY));
}

#[test]
fn a11_a_retry_sends_the_same_bytes() {
    let mut platform = Platform::new(|turn, _: &mut Page| (turn < 4).then_some(GuestRequestStatus::BUSY));
    assert!(messenger().report(&mut platform, &[1; 64]).is_ok());
    assert_eq!(platform.seen.len(), 4);
    assert_eq!(platform.rests, 3, "one before each retry");
    assert!(platform.seen.iter().all(|message| *message == platform.seen[0]));
}

#[test]
fn too_many_certificates_cost_the_certificates_only() {
    let mut platform =
        Platform::new(|turn, _: &mut Page| (turn == 1).then_some(GuestRequestStatus::INVALID_LENGTH));
    let report = messenger().report(&mut platform, &[1; 64]).unwrap();
    assert!(report.certificates.is_empty());
    assert_eq!(platform.seen[0], platform.seen[1]);
}
