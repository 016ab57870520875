//! Key derivation: `MSG_KEY_REQ` and its answer (SNP ABI §7.2).
//!
//! The chip's secret is not the model's to have, so a derived key here hangs on the development VCEK in its place. What
//! it is bound to is as specified: the same request by the same guest on the same chip gives the same key, and every
//! field that the guest selects changes it.

use super::{Guest, Platform, Status, message::Request};
use crate::bundle::VcekScalar;
use alloc::{vec, vec::Vec};
use sha2::{Digest, Sha384};

/// Offsets into the request and the response.
mod message {
    /// `ROOT_KEY_SELECT` in bit 0, `KEY_SEL` in bits 2:1, the rest reserved.
    pub const SELECT: usize = 0x00;
    pub const RESERVED: usize = 0x04;
    pub const FIELDS: usize = 0x08;
    pub const VMPL: usize = 0x10;
    pub const GUEST_SVN: usize = 0x14;
    pub const TCB_VERSION: usize = 0x18;
    pub const REQUEST_BYTES: usize = 0x20;

    pub const STATUS: usize = 0x00;
    pub const KEY: usize = 0x20;
    pub const RESPONSE_BYTES: usize = 0x40;
}

/// `GUEST_FIELD_SELECT` (SNP ABI §7.2, table "GUEST_FIELD_SELECT").
mod field {
    pub const GUEST_POLICY: u64 = 1 << 0;
    /// `IMAGE_ID` and `FAMILY_ID` come from an ID block; without one they are zero.
    pub const IMAGE_ID: u64 = 1 << 1;
    pub const FAMILY_ID: u64 = 1 << 2;
    pub const MEASUREMENT: u64 = 1 << 3;
    pub const GUEST_SVN: u64 = 1 << 4;
    pub const TCB_VERSION: u64 = 1 << 5;
    pub const ALL: u64 = GUEST_POLICY | IMAGE_ID | FAMILY_ID | MEASUREMENT | GUEST_SVN | TCB_VERSION;
}

/// Root keys: the chip's, by `KEY_SEL` the VCEK's or any, or the guest's own VMRK.
const ROOT_VMRK: u32 = 0b001;
const ROOT_ANY: u32 = 0b000;
const ROOT_VCEK: u32 = 0b010;

/// The root of a chip's derived keys.
pub(super) fn root(vcek: &VcekScalar) -> [u8; 48] {
    Sha384::new().chain_update(b"snp-model chip key").chain_update(vcek.0).finalize().into()
}

/// The payload of the response.
pub(super) fn answer(request: &Request, guest: &Guest, platform: &Platform) -> Result<Vec<u8>, Status> {
    let payload: &[u8; message::REQUEST_BYTES] = request.payload.first_chunk().ok_or(Status::InvalidParam)?;
    let mut response = vec![0; message::RESPONSE_BYTES];
    match derive(payload, request.vmpl, guest, platform) {
        Ok(key) => response[message::KEY..].copy_from_slice(&key[..32]),
        Err(status) => response[message::STATUS..][..4].copy_from_slice(&(status as u32).to_le_bytes()),
    }
    Ok(response)
}

fn derive(
    request: &[u8; message::REQUEST_BYTES],
    sender: u8,
    guest: &Guest,
    platform: &Platform,
) -> Result<[u8; 48], Status> {
    let word = |at: usize| u32::from_le_bytes(core::array::from_fn(|i| request[at + i]));
    let long = |at: usize| u64::from_le_bytes(core::array::from_fn(|i| request[at + i]));
    let (select, fields) = (word(message::SELECT), long(message::FIELDS));
    if select > 0b111 || word(message::RESERVED) != 0 {
        return Err(Status::InvalidParam);
    }
    // There is no VLEK, and `KEY_SEL` means nothing beside the VMRK.
    let root: &[u8] = match select {
        ROOT_ANY | ROOT_VCEK => &platform.key_root,
        select if select & ROOT_VMRK != 0 => &guest.vmrk,
        _ => return Err(Status::InvalidKey),
    };
    let vmpl = word(message::VMPL);
    if !(u32::from(sender)..super::VMPLS as u32).contains(&vmpl) || fields & !field::ALL != 0 {
        return Err(Status::InvalidParam);
    }
    let selected = |flag: u64| fields & flag != 0;
    let tcb_version = long(message::TCB_VERSION);
    if selected(field::TCB_VERSION) && !no_component_above(tcb_version, platform.facts.tcb.committed) {
        return Err(Status::InvalidParam);
    }
    // Without an ID block the guest's SVN is zero, and no higher one may be mixed in.
    if selected(field::GUEST_SVN) && word(message::GUEST_SVN) != 0 {
        return Err(Status::InvalidParam);
    }

    let mut hash = Sha384::new();
    hash.update(b"snp-model derived key");
    hash.update(root);
    hash.update(select.to_le_bytes());
    hash.update(fields.to_le_bytes());
    hash.update(vmpl.to_le_bytes());
    hash.update(if selected(field::GUEST_POLICY) { guest.policy } else { 0 }.to_le_bytes());
    hash.update(if selected(field::MEASUREMENT) { guest.measurement } else { [0; 48] });
    hash.update(if selected(field::TCB_VERSION) { tcb_version } else { 0 }.to_le_bytes());
    Ok(hash.finalize().into())
}

/// True if each byte of a TCB version is at most that of another.
fn no_component_above(version: u64, limit: u64) -> bool {
    version.to_le_bytes().iter().zip(limit.to_le_bytes()).all(|(a, b)| *a <= b)
}
