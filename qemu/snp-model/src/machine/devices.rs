//! What the guest reaches behind the GHCB: QEMU's own PCI bus and event port, and a few MSRs. All else is an
//! empty bus, above all the model's log, its exit device and its interrupt controller.

use super::{cpu, memory::DIRECT_MAP};
use snp_model::ghcb::PortAccess;

/// PCI configuration: address and data.
const PCI_CONFIG: core::ops::RangeInclusive<u16> = 0xCF8..=0xCFF;
/// Where the guest writes its events.
pub const EVENTS: u16 = 0xE9;
/// Where PCI devices can be: from the end of q35's largest low RAM to the I/O APIC.
const PCI_MEMORY: core::ops::Range<u64> = 0xB000_0000..0xFEC0_0000;
/// The answer of a bus on which nobody answers.
const NOBODY: u64 = u64::MAX;

/// Port input.
pub fn port_read(access: PortAccess) -> u32 {
    if !allowed(access) || access.port == EVENTS {
        return NOBODY as u32 >> (32 - 8 * u32::from(access.bytes));
    }
    // SAFETY: PCI configuration reads touch no memory.
    unsafe {
        match access.bytes {
            1 => cpu::in8(access.port).into(),
            2 => cpu::in16(access.port).into(),
            _ => cpu::in32(access.port),
        }
    }
}

/// Port output.
pub fn port_write(access: PortAccess, value: u32) {
    if !allowed(access) {
        return;
    }
    // SAFETY: the event port goes to a file of the host. Through PCI configuration the guest programs devices
    // whose DMA can reach all of the machine, this program included; that is the guest's to do, since the
    // model protects nothing.
    unsafe {
        match access.bytes {
            1 => cpu::out8(access.port, value as u8),
            2 => cpu::out16(access.port, value as u16),
            _ => cpu::out32(access.port, value),
        }
    }
}

fn allowed(access: PortAccess) -> bool {
    let last = access.port.saturating_add(u16::from(access.bytes) - 1);
    PCI_CONFIG.contains(&access.port) && PCI_CONFIG.contains(&last)
        || access.port == EVENTS && access.bytes == 1
}

/// A read of device memory, 1, 2, 4 or 8 bytes.
pub fn mmio_read(gpa: u64, bytes: usize) -> u64 {
    if !reaches_pci(gpa, bytes) {
        return NOBODY >> (64 - 8 * bytes);
    }
    let address = DIRECT_MAP + gpa;
    // SAFETY: the direct map shows the whole address space, and there is no RAM in this range.
    unsafe {
        match bytes {
            1 => u64::from((address as *const u8).read_volatile()),
            2 => u64::from((address as *const u16).read_volatile()),
            4 => u64::from((address as *const u32).read_volatile()),
            _ => (address as *const u64).read_volatile(),
        }
    }
}

/// A write of device memory, 1, 2, 4 or 8 bytes.
pub fn mmio_write(gpa: u64, bytes: usize, value: u64) {
    if !reaches_pci(gpa, bytes) {
        return;
    }
    let address = DIRECT_MAP + gpa;
    // SAFETY: as in `mmio_read`; for what devices then do, see `port_write`.
    unsafe {
        match bytes {
            1 => (address as *mut u8).write_volatile(value as u8),
            2 => (address as *mut u16).write_volatile(value as u16),
            4 => (address as *mut u32).write_volatile(value as u32),
            _ => (address as *mut u64).write_volatile(value),
        }
    }
}

fn reaches_pci(gpa: u64, bytes: usize) -> bool {
    PCI_MEMORY.contains(&gpa) && gpa + bytes as u64 <= PCI_MEMORY.end && gpa.is_multiple_of(bytes as u64)
}

/// MSRs that KVM emulates for every guest besides the local APIC's: the MTRRs, the time-stamp counter.
pub struct HypervisorMsrs {
    mtrr_default: u64,
    mtrr_variable: [u64; 16],
    mtrr_fixed: [u64; 11],
}

impl HypervisorMsrs {
    /// The values at reset.
    pub const fn new() -> Self {
        Self { mtrr_default: 0, mtrr_variable: [0; 16], mtrr_fixed: [0; 11] }
    }

    /// The value of an MSR, `None` if there is none of that number.
    pub fn read(&mut self, msr: u32) -> Option<u64> {
        const TIME_STAMP: u32 = 0x10;
        const MTRR_CAPABILITIES: u32 = 0xFE;
        // Leaf 1 offers machine checks, and with it these two: no banks, nothing reported (APM §9.3.1).
        const MACHINE_CHECK_CAPABILITIES: u32 = 0x179;
        const MACHINE_CHECK_STATUS: u32 = 0x17A;
        match msr {
            TIME_STAMP => Some(cpu::timestamp()),
            // Eight variable ranges, fixed ranges, write-combining.
            MTRR_CAPABILITIES => Some(0x508),
            MACHINE_CHECK_CAPABILITIES | MACHINE_CHECK_STATUS => Some(0),
            _ => self.mtrr(msr).copied(),
        }
    }

    /// Writes an MSR; whether there is one of that number that can be written.
    pub fn write(&mut self, msr: u32, value: u64) -> bool {
        self.mtrr(msr).map(|slot| *slot = value).is_some()
    }

    /// APM §7.7.
    fn mtrr(&mut self, msr: u32) -> Option<&mut u64> {
        match msr {
            0x2FF => Some(&mut self.mtrr_default),
            0x200..=0x20F => self.mtrr_variable.get_mut((msr - 0x200) as usize),
            0x250 => self.mtrr_fixed.get_mut(0),
            0x258..=0x259 => self.mtrr_fixed.get_mut((msr - 0x257) as usize),
            0x268..=0x26F => self.mtrr_fixed.get_mut((msr - 0x265) as usize),
            _ => None,
        }
    }
}
