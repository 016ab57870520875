//! Guest messages: their header, how they are protected, and the order in which firmware checks them
//! (SNP ABI §8.26, tables "Message Header Format" and "AEAD Algorithm Encodings").
//!
//! AMD has published the source of its Genoa firmware; where the specification leaves the order of checks or the
//! status open, this does what that firmware was seen to do.

use super::{Channel, Status, VMPLS};
use crate::{PAGE_BYTES, Page};
use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
use alloc::vec::Vec;

/// Offsets into the header.
mod offset {
    /// `AUTHTAG`, 32 bytes, of which GCM uses 16.
    pub const TAG: usize = 0x00;
    pub const SEQUENCE: usize = 0x20;
    pub const ALGORITHM: usize = 0x30;
    pub const HEADER_VERSION: usize = 0x31;
    pub const HEADER_SIZE: usize = 0x32;
    pub const KIND: usize = 0x34;
    pub const VERSION: usize = 0x35;
    pub const SIZE: usize = 0x36;
    pub const VMPCK: usize = 0x3C;
    pub const PAYLOAD: usize = 0x60;
}

const TAG_FIELD: usize = 32;
const TAG_BYTES: usize = 16;
const HEADER_VERSION: u8 = 1;
/// `ALGO` of AES-256-GCM.
const AES_256_GCM: u8 = 1;
/// `MSG_SIZE` of a request is a multiple of this.
const SIZE_UNIT: u16 = 16;

/// `MSG_VERSION` of all messages that are answered here.
pub(super) const VERSION: u8 = 1;
/// Longest payload: with its header it stays within a page.
const MAX_PAYLOAD: usize = PAGE_BYTES - offset::PAYLOAD;

/// `MSG_TYPE` (SNP ABI §8.26, table "Message Type Encodings").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind(pub u8);

impl Kind {
    pub(super) const CPUID_REQ: Self = Self(1);
    pub(super) const CPUID_RSP: Self = Self(2);
    pub(super) const KEY_REQ: Self = Self(3);
    pub(super) const KEY_RSP: Self = Self(4);
    pub(super) const REPORT_REQ: Self = Self(5);
    pub(super) const REPORT_RSP: Self = Self(6);
}

/// An authenticated request.
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) version: u8,
    /// The privilege level that sent it: `MSG_VMPCK`, proven by the key.
    pub(super) vmpl: u8,
    pub(super) payload: Vec<u8>,
    sequence: u64,
}

fn bytes<const N: usize>(page: &Page, at: usize) -> [u8; N] {
    core::array::from_fn(|i| page[at + i])
}

/// The nonce: `MSG_SEQNO` in the low 8 of 12 bytes.
fn nonce(sequence: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&sequence.to_le_bytes());
    nonce
}

/// Checks and decrypts a request.
pub(super) fn open(page: &Page, channels: &[Channel; VMPLS]) -> Result<Request, Status> {
    let size = u16::from_le_bytes(bytes(page, offset::SIZE));
    let header_size = usize::from(u16::from_le_bytes(bytes(page, offset::HEADER_SIZE)));
    if page[offset::HEADER_VERSION] != HEADER_VERSION
        || header_size != offset::PAYLOAD
        || page[offset::ALGORITHM] != AES_256_GCM
        || size == 0
        || !size.is_multiple_of(SIZE_UNIT)
        || usize::from(size) > MAX_PAYLOAD
    {
        return Err(Status::InvalidParam);
    }
    let vmpl = page[offset::VMPCK];
    let channel = channels.get(usize::from(vmpl)).ok_or(Status::InvalidParam)?;

    let sequence = u64::from_le_bytes(bytes(page, offset::SEQUENCE));
    let mut payload = page[offset::PAYLOAD..offset::PAYLOAD + usize::from(size)].to_vec();
    let tag: [u8; TAG_BYTES] = bytes(page, offset::TAG);
    Aes256Gcm::new(&channel.key.into())
        .decrypt_inout_detached(
            &nonce(sequence).into(),
            &page[offset::ALGORITHM..offset::PAYLOAD],
            payload.as_mut_slice().into(),
            &tag.into(),
        )
        .map_err(|_| Status::BadMeasurement)?;

    // The count is of requests and responses. The last pair that fits leaves u64::MAX - 1.
    if channel.count == u64::MAX - 1 || sequence != channel.count + 1 {
        return Err(Status::AeadOverflow);
    }
    Ok(Request { kind: Kind(page[offset::KIND]), version: page[offset::VERSION], vmpl, payload, sequence })
}

/// Encrypts the response to `request` and counts both messages.
pub(super) fn seal(
    request: &Request,
    kind: Kind,
    payload: &[u8],
    channels: &mut [Channel; VMPLS],
    page: &mut Page,
) -> Result<(), Status> {
    let channel = channels.get_mut(usize::from(request.vmpl)).ok_or(Status::InvalidParam)?;
    let size = u16::try_from(payload.len()).map_err(|_| Status::InvalidParam)?;
    if payload.len() > MAX_PAYLOAD {
        return Err(Status::InvalidParam);
    }
    // `open` admits no sequence number above u64::MAX - 2.
    let sequence = request.sequence + 1;

    let mut header = [0; offset::PAYLOAD];
    header[offset::SEQUENCE..][..8].copy_from_slice(&sequence.to_le_bytes());
    header[offset::ALGORITHM] = AES_256_GCM;
    header[offset::HEADER_VERSION] = HEADER_VERSION;
    header[offset::HEADER_SIZE..][..2].copy_from_slice(&(offset::PAYLOAD as u16).to_le_bytes());
    header[offset::KIND] = kind.0;
    header[offset::VERSION] = VERSION;
    header[offset::SIZE..][..2].copy_from_slice(&size.to_le_bytes());
    header[offset::VMPCK] = request.vmpl;

    let mut sealed = payload.to_vec();
    let tag = Aes256Gcm::new(&channel.key.into())
        .encrypt_inout_detached(
            &nonce(sequence).into(),
            &header[offset::ALGORITHM..],
            sealed.as_mut_slice().into(),
        )
        .map_err(|_| Status::InvalidParam)?;
    header[offset::TAG..offset::TAG + TAG_BYTES].copy_from_slice(&tag);
    const { assert!(TAG_BYTES <= TAG_FIELD && offset::TAG + TAG_FIELD == offset::SEQUENCE) };

    page[..offset::PAYLOAD].copy_from_slice(&header);
    page[offset::PAYLOAD..][..sealed.len()].copy_from_slice(&sealed);
    channel.count += 2;
    Ok(())
}
