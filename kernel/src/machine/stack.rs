//! Wiping what calls left on the stack and in registers (REQUIREMENTS A20).

use super::cpus;
use super::descriptors::this_cpu;
use crate::CPUID;
use core::arch::asm;
use kernel::memory::heap::wipe;

/// The processor's state after reset, as XRSTOR and FXRSTOR read it (APM vol. 2, §11.5): no component is marked as saved, so
/// each takes its initial value; control words are those of the ABI.
#[repr(C, align(64))]
struct InitialState([u8; 576]);

static INITIAL_STATE: InitialState = {
    let mut area = [0; 576];
    let (fcw, mxcsr) = (0x037f_u16.to_le_bytes(), 0x1f80_u32.to_le_bytes());
    area[0] = fcw[0];
    area[1] = fcw[1];
    area[24] = mxcsr[0];
    area[25] = mxcsr[1];
    InitialState(area)
};

/// Zeroes the unused part of this CPU's main stack, its stack on which `cpuid` is answered (it keeps the registers of whoever
/// asked, vectors included), and every vector register. What is in use belongs to callers that are still
/// running: the boot, the main loop and the pool's loop, which hold no text of a session.
#[inline(never)]
pub fn wipe_unused() {
    let stacks = cpus::stacks(this_cpu());
    // SAFETY: from the stack's bottom to RSP nothing is in use: the image is built without a red zone, and exceptions have
    // stacks of their own.
    unsafe {
        asm!(
            "mov rcx, rsp",
            "sub rcx, rdi",
            "shr rcx, 3",
            "xor eax, eax",
            "rep stosq",
            inout("rdi") stacks.main.start => _,
            out("rcx") _,
            out("rax") _,
        );
    }
    let (bottom, top) = (stacks.vc.start, stacks.vc.end);
    // SAFETY: nothing below answers a `cpuid`, so nobody is on that stack.
    unsafe { wipe(bottom as *mut u8, (top - bottom) as usize) };
    let states = CPUID.get().map_or(0, |cpuid| cpuid.xcr0());
    let area = &raw const INITIAL_STATE;
    // SAFETY: the area is aligned and has the form that both instructions expect; all registers that they write are
    // clobbered by the ABI, and the states are those that XCR0 enables.
    unsafe {
        if states == 0 {
            asm!("fxrstor64 [{}]", in(reg) area, clobber_abi("C"), options(nostack));
        } else {
            let (low, high) = (states as u32, (states >> 32) as u32);
            asm!("xrstor64 [{}]", in(reg) area, in("eax") low, in("edx") high, clobber_abi("C"), options(nostack));
        }
    }
}
