//! Guest messages: the encrypted, numbered conversation with the AMD-SP (SNP ABI, AMD 56860, §7 and §8.26).
//!
//! The host carries the messages and may drop, replay or alter them (REQUIREMENTS A11):
//! * Messages are built and read in private memory; the shared pages see ciphertext, copied once each way.
//! * A sequence number goes with one plaintext only. Sending again means sending the same bytes again.
//! * Anything but the expected answer wipes the key, and with it every further message.

use crate::host::HostFault;
use crate::snp::ghcb::GuestRequestStatus;
use aes_gcm::aead::{AeadInOut, KeyInit, inout::InOutBuf};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use alloc::vec::Vec;
use zeroize::Zeroizing;

/// Bytes of a message with its header: one page.
pub const MESSAGE_BYTES: usize = 4096;
/// Bytes of an attestation report.
pub const REPORT_BYTES: usize = 1184;

/// How often a busy host is asked again with the same bytes, after a rest each time. Hosts throttle guests to about one
/// message a second (Linux's guest waits for up to a minute), and giving up costs the key.
const BUSY_RETRIES: u32 = 1000;

// The header, table "SNP_GUEST_MSG header".
const HEADER_BYTES: usize = 0x60;
const TAG: core::ops::Range<usize> = 0x00..0x10;
const SEQUENCE: core::ops::Range<usize> = 0x20..0x28;
/// The part of the header that is authenticated but not encrypted.
const AUTHENTICATED: core::ops::Range<usize> = 0x30..0x60;
const ALGORITHM: usize = 0x30;
const HEADER_VERSION: usize = 0x31;
const HEADER_SIZE: usize = 0x32;
const KIND: usize = 0x34;
const MESSAGE_VERSION: usize = 0x35;
const PAYLOAD_SIZE: usize = 0x36;
const KEY_INDEX: usize = 0x3c;

const AES_256_GCM: u8 = 1;
const VERSION: u8 = 1;
const REPORT_REQUEST: u8 = 5;
const REPORT_RESPONSE: u8 = 6;
/// `MSG_REPORT_REQ`: report data, VMPL, key selection and reserved bytes.
const REPORT_REQUEST_BYTES: usize = 96;
/// `MSG_REPORT_RSP`: status, size and reserved bytes before the report.
const REPORT_OFFSET: usize = 32;

/// The way of a message to the AMD-SP and back, through the host.
pub trait Carrier {
    /// Carries `message`; on success `reply` holds what came back. With `certificates`, the host's certificate table is
    /// asked for as well and put there.
    fn carry(
        &mut self,
        message: &[u8; MESSAGE_BYTES],
        reply: &mut [u8; MESSAGE_BYTES],
        certificates: Option<&mut Vec<u8>>,
    ) -> Result<GuestRequestStatus, HostFault>;

    /// Waits for some hundredths of a second, before a busy host is asked again. Does not rest on a clock of the host.
    fn rest(&mut self);
}

/// Why there is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// The host did not deliver the message, or delivered another answer. The key was wiped.
    Broken,
    /// The key was wiped before.
    NoKey,
}

/// A report and the certificates that the host offered with it. The certificates are the host's word: whoever verifies
/// the report checks them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The report as the AMD-SP gave it.
    pub report: [u8; REPORT_BYTES],
    /// The host's certificate table; may be empty.
    pub certificates: Vec<u8>,
}

/// The guest's end of the conversation.
pub struct Messenger {
    key: Option<Zeroizing<[u8; 32]>>,
    sequence: u64,
}

impl Messenger {
    /// Starts with VMPCK0. Nobody has used this key before: the launch made it, and the guest is its only holder.
    pub const fn new(vmpck0: Zeroizing<[u8; 32]>) -> Self {
        Self { key: Some(vmpck0), sequence: 0 }
    }

    /// Asks for a report over `report_data` at VMPL 0, signed with the chip's key or the one that the host loaded.
    pub fn report(
        &mut self,
        carrier: &mut impl Carrier,
        report_data: &[u8; 64],
    ) -> Result<Report, MessageError> {
        let mut payload = [0; REPORT_REQUEST_BYTES];
        payload[..64].copy_from_slice(report_data);
        let mut certificates = Vec::new();
        let reply =
            self.converse(carrier, REPORT_REQUEST, &payload, REPORT_RESPONSE, Some(&mut certificates))?;
        match parse_report(&reply[HEADER_BYTES..], payload_size(&reply)) {
            Some(report) => Ok(Report { report, certificates }),
            None => self.broken(),
        }
    }

    fn broken<T>(&mut self) -> Result<T, MessageError> {
        self.key = None;
        Err(MessageError::Broken)
    }

    /// Sends one message and returns the decrypted answer, header included.
    fn converse(
        &mut self,
        carrier: &mut impl Carrier,
        kind: u8,
        payload: &[u8],
        expected_kind: u8,
        mut certificates: Option<&mut Vec<u8>>,
    ) -> Result<Zeroizing<[u8; MESSAGE_BYTES]>, MessageError> {
        let key = self.key.as_ref().ok_or(MessageError::NoKey)?;
        // The AMD-SP answers message n with n + 1 and expects n + 2 next (§8.26, "message sequence number").
        let (Some(sent), Some(expected)) = (self.sequence.checked_add(1), self.sequence.checked_add(2))
        else {
            return self.broken();
        };
        let Some(message) = seal(key, sent, kind, payload) else { return self.broken() };
        // From here on the number is used up, whatever the host does.
        self.sequence = expected;

        let mut reply = Zeroizing::new([0; MESSAGE_BYTES]);
        let mut tries = 0;
        loop {
            match carrier.carry(&message, &mut reply, certificates.as_deref_mut()) {
                Ok(GuestRequestStatus(0)) => break,
                Ok(GuestRequestStatus::BUSY) if tries < BUSY_RETRIES => {
                    tries += 1;
                    carrier.rest();
                }
                // More certificates than there is room for: the report is worth having without them.
                Ok(GuestRequestStatus::INVALID_LENGTH) if certificates.is_some() => {
                    if let Some(table) = certificates.take() {
                        table.clear();
                    }
                }
                _ => return self.broken(),
            }
        }
        let opened = match &self.key {
            Some(key) => open(key, expected, expected_kind, &mut reply),
            None => None,
        };
        if opened.is_none() {
            return self.broken();
        }
        Ok(reply)
    }
}

fn payload_size(message: &[u8; MESSAGE_BYTES]) -> usize {
    u16::from_le_bytes([message[PAYLOAD_SIZE], message[PAYLOAD_SIZE + 1]]).into()
}

/// The IV is the sequence number (§8.26, "IV").
fn nonce(sequence: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&sequence.to_le_bytes());
    nonce.into()
}

fn seal(key: &[u8; 32], sequence: u64, kind: u8, payload: &[u8]) -> Option<Zeroizing<[u8; MESSAGE_BYTES]>> {
    let mut message = Zeroizing::new([0; MESSAGE_BYTES]);
    let end = HEADER_BYTES.checked_add(payload.len()).filter(|end| *end <= MESSAGE_BYTES)?;
    message[SEQUENCE].copy_from_slice(&sequence.to_le_bytes());
    message[ALGORITHM] = AES_256_GCM;
    message[HEADER_VERSION] = VERSION;
    message[HEADER_SIZE..HEADER_SIZE + 2].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
    message[KIND] = kind;
    message[MESSAGE_VERSION] = VERSION;
    message[PAYLOAD_SIZE..PAYLOAD_SIZE + 2].copy_from_slice(&(payload.len() as u16).to_le_bytes());
    message[KEY_INDEX] = 0;
    message[HEADER_BYTES..end].copy_from_slice(payload);

    let (header, body) = message.split_at_mut(HEADER_BYTES);
    let body = InOutBuf::from(&mut body[..payload.len()]);
    let cipher = Aes256Gcm::new(key.into());
    let tag = cipher.encrypt_inout_detached(&nonce(sequence), &header[AUTHENTICATED], body).ok()?;
    header[TAG].copy_from_slice(&tag);
    Some(message)
}

/// Decrypts in place, if every field of the header is the expected one.
fn open(key: &[u8; 32], sequence: u64, kind: u8, message: &mut [u8; MESSAGE_BYTES]) -> Option<()> {
    let size = payload_size(message);
    let (header, body) = message.split_at_mut(HEADER_BYTES);
    let expected = header[SEQUENCE] == sequence.to_le_bytes()
        && header[ALGORITHM] == AES_256_GCM
        && header[HEADER_VERSION] == VERSION
        && header[HEADER_SIZE..HEADER_SIZE + 2] == (HEADER_BYTES as u16).to_le_bytes()
        && header[KIND] == kind
        && header[MESSAGE_VERSION] == VERSION
        && header[KEY_INDEX] == 0;
    if !expected {
        return None;
    }
    let mut tag = Tag::default();
    tag.copy_from_slice(&header[TAG]);
    let body = InOutBuf::from(body.get_mut(..size)?);
    let cipher = Aes256Gcm::new(key.into());
    cipher.decrypt_inout_detached(&nonce(sequence), &header[AUTHENTICATED], body, &tag).ok()
}

fn parse_report(payload: &[u8], size: usize) -> Option<[u8; REPORT_BYTES]> {
    let payload = payload.get(..size)?;
    let field =
        |at: usize| -> Option<u32> { Some(u32::from_le_bytes(payload.get(at..at + 4)?.try_into().ok()?)) };
    let (status, length) = (field(0)?, field(4)?);
    if status != 0 || length as usize != REPORT_BYTES {
        return None;
    }
    payload.get(REPORT_OFFSET..REPORT_OFFSET + REPORT_BYTES)?.try_into().ok()
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
