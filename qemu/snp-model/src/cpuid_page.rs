//! The CPUID page: what the AMD-SP lets a guest believe of its processor (SNP ABI §8.17.2.6, and §7.1 for the checks).
//!
//! On a real host QEMU fills it with what KVM would answer (`snp_launch_update_cpuid`), and the AMD-SP refuses every
//! value that the chip could not have. Here the processor is the one that the model runs on, so its instruction sets
//! are its own; what a hypervisor decides (identity, topology, SEV) is decided here as QEMU does for its EPYC types.
//! A leaf whose registers are all zero is left out, as QEMU leaves it out. Of KVM's services the paravirtual leaves name
//! the one that the model offers; the AMD-SP does not check them.

mod features;
mod topology;

use crate::{PAGE_BYTES, Page, cpu_type::CpuSignature};
use alloc::{boxed::Box, vec::Vec};

/// The bit of a guest-physical address that makes it private: `Fn8000_001F_EBX[5:0]`.
pub const C_BIT: u32 = 51;
/// Most entries that a page holds: `COUNT_MAX` (SNP ABI §7.1).
pub const MAX_ENTRIES: usize = 64;

/// Bytes before the first entry: `COUNT` and two reserved fields (SNP ABI §7.1).
const HEADER_BYTES: usize = 16;
/// Bytes of a `CPUID_FUNCTION` (SNP ABI §7.1).
const ENTRY_BYTES: usize = 48;

/// The VM that the page describes.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Family, model and stepping.
    pub signature: CpuSignature,
    /// vCPUs: one socket, one thread to a core. At least one.
    pub vcpus: u32,
}

/// EAX, EBX, ECX and EDX.
pub type Registers = [u32; 4];

/// One `CPUID_FUNCTION` (SNP ABI §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `EAX_IN`.
    pub leaf: u32,
    /// `ECX_IN`; zero where the leaf has no subleaves.
    pub subleaf: u32,
    /// `XCR0_IN`.
    pub xcr0: u64,
    /// `EAX` to `EDX`.
    pub out: Registers,
}

/// The CPUID page of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuidPage {
    entries: Vec<Entry>,
}

/// Leaves whose answer depends on ECX, of those in the page.
const fn has_subleaves(leaf: u32) -> bool {
    matches!(leaf, 0x7 | 0xB | 0xD | 0x8000_001D)
}

impl CpuidPage {
    /// Builds the page. `raw` is the `CPUID` instruction of the processor that will run the guest: leaf (EAX) and
    /// subleaf (ECX) to registers.
    pub fn build(machine: Machine, mut raw: impl FnMut(u32, u32) -> Registers) -> Self {
        let mut page = Self { entries: Vec::with_capacity(MAX_ENTRIES) };
        features::fill(&mut page, machine, &mut raw);
        topology::fill(&mut page, machine);
        paravirtual(&mut page);
        page.entries.sort_by_key(|e| (e.leaf, e.subleaf));
        page
    }

    /// The entries, by leaf and subleaf.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What the page says of a leaf, or `None` if it does not hold it.
    pub fn lookup(&self, leaf: u32, subleaf: u32) -> Option<Registers> {
        let subleaf = if has_subleaves(leaf) { subleaf } else { 0 };
        self.entries.iter().find(|e| (e.leaf, e.subleaf) == (leaf, subleaf)).map(|e| e.out)
    }

    /// The bytes of the page.
    pub fn to_page(&self) -> Box<Page> {
        let mut page = Box::new([0; PAGE_BYTES]);
        // `push` keeps the count within MAX_ENTRIES.
        page[..4].copy_from_slice(&(self.entries.len() as u32).to_le_bytes());
        for (entry, at) in self.entries.iter().zip((HEADER_BYTES..).step_by(ENTRY_BYTES)) {
            page[at..at + ENTRY_BYTES].copy_from_slice(&entry.to_bytes());
        }
        page
    }

    /// Adds a leaf unless all its registers are zero.
    fn push(&mut self, leaf: u32, subleaf: u32, out: Registers) {
        self.push_for_xcr0(leaf, subleaf, 0, out);
    }

    fn push_for_xcr0(&mut self, leaf: u32, subleaf: u32, xcr0: u64, out: Registers) {
        if out != [0; 4] && self.entries.len() < MAX_ENTRIES {
            self.entries.push(Entry { leaf, subleaf, xcr0, out });
        }
    }
}

/// KVM's leaves (Linux `Documentation/virt/kvm/x86/cpuid.rst`): its name, and that its hypercall wakes a vCPU that
/// sleeps in HLT (`KVM_FEATURE_PV_UNHALT`).
fn paravirtual(page: &mut CpuidPage) {
    const LEAF: u32 = 0x4000_0000;
    const PV_UNHALT: u32 = 1 << 7;
    let name = |part: &[u8; 4]| u32::from_le_bytes(*part);
    page.push(LEAF, 0, [LEAF + 1, name(b"KVMK"), name(b"VMKV"), name(b"M\0\0\0")]);
    page.push(LEAF + 1, 0, [PV_UNHALT, 0, 0, 0]);
}

impl Entry {
    /// EAX_IN, ECX_IN, XCR0_IN, XSS_IN, the four registers, 8 reserved bytes.
    pub(crate) fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[0x00..0x04].copy_from_slice(&self.leaf.to_le_bytes());
        bytes[0x04..0x08].copy_from_slice(&self.subleaf.to_le_bytes());
        bytes[0x08..0x10].copy_from_slice(&self.xcr0.to_le_bytes());
        for (register, at) in self.out.iter().zip((0x18..).step_by(4)) {
            bytes[at..at + 4].copy_from_slice(&register.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests;
