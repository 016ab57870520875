//! The VM save area of a vCPU at launch, as KVM and QEMU leave it.
//!
//! KVM resets the vCPU (`svm_vcpu_reset`, `init_vmcb`), QEMU sets its registers (`x86_cpu_reset_hold`, and for other
//! vCPUs than the first `sev_es_set_reset_vector`), and `sev_es_sync_vmsa` copies the result into the VMSA.

use super::Firmware;
use crate::{PAGE_BYTES, Page, cpu_type::CpuSignature};
use alloc::boxed::Box;

/// The guest-physical address under which VMSAs are measured: KVM's `INITIAL_VMSA_GPA`.
pub const VMSA_GPA: u64 = 0xFFFF_FFFF_F000;
/// `SEV_FEATURES` of every vCPU: SNPActive and nothing else (APM §15.36.21, VMSA offset 3B0h).
pub const SEV_FEATURES: u64 = 1;
/// Where the first vCPU starts: 16 bytes below 4 GiB (APM §14.1.3).
pub const RESET_VECTOR: u32 = 0xFFFF_FFF0;

/// Offsets into a VMSA (APM appendix B, table B-4).
#[allow(missing_docs, reason = "each is the field's name in the table")]
pub mod offset {
    pub const ES: usize = 0x000;
    pub const CS: usize = 0x010;
    pub const SS: usize = 0x020;
    pub const DS: usize = 0x030;
    pub const FS: usize = 0x040;
    pub const GS: usize = 0x050;
    pub const GDTR: usize = 0x060;
    pub const LDTR: usize = 0x070;
    pub const IDTR: usize = 0x080;
    pub const TR: usize = 0x090;
    pub const VMPL: usize = 0x0CA;
    pub const CPL: usize = 0x0CB;
    pub const EFER: usize = 0x0D0;
    pub const XSS: usize = 0x140;
    pub const CR4: usize = 0x148;
    pub const CR3: usize = 0x150;
    pub const CR0: usize = 0x158;
    pub const DR7: usize = 0x160;
    pub const DR6: usize = 0x168;
    pub const RFLAGS: usize = 0x170;
    pub const RIP: usize = 0x178;
    pub const RSP: usize = 0x1D8;
    pub const RAX: usize = 0x1F8;
    pub const STAR: usize = 0x200;
    pub const LSTAR: usize = 0x208;
    pub const CSTAR: usize = 0x210;
    pub const SFMASK: usize = 0x218;
    pub const KERNEL_GS_BASE: usize = 0x220;
    pub const SYSENTER_CS: usize = 0x228;
    pub const SYSENTER_ESP: usize = 0x230;
    pub const SYSENTER_EIP: usize = 0x238;
    pub const CR2: usize = 0x240;
    pub const G_PAT: usize = 0x268;
    pub const RCX: usize = 0x308;
    pub const RDX: usize = 0x310;
    pub const RBX: usize = 0x318;
    pub const RBP: usize = 0x328;
    pub const RSI: usize = 0x330;
    pub const RDI: usize = 0x338;
    pub const R8: usize = 0x340;
    pub const R15: usize = 0x378;
    pub const SEV_FEATURES: usize = 0x3B0;
    pub const XCR0: usize = 0x3E8;
    pub const MXCSR: usize = 0x408;
    pub const X87_FCW: usize = 0x410;
}

/// The VMSA of vCPU `index` that starts with a ROM.
pub fn initial_vmsa(firmware: &Firmware<'_>, index: u32, signature: CpuSignature) -> Box<Page> {
    reset_vmsa(firmware.entry(index), signature)
}

/// The VMSA of a vCPU at reset that is to start at `entry`.
pub fn reset_vmsa(entry: u32, signature: CpuSignature) -> Box<Page> {
    let mut vmsa = Vmsa(Box::new([0; PAGE_BYTES]));

    // Real mode (APM §14.1.3). Attributes are the packed form of the VMCB: 93h is present, data, writable, accessed.
    for segment in [offset::ES, offset::SS, offset::DS, offset::FS, offset::GS] {
        vmsa.segment(segment, 0, 0x93, 0);
    }
    // The upper half of the start address is CS's base, the lower half RIP (QEMU `sev_es_set_reset_vector`).
    vmsa.segment(offset::CS, 0xF000, 0x9B, u64::from(entry & 0xFFFF_0000));
    vmsa.u64(offset::RIP, u64::from(entry & 0xFFFF));
    vmsa.segment(offset::GDTR, 0, 0, 0);
    vmsa.segment(offset::IDTR, 0, 0, 0);
    vmsa.segment(offset::LDTR, 0, 0x82, 0);
    vmsa.segment(offset::TR, 0, 0x8B, 0);

    // EFER.SVME is set behind the guest's back; CR4.MCE because the host has machine checks on.
    vmsa.u64(offset::EFER, 1 << 12);
    vmsa.u64(offset::CR4, 1 << 6);
    // ET alone: KVM strips CD and NW from the reset value 60000010h, as it emulates no cache control (QUIRK_CD_NW_CLEARED).
    vmsa.u64(offset::CR0, 1 << 4);
    vmsa.u64(offset::DR7, 0x400);
    vmsa.u64(offset::DR6, 0xFFFF_0FF0);
    vmsa.u64(offset::RFLAGS, 2);
    vmsa.u64(offset::G_PAT, 0x0007_0406_0007_0406);
    vmsa.u64(offset::RDX, signature.0.into());
    vmsa.u64(offset::SEV_FEATURES, SEV_FEATURES);
    vmsa.u64(offset::XCR0, 1);
    vmsa.bytes(offset::MXCSR, &0x1F80_u32.to_le_bytes());
    vmsa.bytes(offset::X87_FCW, &0x037F_u16.to_le_bytes());
    vmsa.0
}

struct Vmsa(Box<Page>);

impl Vmsa {
    fn bytes(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.bytes(at, &value.to_le_bytes());
    }

    /// A segment register with the limit that all have at reset.
    fn segment(&mut self, at: usize, selector: u16, attributes: u16, base: u64) {
        self.bytes(at, &selector.to_le_bytes());
        self.bytes(at + 2, &attributes.to_le_bytes());
        self.bytes(at + 4, &0xFFFF_u32.to_le_bytes());
        self.u64(at + 8, base);
    }
}
