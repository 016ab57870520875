//! Lies in the answers of the GHCB protocol, and about guest messages.

use super::Hostile;
use crate::machine::{
    ghcb_page::{Reply, Request},
    machine::Machine,
};
use snp_model::{
    PAGE_BYTES, Page,
    amd_sp::Status,
    ghcb::{Malformed, answer, event, offset},
    hostile::Lie,
};

/// Bytes of a guest message's header that the lies change (SNP ABI §8.26).
const SEQUENCE: usize = 0x20;
const MESSAGE_VERSION: usize = 0x35;
const PAYLOAD: usize = 0x60;
/// `SW_EXITINFO2` of a host that is busy (GHCB §4.1.7).
const BUSY: u64 = 2 << 32;

impl Hostile {
    /// The answer of the MSR protocol to `request`.
    pub fn msr_answer(&self, request: u64, honest: u64) -> u64 {
        const SEV_INFORMATION: u64 = 0x002;
        const CPUID: u64 = 0x004;
        const REGISTER_GHCB: u64 = 0x012;
        match (self.lie, request & 0xFFF) {
            (Some(Lie::CBitOfHost), SEV_INFORMATION) => answer::sev_information(47),
            (Some(Lie::CpuidAnswers), CPUID) => answer::cpuid(0, (request >> 30) as u8 & 3),
            (Some(Lie::WrongAnswer), REGISTER_GHCB) => honest + PAGE_BYTES as u64,
            _ => honest,
        }
    }

    /// `SW_EXITINFO2` in place of carrying a message, if the lie is that it is not carried.
    pub fn withheld(&mut self, message: &Page) -> Option<u64> {
        if !self.tells(Lie::Busy) {
            return None;
        }
        if self.count > 0 && self.message.as_ref() != Some(message) {
            crate::machine::stop::violation!(
                "the guest sent another message with the sequence number of an earlier one"
            );
        }
        self.message = Some(*message);
        self.count = (self.count + 1) % 4;
        (self.count != 0).then_some(BUSY)
    }

    /// What the guest gets for what the AMD-SP answered.
    pub fn message(&mut self, response: &mut Page, result: Result<(), Status>) -> Result<(), Status> {
        match self.lie {
            Some(Lie::Replay) => match &self.message {
                Some(first) => *response = *first,
                None => self.message = Some(*response),
            },
            Some(Lie::WrongSequence) => response[SEQUENCE] ^= 1,
            Some(Lie::WrongVersion) => response[MESSAGE_VERSION] = 2,
            Some(Lie::Altered) => response[PAYLOAD + 100] ^= 0x10,
            Some(Lie::Dropped) => response.fill(0),
            Some(Lie::Status) => return Err(Status::InvalidParam),
            _ => {}
        }
        result
    }
}

impl Machine {
    /// Serves a request in place of the machine, if the lie is about that request.
    pub(in crate::machine) fn hostile_serve(
        &mut self,
        request: &Request,
    ) -> Option<Result<Reply, Malformed>> {
        let lie = self.hostile.lie?;
        let code: u64 = request.page.read(offset::EXIT_CODE);
        match (lie, code) {
            (Lie::CpuidAnswers, event::CPUID) => Some(Ok(Reply::with_registers([
                (offset::RAX, 0),
                (offset::RBX, 0),
                (offset::RCX, 0),
                (offset::RDX, 0),
            ]))),
            (Lie::ChangeStalls, event::PAGE_STATE_CHANGE) => Some(Ok(Reply::default())),
            (Lie::Error, event::MMIO_READ) => Some(Err(Malformed::InvalidInput)),
            _ => None,
        }
    }

    /// After the reply to `request` was written.
    pub(in crate::machine) fn hostile_replied(&mut self, request: &Request) {
        const PORT_IN: u64 = 1;
        let Some(lie) = self.hostile.lie else { return };
        let code: u64 = request.page.read(offset::EXIT_CODE);
        match (lie, code) {
            (Lie::NotValid, event::IOIO) if request.info_1 & PORT_IN != 0 => {
                let bit = offset::RAX / 8;
                let at = offset::VALID_BITMAP + bit / 64 * 8;
                request.page.write(at, request.page.read::<u64>(at) & !(1 << (bit % 64)));
            }
            (Lie::ChangeRewritten, event::PAGE_STATE_CHANGE) => {
                let at = (request.page.read::<u64>(offset::SCRATCH) % PAGE_BYTES as u64) as usize;
                let end: u16 = request.page.read(at + 2);
                request.page.write(at + 2, end ^ 1);
            }
            (Lie::DoubleFetch, _) => self.watch_once(request.gpa),
            (Lie::ReplyChanges, event::GUEST_REQUEST | event::EXTENDED_GUEST_REQUEST) => {
                self.watch_once(request.info_2);
            }
            _ => {}
        }
    }
}
