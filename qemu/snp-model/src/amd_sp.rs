//! The software AMD Secure Processor: its side of one running guest.
//!
//! It keeps what firmware keeps in a guest's context page , writes the secrets page and answers guest
//! messages. It trusts nothing in a message before the message is authenticated.
//!
//! Two kinds of failure are kept apart, as the specification does. A message that cannot be accepted ends the
//! `SNP_GUEST_REQUEST` command with a [`Status`] that the *hypervisor* sees and can pass on or invent. A request that
//! was accepted and cannot be granted is answered: its status is inside the encrypted response, where only the
//! *guest* can read it.

mod cpuid;
mod key;
mod message;
mod report;
mod secrets;

#[cfg(test)]
mod tests;

use crate::{Page, bundle::Bundle, cpuid_page::CpuidPage, launch::LaunchDigest};
use alloc::{boxed::Box, vec::Vec};
use core::fmt;
use p384::ecdsa::SigningKey;
use sha2::{Digest, Sha384};

/// Bytes of randomness that a guest's keys and ids are made from.
pub const SEED_BYTES: usize = 64;

/// The version of the firmware that this AMD-SP imitates, as (major, minor, build).
pub const FIRMWARE_VERSION: (u8, u8, u8) = (1, 57, 1);

/// Status codes (SNP ABI, table "Status Codes"), those that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// `POLICY_FAILURE`.
    PolicyFailure = 0x07,
    /// `BAD_MEASUREMENT`: a message does not authenticate.
    BadMeasurement = 0x0B,
    /// `INVALID_PARAM`.
    InvalidParam = 0x16,
    /// `AEAD_OFLOW`: a message's sequence number is not the next one, or there is no next one.
    AeadOverflow = 0x1D,
    /// `INVALID_KEY`: the key asked for does not exist.
    InvalidKey = 0x27,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::PolicyFailure => "POLICY_FAILURE",
            Self::BadMeasurement => "BAD_MEASUREMENT",
            Self::InvalidParam => "INVALID_PARAM",
            Self::AeadOverflow => "AEAD_OFLOW",
            Self::InvalidKey => "INVALID_KEY",
        };
        write!(f, "{name} ({:#04x})", *self as u32)
    }
}

impl core::error::Error for Status {}

/// Why a guest cannot be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchError {
    /// `SNP_LAUNCH_START` refuses the guest policy with this status.
    Policy {
        /// The policy.
        policy: u64,
        /// The status.
        status: Status,
    },
    /// The VCEK is not a scalar of P-384.
    Vcek,
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy { policy, status } => {
                write!(
                    f,
                    "the guest policy {policy:#x} is refused: {status}; start the guest with another policy"
                )
            }
            Self::Vcek => {
                f.write_str("the development VCEK is not a P-384 key; make a new development chain")
            }
        }
    }
}

impl core::error::Error for LaunchError {}

/// Privilege levels of a guest, each with a key of its own.
const VMPLS: usize = 4;

/// The AMD-SP with one guest.
pub struct AmdSp {
    platform: Platform,
    guest: Guest,
}

/// What belongs to the chip.
struct Platform {
    facts: report::Facts,
    vcek: SigningKey,
    /// The root of keys that outlive a guest: the model's stand-in for the secret of the chip.
    key_root: [u8; 48],
}

/// What belongs to the guest: of its context page (SNP ABI, chapter 4), what is used here.
struct Guest {
    policy: u64,
    measurement: LaunchDigest,
    report_id: [u8; 32],
    channels: [Channel; VMPLS],
    cpuid: CpuidPage,
    /// `VMRK`: the root of keys that die with the guest.
    vmrk: [u8; 48],
}

/// The key that a privilege level shares with the AMD-SP, and how many messages it has protected.
struct Channel {
    key: [u8; 32],
    count: u64,
}

impl AmdSp {
    /// `SNP_LAUNCH_START` to `SNP_LAUNCH_FINISH` of a guest whose pages gave `measurement`.
    ///
    /// `cpuid` is the guest's CPUID page. All keys and ids come from `seed`, which must be random.
    pub fn launch(
        bundle: &Bundle<'_>,
        measurement: LaunchDigest,
        cpuid: CpuidPage,
        seed: [u8; SEED_BYTES],
    ) -> Result<Self, LaunchError> {
        report::check_policy(bundle.policy)
            .map_err(|status| LaunchError::Policy { policy: bundle.policy, status })?;
        let vcek = SigningKey::from_slice(&bundle.vcek.0).map_err(|_| LaunchError::Vcek)?;
        let derive = |label: &[u8]| -> [u8; 48] {
            Sha384::new()
                .chain_update(b"snp-model guest ")
                .chain_update(label)
                .chain_update(seed)
                .finalize()
                .into()
        };
        let first_half = |bytes: [u8; 48]| -> [u8; 32] { core::array::from_fn(|i| bytes[i]) };
        Ok(Self {
            platform: Platform {
                facts: report::Facts {
                    chip_id: bundle.chip_id,
                    tcb: bundle.tcb,
                    signature: bundle.signature,
                },
                vcek,
                key_root: key::root(&bundle.vcek),
            },
            guest: Guest {
                policy: bundle.policy,
                measurement,
                report_id: first_half(derive(b"report id")),
                channels: [b"vmpck0", b"vmpck1", b"vmpck2", b"vmpck3"]
                    .map(|label| Channel { key: first_half(derive(label)), count: 0 }),
                cpuid,
                vmrk: derive(b"vmrk"),
            },
        })
    }

    /// The contents of the guest's secrets page.
    pub fn secrets_page(&self) -> Box<Page> {
        secrets::page(self.platform.facts.signature, &self.guest.channels)
    }

    /// `SNP_GUEST_REQUEST` (SNP ABI §8.26): the message in `request` is answered into `response`.
    ///
    /// On failure `response` is as it was and the guest's message count has not moved.
    pub fn guest_request(&mut self, request: &Page, response: &mut Page) -> Result<(), Status> {
        let request = message::open(request, &self.guest.channels)?;
        let (kind, payload) = self.answer(&request)?;
        message::seal(&request, kind, &payload, &mut self.guest.channels, response)
    }

    /// The response to an authenticated request: its message type and payload.
    fn answer(&self, request: &message::Request) -> Result<(message::Kind, Vec<u8>), Status> {
        if request.version != message::VERSION {
            return Err(Status::InvalidParam);
        }
        match request.kind {
            message::Kind::CPUID_REQ => {
                Ok((message::Kind::CPUID_RSP, cpuid::answer(request, &self.guest.cpuid)?))
            }
            message::Kind::KEY_REQ => {
                Ok((message::Kind::KEY_RSP, key::answer(request, &self.guest, &self.platform)?))
            }
            message::Kind::REPORT_REQ => {
                Ok((message::Kind::REPORT_RSP, report::answer(request, &self.guest, &self.platform)?))
            }
            // Migration and secure TSC messages: the policy allows no migration agent, the guest has no secure TSC.
            _ => Err(Status::InvalidParam),
        }
    }
}
