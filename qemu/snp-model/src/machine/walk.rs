//! Guest-virtual addresses, as the processor would translate them for its own accesses.

use super::{machine::Machine, memory::HostPage, vcpu::Vcpu};
use core::fmt;
use snp_model::{PAGE_BYTES, cpuid_page::C_BIT, launch::offset, rmp::State};

const PAGE: u64 = PAGE_BYTES as u64;

/// Where a guest-virtual address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestPhysical {
    /// Guest-physical address, without the C-bit.
    pub gpa: u64,
    /// The C-bit.
    pub private: bool,
}

/// Why an address leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkError {
    /// A page-table entry is not present.
    NotPresent {
        /// The address.
        address: u64,
    },
    /// A page table is in memory that is not private and validated; the processor would fault on it.
    Table {
        /// The table.
        gpa: u64,
    },
    /// The address is mapped, but not to memory that may be accessed that way.
    Memory {
        /// Where it leads.
        to: GuestPhysical,
    },
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPresent { address } => write!(f, "{address:#x} is not mapped"),
            Self::Table { gpa } => {
                write!(f, "the page table at {gpa:#x} is not in private, validated memory")
            }
            Self::Memory { to: GuestPhysical { gpa, private: true } } => {
                write!(f, "{gpa:#x} is mapped as private, but is not private, validated memory")
            }
            Self::Memory { to } => write!(f, "{:#x} is mapped as shared, but is not shared memory", to.gpa),
        }
    }
}

impl Machine {
    /// Translates a linear address. Everything is private while paging is off.
    pub fn translate(&self, vcpu: &Vcpu, address: u64) -> Result<GuestPhysical, WalkError> {
        const PRESENT: u64 = 1 << 0;
        const LARGE: u64 = 1 << 7;
        const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000 & !(1 << C_BIT);
        const LA57: u64 = 1 << 12;
        if !vcpu.has_paging() {
            return Ok(GuestPhysical { gpa: address & 0xFFFF_FFFF, private: true });
        }
        let mut table = vcpu.vmcb.state::<u64>(offset::CR3) & ADDRESS;
        let mut shift = if vcpu.vmcb.state::<u64>(offset::CR4) & LA57 != 0 { 48 } else { 39 };
        loop {
            // Page-table accesses are private whatever the C-bit above them says (APM §15.36.10).
            let page = self.private_page(table).ok_or(WalkError::Table { gpa: table })?;
            let entry: u64 = page.read((address >> shift & 511) as usize * 8);
            if entry & PRESENT == 0 {
                return Err(WalkError::NotPresent { address });
            }
            if shift == 12 || shift <= 30 && entry & LARGE != 0 {
                let inside = (1 << shift) - 1;
                let gpa = entry & ADDRESS & !inside | address & inside;
                return Ok(GuestPhysical { gpa, private: entry >> C_BIT & 1 == 1 });
            }
            table = entry & ADDRESS;
            shift -= 9;
        }
    }

    /// The page behind a private, validated guest-physical address.
    pub fn private_page(&self, gpa: u64) -> Option<HostPage> {
        match self.rmp.lookup(gpa)? {
            (State::Validated, _) => self.memory.private(gpa),
            _ => None,
        }
    }

    /// The page behind a shared guest-physical address.
    pub fn shared_page(&self, gpa: u64) -> Option<HostPage> {
        match self.rmp.lookup(gpa)? {
            (State::Hypervisor, _) => self.memory.shared(gpa),
            _ => None,
        }
    }

    fn page(&self, to: GuestPhysical) -> Result<HostPage, WalkError> {
        let page = if to.private { self.private_page(to.gpa) } else { self.shared_page(to.gpa) };
        page.ok_or(WalkError::Memory { to })
    }

    /// Reads guest memory at a linear address. What could be read is at the beginning of `out`; its length
    /// comes back with the reason why it ends there.
    pub fn read_some(&self, vcpu: &Vcpu, address: u64, out: &mut [u8]) -> (usize, Result<(), WalkError>) {
        let mut done = 0;
        while done < out.len() {
            let at = address.wrapping_add(done as u64);
            let inside = (at % PAGE) as usize;
            let take = (PAGE_BYTES - inside).min(out.len() - done);
            match self.translate(vcpu, at).and_then(|to| self.page(to)) {
                Ok(page) => page.read_bytes(inside, &mut out[done..done + take]),
                Err(error) => return (done, Err(error)),
            }
            done += take;
        }
        (done, Ok(()))
    }

    /// Reads a little-endian number at a linear address.
    pub fn read_u64(&self, vcpu: &Vcpu, address: u64) -> Result<u64, WalkError> {
        let mut bytes = [0; 8];
        self.read_some(vcpu, address, &mut bytes).1?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes guest memory at a linear address.
    pub fn write(&self, vcpu: &Vcpu, address: u64, bytes: &[u8]) -> Result<(), WalkError> {
        let mut done = 0;
        while done < bytes.len() {
            let at = address.wrapping_add(done as u64);
            let inside = (at % PAGE) as usize;
            let take = (PAGE_BYTES - inside).min(bytes.len() - done);
            let page = self.translate(vcpu, at).and_then(|to| self.page(to))?;
            page.write_bytes(inside, &bytes[done..done + take]);
            done += take;
        }
        Ok(())
    }
}
