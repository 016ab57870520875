//! The state of a vCPU that is measured with the image.
//!
//! Sources: APM volume 2 table B-4 for the layout; Linux `arch/x86/kvm/svm/` (`init_vmcb`, `sev_es_sync_vmsa`) for the
//! state at reset; QEMU `target/i386/sev.c` (`sev_apply_cpu_context`, `check_vmsa_supported`, 10.1) and
//! `docs/system/igvm.rst` for what it takes over from an IGVM file.

use crate::cpu::CpuType;
use crate::layout::{self, CODE32, DATA};

/// A page with a VMSA.
pub type Page = [u8; layout::PAGE as usize];

/// KVM and the AMD-SP know the page of a VMSA by this address.
pub const VMSA_ADDRESS: u64 = 0xffff_ffff_f000;
/// Where the first vCPU of an x86 machine starts.
pub const RESET_VECTOR: u32 = 0xffff_fff0;

/// SEV_FEATURES: SNP active, and nothing else.
const SEV_FEATURES: u64 = 1;

/// Offsets of fields.
mod field {
    pub const SEGMENTS: std::ops::Range<usize> = 0x000..0x0a0;
    pub const LDTR: usize = 0x070;
    pub const TR: usize = 0x090;
    pub const EFER: usize = 0x0d0;
    pub const CR4: usize = 0x148;
    pub const CR3: usize = 0x150;
    pub const CR0: usize = 0x158;
    pub const DR7: usize = 0x160;
    pub const DR6: usize = 0x168;
    pub const RFLAGS: usize = 0x170;
    pub const RIP: usize = 0x178;
    pub const RSP: usize = 0x1d8;
    pub const RAX: usize = 0x1f8;
    pub const PAT: usize = 0x268;
    pub const RCX: usize = 0x308;
    pub const RDX: usize = 0x310;
    pub const RBX: usize = 0x318;
    pub const RBP_TO_R15: std::ops::Range<usize> = 0x328..0x380;
    pub const SEV_FEATURES: usize = 0x3b0;
    pub const XCR0: usize = 0x3e8;
    pub const MXCSR: usize = 0x408;
    pub const X87_FCW: usize = 0x410;
}

/// EFER.SVME, which KVM needs and sets behind the guest's back.
const EFER_SVME: u64 = 0x1000;
/// CR4.MCE, which KVM keeps as the host has it.
const CR4_MCE: u64 = 0x40;
/// CR0.ET alone: real mode. KVM strips CD and NW.
const CR0_REAL: u64 = 0x10;
/// CR0.PE, ET and NE: protected mode without paging, in the one form that coconut's `igvmmeasure --check-kvm` passes.
const CR0_PROTECTED: u64 = 0x31;
/// CR0.ET and NE: the other form that it passes, for real mode.
const CR0_REAL_NE: u64 = 0x30;

/// A vCPU at reset, which is to execute at `start`.
pub fn at_reset(start: u32, cpu: CpuType) -> Page {
    let mut page = Vmsa::common();
    for (offset, selector, attributes, base) in [
        (0x00, 0, 0x093, 0),                        // ES
        (0x10, 0xf000, 0x09b, start & 0xffff_0000), // CS
        (0x20, 0, 0x093, 0),                        // SS
        (0x30, 0, 0x093, 0),                        // DS
        (0x40, 0, 0x093, 0),                        // FS
        (0x50, 0, 0x093, 0),                        // GS
    ] {
        page.segment(offset, selector, attributes, 0xffff, base);
    }
    page.put(field::CR0, CR0_REAL);
    page.put(field::RIP, u64::from(start & 0xffff));
    page.put(field::RDX, u64::from(cpu.signature()));
    page.0
}

/// A vCPU in 32-bit protected mode without paging, with flat segments, that is to execute at `start`: what the ROM's
/// reset code leaves when it enters the kernel.
pub fn at_entry(start: u32, stack: u32) -> Page {
    let mut page = Vmsa::common();
    page.segment(0x10, CODE32, 0xc9b, u32::MAX, 0);
    for offset in [0x00, 0x20, 0x30, 0x40, 0x50] {
        page.segment(offset, DATA, 0xc93, u32::MAX, 0);
    }
    page.put(field::CR0, CR0_PROTECTED);
    page.put(field::RIP, start.into());
    page.put(field::RSP, stack.into());
    page.0
}

/// Why KVM would launch, and so measure, another state than the one that a file gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAsGiven {
    /// CR0 has bits that KVM does not keep.
    #[error("its CR0 is {0:#x}, but KVM keeps 0x31 (protected mode) and 0x30 (real mode) only")]
    Cr0(u64),
    /// KVM sets these bits itself.
    #[error("its EFER or CR4 lacks SVME or MCE, which KVM adds")]
    SetByKvm,
    /// QEMU 10.1 gives TR the base of LDTR.
    #[error("its TR has another base than its LDTR, and QEMU uses LDTR's for both")]
    TaskRegister,
    /// Another feature than SNP is asked for.
    #[error("its SEV_FEATURES is {0:#x}, but the image is for 1 (SNP active) only")]
    Features(u64),
    /// A field that QEMU does not take over is not zero.
    #[error("its byte {0:#x} is not zero, and belongs to none of the registers that QEMU takes over")]
    Field(usize),
}

/// Whether what KVM measures is this page.
pub fn check_for_kvm(page: &Page) -> Result<(), NotAsGiven> {
    let get = |at: usize| page[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let cr0 = get(field::CR0);
    if cr0 != CR0_PROTECTED && cr0 != CR0_REAL_NE {
        return Err(NotAsGiven::Cr0(cr0));
    }
    if get(field::EFER) & EFER_SVME == 0 || get(field::CR4) & CR4_MCE == 0 {
        return Err(NotAsGiven::SetByKvm);
    }
    if get(field::TR + 8) != get(field::LDTR + 8) {
        return Err(NotAsGiven::TaskRegister);
    }
    if get(field::SEV_FEATURES) != SEV_FEATURES {
        return Err(NotAsGiven::Features(get(field::SEV_FEATURES)));
    }
    let quadwords = [
        field::EFER,
        field::CR4,
        field::CR3,
        field::CR0,
        field::DR7,
        field::DR6,
        field::RFLAGS,
        field::RIP,
        field::RSP,
        field::RAX,
        field::PAT,
        field::RCX,
        field::RDX,
        field::RBX,
        field::SEV_FEATURES,
        field::XCR0,
    ];
    let taken = |at: usize| {
        field::SEGMENTS.contains(&at)
            || field::RBP_TO_R15.contains(&at)
            || quadwords.iter().any(|field| (*field..*field + 8).contains(&at))
            || (field::MXCSR..field::MXCSR + 4).contains(&at)
            || (field::X87_FCW..field::X87_FCW + 2).contains(&at)
    };
    match page.iter().enumerate().find(|(at, byte)| **byte != 0 && !taken(*at)) {
        Some((at, _)) => Err(NotAsGiven::Field(at)),
        None => Ok(()),
    }
}

struct Vmsa(Page);

impl Vmsa {
    /// What every vCPU has in common, however it starts.
    fn common() -> Self {
        let mut page = Self([0; layout::PAGE as usize]);
        page.segment(0x60, 0, 0, 0xffff, 0); // GDTR
        page.segment(field::LDTR, 0, 0x082, 0xffff, 0);
        page.segment(0x80, 0, 0, 0xffff, 0); // IDTR
        page.segment(field::TR, 0, 0x08b, 0xffff, 0);
        page.put(field::EFER, EFER_SVME);
        page.put(field::CR4, CR4_MCE);
        page.put(field::DR7, 0x400);
        page.put(field::DR6, 0xffff_0ff0);
        page.put(field::RFLAGS, 0x2);
        page.put(field::PAT, 0x0007_0406_0007_0406);
        page.put(field::SEV_FEATURES, SEV_FEATURES);
        page.put(field::XCR0, 0x1); // x87
        page.0[field::MXCSR..][..4].copy_from_slice(&0x1f80u32.to_le_bytes());
        page.0[field::X87_FCW..][..2].copy_from_slice(&0x037fu16.to_le_bytes());
        page
    }

    fn put(&mut self, offset: usize, value: u64) {
        self.0[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn segment(&mut self, offset: usize, selector: u16, attributes: u16, limit: u32, base: u32) {
        self.put(offset, u64::from(limit) << 32 | u64::from(attributes) << 16 | u64::from(selector));
        self.put(offset + 8, base.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kvm_would_change_is_refused() {
        let good = at_entry(0x20_0000, 0x10_3000);
        assert_eq!(check_for_kvm(&good), Ok(()));
        let with = |offset: usize, value: u64| {
            let mut page = Vmsa(good);
            page.put(offset, value);
            check_for_kvm(&page.0)
        };
        assert_eq!(with(field::CR0, 0x11), Err(NotAsGiven::Cr0(0x11)));
        assert_eq!(with(field::CR0, 0x30), Ok(()));
        assert_eq!(with(field::EFER, 0x500), Err(NotAsGiven::SetByKvm));
        assert_eq!(with(field::CR4, 0x20), Err(NotAsGiven::SetByKvm));
        assert_eq!(with(field::TR + 8, 0x1000), Err(NotAsGiven::TaskRegister));
        assert_eq!(with(field::SEV_FEATURES, 0x21), Err(NotAsGiven::Features(0x21)));
        // XSS, VMPL, DR0, the last quadword of the page; and one that is taken over.
        for (offset, value, first) in
            [(0x140, 1, 0x140), (0x0c8, 1 << 16, 0x0ca), (0x180, 1, 0x180), (0xff8, 1 << 56, 0xfff)]
        {
            assert_eq!(with(offset, value), Err(NotAsGiven::Field(first)));
        }
        assert_eq!(with(0x378, 5), Ok(()));
    }

    #[test]
    fn a_vcpu_at_reset_is_not_a_state_that_a_file_may_give() {
        // Its CR0 lacks NE: QEMU never sets it this way, KVM makes it.
        assert_eq!(check_for_kvm(&at_reset(RESET_VECTOR, CpuType::Genoa)), Err(NotAsGiven::Cr0(0x10)));
    }
}
