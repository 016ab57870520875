//! Lies that stand from the launch on: the CPUID page, SEV_STATUS, and what leaves the guest.
//!
//! Real firmware would refuse some of these pages. The guest must refuse them as well: it cannot know who let them pass.

use super::Hostile;
use crate::machine::{
    vcpu::Vcpu,
    vmcb::{control, intercept},
};
use snp_model::{Page, hostile::Lie};

const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 48;
const REGISTERS: usize = 24;
const EAX: usize = REGISTERS;
const EBX: usize = REGISTERS + 4;
const ECX: usize = REGISTERS + 8;

impl Hostile {
    /// Changes the CPUID page before the guest gets it.
    pub fn cpuid_page(&self, page: &mut Page) {
        match self.lie {
            Some(Lie::CBitInPage) => edit(page, 0x8000_001F, 0, EBX, |ebx| ebx & !0x3F | 47),
            Some(Lie::MissingLeaf) => remove(page, 0),
            Some(Lie::XsaveSize) => edit(page, 0xD, 2, EAX, |bytes| bytes + 4096),
            Some(Lie::LeafTwice) => {
                let Some(at) = find(page, 1, 0) else { return };
                let end = HEADER_BYTES + number(page, 0) as usize * ENTRY_BYTES;
                page.copy_within(at..at + ENTRY_BYTES, end);
                page[end + ECX] ^= 0xFF;
                set(page, 0, number(page, 0) + 1);
            }
            Some(Lie::TooManyLeaves) => set(page, 0, 65),
            Some(Lie::NoRandom) => {
                edit(page, 1, 0, ECX, |ecx| ecx & !RDRAND);
                edit(page, 7, 0, EBX, |ebx| ebx & !RDSEED);
            }
            Some(lie) if lie.needs_random_exits() => {
                edit(page, 1, 0, ECX, |ecx| ecx | RDRAND);
                edit(page, 7, 0, EBX, |ebx| ebx | RDSEED);
            }
            Some(Lie::StaleLines) => edit(page, 0x8000_001F, 0, EBX, |ebx| ebx & !COHERENCY_SFW_NO),
            _ => {}
        }
    }

    /// Changes a vCPU before it runs for the first time.
    pub fn vcpu(&self, vcpu: &mut Vcpu) {
        let Some(lie) = self.lie else { return };
        match lie {
            Lie::NoSnp => vcpu.sev_status &= !0b100,
            Lie::NoSev => vcpu.sev_status = 0,
            Lie::UnknownFeature => vcpu.sev_status |= 1 << 62,
            Lie::VirtualTom => vcpu.sev_status |= 1 << 3,
            _ => {}
        }
        if self.watches() {
            let exceptions: u32 = vcpu.vmcb.get(control::EXCEPTIONS);
            vcpu.vmcb.set(control::EXCEPTIONS, exceptions | intercept::DEBUG);
        }
        if self.owns_time() {
            let instructions: u32 = vcpu.vmcb.get(control::INSTRUCTIONS_1);
            vcpu.vmcb.set(control::INSTRUCTIONS_1, instructions | intercept::TIME_STAMP);
        }
    }
}

const RDRAND: u32 = 1 << 30;
const RDSEED: u32 = 1 << 18;
/// Fn8000_001F EBX: the hardware keeps caches coherent when a page's state changes (AMD-SB-3023).
const COHERENCY_SFW_NO: u32 = 1 << 31;

fn number(page: &Page, at: usize) -> u32 {
    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

fn set(page: &mut Page, at: usize, value: u32) {
    page[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn find(page: &Page, leaf: u32, subleaf: u32) -> Option<usize> {
    (0..number(page, 0) as usize)
        .map(|index| HEADER_BYTES + index * ENTRY_BYTES)
        .find(|at| number(page, *at) == leaf && number(page, at + 4) == subleaf)
}

fn edit(page: &mut Page, leaf: u32, subleaf: u32, register: usize, change: impl FnOnce(u32) -> u32) {
    if let Some(at) = find(page, leaf, subleaf) {
        set(page, at + register, change(number(page, at + register)));
    }
}

fn remove(page: &mut Page, leaf: u32) {
    if let Some(at) = find(page, leaf, 0) {
        let last = number(page, 0) - 1;
        let end = HEADER_BYTES + last as usize * ENTRY_BYTES;
        page.copy_within(end..end + ENTRY_BYTES, at);
        set(page, 0, last);
    }
}
