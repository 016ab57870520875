//! A host that answers guest messages, with or without the help of the AMD-SP.

use crate::bytes::Bytes;
use aes_gcm::aead::{AeadInOut, KeyInit, inout::InOutBuf};
use aes_gcm::{Aes256Gcm, Nonce};
use kernel::host::HostFault;
use kernel::snp::ghcb::GuestRequestStatus;
use kernel::snp::message::{Carrier, MESSAGE_BYTES, MessageError, Messenger, REPORT_BYTES};
use zeroize::Zeroizing;

const KEY: [u8; 32] = [0x42; 32];
const HEADER: usize = 0x60;

struct Host<'a> {
    script: Bytes<'a>,
    /// Messages with a sequence number that was seen before must be the same message.
    sent: Vec<[u8; MESSAGE_BYTES]>,
    /// Whether the last answer was one that the AMD-SP really gave.
    genuine: bool,
}

impl Carrier for Host<'_> {
    fn carry(
        &mut self,
        message: &[u8; MESSAGE_BYTES],
        reply: &mut [u8; MESSAGE_BYTES],
        certificates: Option<&mut Vec<u8>>,
    ) -> Result<GuestRequestStatus, HostFault> {
        let number =
            |message: &[u8; MESSAGE_BYTES]| u64::from_le_bytes(message[0x20..0x28].try_into().unwrap());
        for earlier in &self.sent {
            assert!(number(earlier) != number(message) || earlier == message, "an IV was used twice");
        }
        self.sent.push(*message);
        if let Some(table) = certificates {
            *table = self.script.some(64).to_vec();
        }
        self.genuine = false;
        reply.fill(0);
        match self.script.u8() {
            0 => return Err(HostFault),
            1 => return Ok(GuestRequestStatus(self.script.u64())),
            2 if self.sent.len() < 100 => return Ok(GuestRequestStatus::BUSY),
            3 => {
                // Whatever the host likes.
                let bytes = self.script.some(MESSAGE_BYTES);
                reply[..bytes.len()].copy_from_slice(bytes);
            }
            edits => {
                seal(number(message) + 1, reply);
                self.genuine = true;
                for _ in 0..edits >> 6 {
                    let (at, change) = (usize::from(self.script.u16()) % (HEADER + 1216), self.script.u8());
                    reply[at] ^= change;
                    // The reserved words at 0x28 do not count, and neither does a change that is none.
                    self.genuine &= change == 0 || (0x28..0x30).contains(&at) || (0x10..0x20).contains(&at);
                }
            }
        }
        Ok(GuestRequestStatus(0))
    }

    fn rest(&mut self) {}
}

/// The answer of an AMD-SP (SNP ABI §8.26 and §7.3) with a report of zeros.
fn seal(sequence: u64, reply: &mut [u8; MESSAGE_BYTES]) {
    let size = 32 + REPORT_BYTES;
    reply[0x20..0x28].copy_from_slice(&sequence.to_le_bytes());
    reply[0x30..0x36].copy_from_slice(&[1, 1, HEADER as u8, 0, 6, 1]);
    reply[0x36..0x38].copy_from_slice(&(size as u16).to_le_bytes());
    reply[HEADER + 4..HEADER + 8].copy_from_slice(&(REPORT_BYTES as u32).to_le_bytes());
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&sequence.to_le_bytes());
    let (header, body) = reply.split_at_mut(HEADER);
    let tag = Aes256Gcm::new(&KEY.into())
        .encrypt_inout_detached(&Nonce::from(nonce), &header[0x30..], InOutBuf::from(&mut body[..size]))
        .expect("a short message");
    header[..16].copy_from_slice(&tag);
}

/// A few reports, one after the other.
pub fn run(data: &[u8]) {
    let mut host = Host { script: Bytes(data), sent: Vec::new(), genuine: false };
    let mut messenger = Messenger::new(Zeroizing::new(KEY));
    let mut broken = false;
    for data in 0..4 {
        match messenger.report(&mut host, &[data; 64]) {
            Ok(_) => assert!(host.genuine && !broken, "a forged answer was believed"),
            Err(MessageError::NoKey) => assert!(broken, "the key went without a reason"),
            Err(MessageError::Broken) => {
                assert!(!broken, "a message was sent without a key");
                broken = true;
            }
        }
    }
}

/// Honest answers, and one of each other kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let certificates = vec![0; 64];
    let answer = |kind: u8| [certificates.clone(), vec![kind]].concat();
    let mut seeds: Vec<_> = (0..5).map(answer).collect();
    seeds.push([answer(4), answer(4), answer(2), answer(4)].concat());
    seeds.push([answer(0x84), vec![0x28, 0, 1, 0x70, 0, 1]].concat());
    seeds
}
