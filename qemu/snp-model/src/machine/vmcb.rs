//! The virtual machine control block (APM appendix B): what leaves the guest and what its registers are.

use super::memory::{HostPage, Number, Pool};
use snp_model::{Page, launch::offset};

/// Offsets in the control area (APM table B-1).
pub mod control {
    /// Intercepts of control-register writes, bits 15:0 of this half-word.
    pub const CR_WRITES: usize = 0x002;
    /// Intercepts of debug-register reads.
    pub const DR_READS: usize = 0x004;
    /// Intercepts of debug-register writes.
    pub const DR_WRITES: usize = 0x006;
    /// Intercepts of exceptions.
    pub const EXCEPTIONS: usize = 0x008;
    /// Intercepts of instructions, first vector.
    pub const INSTRUCTIONS_1: usize = 0x00C;
    /// Intercepts of instructions, second vector.
    pub const INSTRUCTIONS_2: usize = 0x010;
    /// Address of the I/O permission map.
    pub const IO_MAP: usize = 0x040;
    /// Address of the MSR permission map.
    pub const MSR_MAP: usize = 0x048;
    /// Guest ASID.
    pub const ASID: usize = 0x058;
    /// TLB control.
    pub const TLB: usize = 0x05C;
    /// Virtual interrupts.
    pub const INTERRUPTS: usize = 0x060;
    /// Exit code.
    pub const EXIT_CODE: usize = 0x070;
    /// First word about the exit.
    pub const EXIT_INFO_1: usize = 0x078;
    /// Second word about the exit.
    pub const EXIT_INFO_2: usize = 0x080;
    /// The event that was being delivered.
    pub const EXIT_INTERRUPT_INFO: usize = 0x088;
    /// Nested paging.
    pub const NESTED: usize = 0x090;
    /// The event to deliver.
    pub const EVENT_INJECTION: usize = 0x0A8;
    /// Nested CR3.
    pub const NESTED_ROOT: usize = 0x0B0;
    /// VMCB clean bits.
    pub const CLEAN: usize = 0x0C0;
}

/// Exit codes (APM appendix C).
pub mod exit {
    /// Write of CR0.
    pub const CR0_WRITE: u64 = 0x010;
    /// Write of CR3.
    pub const CR3_WRITE: u64 = 0x013;
    /// Write of CR4.
    pub const CR4_WRITE: u64 = 0x014;
    /// Read of DR7.
    pub const DR7_READ: u64 = 0x027;
    /// Write of DR7.
    pub const DR7_WRITE: u64 = 0x037;
    /// `#DB`.
    pub const DEBUG: u64 = 0x041;
    /// `#UD`.
    pub const UNDEFINED: u64 = 0x046;
    /// Physical interrupt.
    pub const INTERRUPT: u64 = 0x060;
    /// RDTSC.
    pub const TIME_STAMP: u64 = 0x06E;
    /// RDPMC.
    pub const RDPMC: u64 = 0x06F;
    /// CPUID.
    pub const CPUID: u64 = 0x072;
    /// INVD.
    pub const INVD: u64 = 0x076;
    /// HLT.
    pub const HLT: u64 = 0x078;
    /// Port I/O.
    pub const IOIO: u64 = 0x07B;
    /// RDMSR or WRMSR.
    pub const MSR: u64 = 0x07C;
    /// INVLPG.
    pub const INVLPG: u64 = 0x079;
    /// INVLPGA.
    pub const INVLPGA: u64 = 0x07A;
    /// Shutdown.
    pub const SHUTDOWN: u64 = 0x07F;
    /// VMRUN, the first of the instructions that hypervisors have.
    pub const VMRUN: u64 = 0x080;
    /// SKINIT, the last of them.
    pub const SKINIT: u64 = 0x086;
    /// VMMCALL, and with a REP prefix VMGEXIT.
    pub const VMMCALL: u64 = 0x081;
    /// WBINVD.
    pub const WBINVD: u64 = 0x089;
    /// MONITOR.
    pub const MONITOR: u64 = 0x08A;
    /// MWAIT.
    pub const MWAIT: u64 = 0x08B;
    /// Nested page fault.
    pub const NPF: u64 = 0x400;
    /// The code that a guest sees for a page that it has not validated (APM §15.36.10).
    pub const PAGE_NOT_VALIDATED: u64 = 0x404;
    /// VMRUN refused the state.
    pub const INVALID: u64 = u64::MAX;
}

/// Intercepts that no honest hypervisor sets (APM table B-1).
pub mod intercept {
    /// `#DB`, of the exceptions.
    pub const DEBUG: u32 = 1 << 1;
    /// INVLPG, of the first vector of instructions.
    pub const INVLPG: u32 = 1 << 25;
    /// RDTSC, of the first vector of instructions.
    pub const TIME_STAMP: u32 = 1 << 14;
}

/// Where the save area begins. Its layout up to 0x298 is the VMSA's.
const SAVE_AREA: usize = 0x400;
const SAVE_AREA_SHARED_BYTES: usize = 0x298;

/// Pages with one bit or two for each port and MSR that is intercepted.
#[derive(Clone, Copy)]
pub struct PermissionMaps {
    io: HostPage,
    msr: HostPage,
}

impl PermissionMaps {
    /// Every port is intercepted, and every MSR but those of the VMSA that KVM passes through to an SEV-ES
    /// guest (`svm_vcpu_init_msrpm`, `sev_es_init_vmcb`).
    pub fn new(pool: &mut Pool) -> Self {
        const NATIVE: [u32; 14] = [
            0x0048,      // SPEC_CTRL
            0x0174,      // SYSENTER_CS
            0x0175,      // SYSENTER_ESP
            0x0176,      // SYSENTER_EIP
            0x0277,      // PAT
            0x0DA0,      // XSS
            0xC000_0081, // STAR
            0xC000_0082, // LSTAR
            0xC000_0083, // CSTAR
            0xC000_0084, // SFMASK
            0xC000_0100, // FS base
            0xC000_0101, // GS base
            0xC000_0102, // KernelGSbase
            0xC000_0103, // TSC_AUX
        ];
        let maps = Self { io: pool.take(3), msr: pool.take(2) };
        for (map, pages) in [(maps.io, 3), (maps.msr, 2)] {
            for page in 0..pages {
                // SAFETY: one of the pages just taken in a row.
                let page = unsafe { HostPage::from_address(map.address() + page * 4096) };
                page.write_bytes(0, &[0xFF; 4096]);
            }
        }
        for msr in NATIVE {
            // APM §15.11: two bits each, 0x0000_0000.. in the first 2 KiB, 0xC000_0000.. in the second.
            let byte = (msr & 0x1FFF) as usize / 4 + if msr >= 0xC000_0000 { 0x800 } else { 0 };
            let mask = !(0b11 << (msr % 4 * 2));
            maps.msr.write::<u8>(byte, maps.msr.read::<u8>(byte) & mask);
        }
        maps
    }
}

/// A VMCB.
#[derive(Clone, Copy)]
pub struct Vmcb(HostPage);

impl Vmcb {
    /// A VMCB without a state, with the intercepts that KVM uses for SEV-ES guests.
    pub fn new(maps: &PermissionMaps, pool: &mut Pool) -> Self {
        const CR0: u16 = 1;
        const DR7: u16 = 1 << 7;
        const UNDEFINED_OPCODE: u32 = 1 << 6;
        // INTR NMI SMI | RDPMC CPUID | INVD | HLT INVLPGA IOIO MSR | SHUTDOWN
        const INSTRUCTIONS_1: u32 =
            0b111 | 1 << 15 | 1 << 18 | 1 << 22 | 1 << 24 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 31;
        // VMRUN VMMCALL VMLOAD VMSAVE STGI CLGI SKINIT | WBINVD MONITOR MWAIT
        const INSTRUCTIONS_2: u32 = 0b111_1111 | 1 << 9 | 1 << 10 | 1 << 11;
        const INTERRUPT_MASKING: u32 = 1 << 24;

        let vmcb = Self(pool.take(1));
        vmcb.set(control::CR_WRITES, CR0);
        vmcb.set(control::DR_READS, DR7);
        vmcb.set(control::DR_WRITES, DR7);
        vmcb.set(control::EXCEPTIONS, UNDEFINED_OPCODE);
        vmcb.set(control::INSTRUCTIONS_1, INSTRUCTIONS_1);
        vmcb.set(control::INSTRUCTIONS_2, INSTRUCTIONS_2);
        vmcb.set(control::IO_MAP, maps.io.address());
        vmcb.set(control::MSR_MAP, maps.msr.address());
        vmcb.set(control::ASID, 1u32);
        vmcb.set(control::INTERRUPTS, INTERRUPT_MASKING);
        vmcb.set(control::NESTED, 1u64);
        vmcb
    }

    /// Takes the state of a VMSA, as far as a VMCB has it.
    pub fn load(self, vmsa: &Page) {
        self.0.write_bytes(SAVE_AREA, &vmsa[..SAVE_AREA_SHARED_BYTES]);
        self.set(control::EVENT_INJECTION, 0u64);
        self.set(control::EXIT_INTERRUPT_INFO, 0u64);
    }

    /// Writes that state into a VMSA.
    pub fn store(self, vmsa: &mut Page) {
        self.0.read_bytes(SAVE_AREA, &mut vmsa[..SAVE_AREA_SHARED_BYTES]);
    }

    /// Its host-physical address.
    pub fn address(self) -> u64 {
        self.0.address()
    }

    /// A field of the control area.
    pub fn get<T: Number>(self, field: usize) -> T {
        self.0.read(field)
    }

    /// Sets a field of the control area.
    pub fn set<T: Number>(self, field: usize, value: T) {
        self.0.write(field, value);
    }

    /// A field of the save area, by its offset in a VMSA.
    pub fn state<T: Number>(self, field: usize) -> T {
        self.0.read(SAVE_AREA + field)
    }

    /// Sets a field of the save area.
    pub fn set_state<T: Number>(self, field: usize, value: T) {
        self.0.write(SAVE_AREA + field, value);
    }

    /// A segment register, by its offset in a VMSA.
    pub fn segment(self, field: usize) -> Segment {
        Segment {
            selector: self.state(field),
            attributes: self.state(field + 2),
            limit: self.state(field + 4),
            base: self.state(field + 8),
        }
    }

    /// Sets a segment register.
    pub fn set_segment(self, field: usize, segment: Segment) {
        self.set_state(field, segment.selector);
        self.set_state(field + 2, segment.attributes);
        self.set_state(field + 4, segment.limit);
        self.set_state(field + 8, segment.base);
    }

    /// RIP.
    pub fn rip(self) -> u64 {
        self.state(offset::RIP)
    }
}

/// A segment register with its hidden part, the attributes packed as in APM §15.5.1.
#[derive(Clone, Copy)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Attributes.
    pub attributes: u16,
    /// Limit.
    pub limit: u32,
    /// Base.
    pub base: u64,
}

impl Segment {
    /// The attribute that says 64-bit code.
    pub const LONG: u16 = 1 << 9;
}
