//! The instructions that Rust has no word for.

use core::arch::asm;

/// Writes a byte to a port.
///
/// # Safety
/// The device behind the port must not change memory that Rust owns.
pub unsafe fn out8(port: u16, value: u8) {
    // SAFETY: the caller knows the device.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
}

/// Writes two bytes to a port.
///
/// # Safety
/// As for [`out8`].
pub unsafe fn out16(port: u16, value: u16) {
    // SAFETY: the caller knows the device.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) }
}

/// Writes four bytes to a port.
///
/// # Safety
/// As for [`out8`].
pub unsafe fn out32(port: u16, value: u32) {
    // SAFETY: the caller knows the device.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) }
}

/// Reads a byte from a port.
///
/// # Safety
/// As for [`out8`].
pub unsafe fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: the caller knows the device.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Reads two bytes from a port.
///
/// # Safety
/// As for [`out8`].
pub unsafe fn in16(port: u16) -> u16 {
    let value;
    // SAFETY: the caller knows the device.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Reads four bytes from a port.
///
/// # Safety
/// As for [`out8`].
pub unsafe fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: the caller knows the device.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) }
    value
}

/// Writes an MSR.
///
/// # Safety
/// The MSR must exist, and its new value must leave this program running as Rust expects.
pub unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: the caller knows the MSR.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags))
    }
}

/// CPUID of the virtual processor that QEMU gives the model.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let result = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// The time-stamp counter.
pub fn timestamp() -> u64 {
    // SAFETY: RDTSC has no precondition at CPL 0.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Sets XCR0, which guest and model share: VMRUN does not switch it.
///
/// # Safety
/// CR4.OSXSAVE must be set and `value` be one that the processor supports.
pub unsafe fn write_xcr0(value: u64) {
    // SAFETY: the caller's.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nomem, nostack, preserves_flags))
    }
}

/// XCR0, which is the guest's.
pub fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: CR4.OSXSAVE is set in boot.s.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// The bits of XCR0 that the processor supports (APM volume 3, §E.3.8).
pub fn xcr0_supported() -> u64 {
    let [low, _, _, high] = cpuid(0xD, 0);
    u64::from(high) << 32 | u64::from(low)
}

/// Stops until an interrupt arrives that is enabled in the local APIC.
pub fn halt_until_interrupt() {
    // SAFETY: the only interrupt is another CPU's call, whose handler touches nothing but the APIC.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) }
}

/// Stops for good.
pub fn halt() -> ! {
    loop {
        // SAFETY: interrupts are off, so nothing happens any more.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

/// A random number. A processor whose generator is stuck gives zeroes, which only makes the model's keys
/// guessable.
pub fn random() -> u64 {
    const RDRAND: u32 = 1 << 30;
    let mut value = 0u64;
    if cpuid(1, 0)[2] & RDRAND == 0 {
        // A hostile host took the instruction away to answer it for the guest.
        return timestamp().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    for _ in 0..100 {
        let good: u8;
        // SAFETY: RDRAND exists on QEMU's `max` processor.
        unsafe { asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) good, options(nomem, nostack)) };
        if good == 1 {
            break;
        }
    }
    value
}
