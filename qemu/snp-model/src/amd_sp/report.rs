//! Attestation reports: `MSG_REPORT_REQ` and its answer (SNP ABI §7.3).
//!
//! The places of the report's fields are [`attestation::report::offset`]'s, so that one table of offsets is written
//! down; the fixtures of real reports in that package hold the table to the truth.

use super::{FIRMWARE_VERSION, Guest, Platform, Status, message::Request};
use crate::{bundle::TcbVersions, cpu_type::CpuSignature};
use alloc::{vec, vec::Vec};
use attestation::report::{
    ECDSA_P384_SHA384, GuestPolicy, LEN, PlatformInfo, SIGNED_LEN, SigningKey, key_info, offset,
    signature_field,
};
use p384::ecdsa::{Signature, signature::Signer};

/// `VERSION` of the reports of [`FIRMWARE_VERSION`].
const VERSION: u32 = 3;

/// Offsets into the request and the response.
mod message {
    /// `REPORT_DATA`, 64 bytes.
    pub const REPORT_DATA: usize = 0x00;
    pub const VMPL: usize = 0x40;
    /// `KEY_SEL` in bits 1:0, the rest reserved.
    pub const KEY_SELECT: usize = 0x44;
    pub const RESERVED: usize = 0x48;
    pub const REQUEST_BYTES: usize = 0x60;

    pub const STATUS: usize = 0x00;
    pub const REPORT_SIZE: usize = 0x04;
    pub const REPORT: usize = 0x20;
}

/// `KEY_SEL`: the VLEK if there is one (there is none here), else the VCEK; or the VCEK in any case.
const ANY_KEY: u32 = 0;
const VCEK: u32 = 1;

/// What the chip says of itself in every report.
pub(super) struct Facts {
    pub(super) chip_id: [u8; 64],
    pub(super) tcb: TcbVersions,
    pub(super) signature: CpuSignature,
}

/// The checks of a guest policy in `SNP_LAUNCH_START` (SNP ABI §8.16, §4.3).
pub(super) fn check_policy(policy: u64) -> Result<(), Status> {
    if policy & GuestPolicy::RESERVED_ONE == 0 || policy & !GuestPolicy::KNOWN != 0 {
        return Err(Status::InvalidParam);
    }
    let (major, minor, _) = FIRMWARE_VERSION;
    // The platform of `PlatformInfo::CLOISTER` has every protection that a policy can ask for.
    if GuestPolicy(policy).abi() > (major, minor) { Err(Status::PolicyFailure) } else { Ok(()) }
}

/// The payload of the response.
pub(super) fn answer(request: &Request, guest: &Guest, platform: &Platform) -> Result<Vec<u8>, Status> {
    let payload: &[u8; message::REQUEST_BYTES] = request.payload.first_chunk().ok_or(Status::InvalidParam)?;
    let mut response = vec![0; message::REPORT + LEN];
    response[message::REPORT_SIZE..][..4].copy_from_slice(&(LEN as u32).to_le_bytes());
    match report(payload, request.vmpl, guest, platform) {
        Ok(report) => response[message::REPORT..].copy_from_slice(&report),
        Err(status) => response[message::STATUS..][..4].copy_from_slice(&(status as u32).to_le_bytes()),
    }
    Ok(response)
}

fn report(
    request: &[u8; message::REQUEST_BYTES],
    sender: u8,
    guest: &Guest,
    platform: &Platform,
) -> Result<[u8; LEN], Status> {
    let word = |at: usize| u32::from_le_bytes(core::array::from_fn(|i| request[at + i]));
    let (vmpl, key_select) = (word(message::VMPL), word(message::KEY_SELECT));
    if key_select > 0b11 || request[message::RESERVED..].iter().any(|b| *b != 0) {
        return Err(Status::InvalidParam);
    }
    if !matches!(key_select, ANY_KEY | VCEK) {
        return Err(Status::InvalidKey);
    }
    // A level may speak for itself and for less privileged ones, which have higher numbers.
    if !(u32::from(sender)..super::VMPLS as u32).contains(&vmpl) {
        return Err(Status::InvalidParam);
    }

    let mut report = [0; LEN];
    let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
    let Facts { chip_id, tcb, signature } = &platform.facts;
    let (major, minor, build) = FIRMWARE_VERSION;
    put(offset::VERSION, &VERSION.to_le_bytes());
    put(offset::POLICY, &guest.policy.to_le_bytes());
    put(offset::VMPL, &vmpl.to_le_bytes());
    put(offset::SIGNATURE_ALGO, &ECDSA_P384_SHA384.to_le_bytes());
    put(offset::CURRENT_TCB, &tcb.current.to_le_bytes());
    put(offset::PLATFORM_INFO, &PlatformInfo::CLOISTER.0.to_le_bytes());
    put(offset::KEY_INFO, &key_info(false, SigningKey::Vcek).to_le_bytes());
    put(offset::REPORT_DATA, &request[message::REPORT_DATA..][..64]);
    put(offset::MEASUREMENT, &guest.measurement);
    put(offset::REPORT_ID, &guest.report_id);
    // No migration agent.
    put(offset::REPORT_ID_MA, &[0xFF; 32]);
    put(offset::REPORTED_TCB, &tcb.reported.to_le_bytes());
    put(offset::CPUID_FAMILY, &[signature.family(), signature.model(), signature.stepping()]);
    put(offset::CHIP_ID, chip_id);
    put(offset::COMMITTED_TCB, &tcb.committed.to_le_bytes());
    put(offset::CURRENT_VERSION, &[build, minor, major]);
    put(offset::COMMITTED_VERSION, &[build, minor, major]);
    put(offset::LAUNCH_TCB, &tcb.launch.to_le_bytes());

    // SHA-384 with a nonce by RFC 6979: the same request gives the same report.
    let signature: Signature =
        platform.vcek.try_sign(&report[..SIGNED_LEN]).map_err(|_| Status::InvalidKey)?;
    let signature: [u8; 96] = signature.to_bytes().into();
    report[SIGNED_LEN..].copy_from_slice(&signature_field(&signature));
    Ok(report)
}
