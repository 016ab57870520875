//! Single instructions as functions.

use core::arch::asm;

/// PAT (APM vol. 2, §7.8.2).
pub const MSR_PAT: u32 = 0x277;
/// EFER.
pub const MSR_EFER: u32 = 0xc000_0080;
/// The GHCB MSR.
pub const MSR_GHCB: u32 = 0xc001_0130;
/// `SEV_STATUS`.
pub const MSR_SEV_STATUS: u32 = 0xc001_0131;
/// `GUEST_TSC_FREQ`, in MHz; only with secure TSC.
pub const MSR_GUEST_TSC_FREQ: u32 = 0xc001_0134;

/// Reads a model-specific register.
///
/// # Safety
/// The register exists and is not intercepted in an SNP guest.
pub unsafe fn rdmsr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller answers for the register; reading has no effect on memory.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The register exists, is not intercepted in an SNP guest, and the value keeps the memory that Rust knows as it is.
pub unsafe fn wrmsr(register: u32, value: u64) {
    // SAFETY: the caller answers for register and value.
    unsafe {
        asm!(
            "wrmsr",
            in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags),
        );
    }
}

/// Leaves to the host with the GHCB MSR as it is.
///
/// # Safety
/// The GHCB MSR holds a request, or the address of a page that is shared and holds one.
pub unsafe fn vmgexit() {
    // SAFETY: the caller answers for the request. Memory is clobbered because the host writes shared pages.
    unsafe { asm!("rep vmmcall", options(nostack)) };
}

/// What `PVALIDATE` said (APM vol. 3): EAX, and whether CF says that the page was in that state already.
pub struct Pvalidate {
    /// 0, or the failure's code.
    pub code: u32,
    /// Nothing changed.
    pub unchanged: bool,
}

/// Sets or takes back the validation of a page.
///
/// # Safety
/// `page` is mapped as private. Taking it back (or failing to set it) makes the page unusable for private accesses, so
/// no Rust value may lie in it.
pub unsafe fn pvalidate(page: u64, large: bool, validate: bool) -> Pvalidate {
    let (code, unchanged): (u64, u8);
    // SAFETY: the caller answers for the page; the instruction is F2 0F 01 FF with its operands in RAX, ECX, EDX.
    unsafe {
        asm!(
            ".byte 0xf2, 0x0f, 0x01, 0xff",
            "setc {unchanged}",
            unchanged = out(reg_byte) unchanged,
            inout("rax") page => code,
            inout("ecx") u32::from(large) => _,
            inout("edx") u32::from(validate) => _,
            options(nostack),
        );
    }
    Pvalidate { code: code as u32, unchanged: unchanged != 0 }
}

/// Makes a private page of 4 KiB the VMSA of a vCPU at VMPL 0 (APM vol. 3, "RMPADJUST"); EAX, 0 if it is one now.
///
/// # Safety
/// The page is mapped and holds a VMSA; nothing writes it from here on.
pub unsafe fn rmpadjust_vmsa(page: u64) -> u32 {
    /// VMSA, and the permissions of a VMPL that is below this one: none.
    const ATTRIBUTES: u64 = 1 << 16 | 1;
    let code: u64;
    // SAFETY: the caller answers for the page; the instruction is F3 0F 01 FE with its operands in RAX, RCX, RDX.
    unsafe {
        asm!(
            ".byte 0xf3, 0x0f, 0x01, 0xfe",
            inout("rax") page => code, inout("rcx") 0_u64 => _, inout("rdx") ATTRIBUTES => _,
            options(nostack),
        );
    }
    code as u32
}

/// The selector in the task register.
pub fn task_register() -> u16 {
    let selector: u16;
    // SAFETY: reading the task register has no effect.
    unsafe { asm!("str {:x}", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    selector
}

/// CR0, CR3 and CR4.
pub fn control_registers() -> [u64; 3] {
    let (cr0, cr3): (u64, u64);
    // SAFETY: reading control registers has no effect.
    unsafe {
        asm!("mov {}, cr0", "mov {}, cr3", out(reg) cr0, out(reg) cr3, options(nomem, nostack, preserves_flags));
    }
    [cr0, cr3, cr4()]
}

/// Forgets all translations; no page is global.
pub fn flush_translations() {
    // SAFETY: CR3 keeps its value, so every address means what the page tables say.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags)) };
}

/// Halts until the host lets this vCPU go on.
pub fn halt_once() {
    // SAFETY: interrupts are off, so nothing runs but what follows.
    unsafe { asm!("hlt", options(nomem, nostack, preserves_flags)) };
}

/// Reads the time-stamp counter.
pub fn rdtsc() -> u64 {
    // SAFETY: not intercepted, no effect on memory; CR4.TSD is clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// One value of RDSEED, or `None` if it had none ready. The 64-bit form: the shorter ones can return 0 and claim
/// success on some processors (AMD-SB-7055).
pub fn rdseed() -> Option<u64> {
    let (value, ready): (u64, u8);
    // SAFETY: the caller asked the CPUID page for RDSEED; the instruction touches a register and the flags.
    unsafe { asm!("rdseed {0}", "setc {1}", out(reg) value, out(reg_byte) ready, options(nomem, nostack)) };
    (ready != 0).then_some(value)
}

/// One value of RDRAND, or `None` if it had none ready.
pub fn rdrand() -> Option<u64> {
    let (value, ready): (u64, u8);
    // SAFETY: the caller asked the CPUID page for RDRAND; the instruction touches a register and the flags.
    unsafe { asm!("rdrand {0}", "setc {1}", out(reg) value, out(reg_byte) ready, options(nomem, nostack)) };
    (ready != 0).then_some(value)
}

/// CR2: the address of the last page fault.
pub fn cr2() -> u64 {
    let value: u64;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// CR4.
pub fn cr4() -> u64 {
    let value: u64;
    // SAFETY: reading CR4 has no effect.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sets CR4.
///
/// # Safety
/// The processor has the features whose bits are set, and paging stays as it is.
pub unsafe fn set_cr4(value: u64) {
    // SAFETY: the caller answers for the bits.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// Sets XCR0.
///
/// # Safety
/// CR4.OSXSAVE is set and the processor has the states.
pub unsafe fn xsetbv(states: u64) {
    // SAFETY: the caller answers for the states.
    unsafe {
        asm!(
            "xsetbv",
            in("ecx") 0, in("eax") states as u32, in("edx") (states >> 32) as u32,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Drops the translation of one page.
///
/// # Safety
/// The new translation keeps what Rust holds in that page.
pub unsafe fn invlpg(address: u64) {
    // SAFETY: the caller answers for the translation.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
}

/// Stops this vCPU for good.
pub fn halt() -> ! {
    loop {
        // SAFETY: with interrupts off nothing runs after it; if the host goes on all the same, the loop does.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
