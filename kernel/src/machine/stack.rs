//! Stack canaries, and wiping what calls left on the stack and in registers (REQUIREMENTS A20).
//!
//! Every function that keeps an array or lends out a local variable checks, before it returns, that the word between them and
//! its return address is still the canary (LLVM's `sspstrong`; `image_builder::freestanding` asks for it). It is drawn at each
//! boot.

use super::cpus;
use super::descriptors::this_cpu;
use crate::CPUID;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use kernel::memory::heap::wipe;

/// Where the FS base of all CPUs points. The canary is its last word: LLVM compiles for Linux, whose thread control block has
/// it at byte 40 (System V ABI, AMD64 supplement, §3.4.6 leaves it to the system; glibc `tcbhead_t`).
pub static THREAD: [AtomicU64; 6] = [const { AtomicU64::new(0) }; 6];

/// Changes the canary. A function that was entered before this call and returns after it ends the VM.
pub fn set_canary(canary: u64) {
    THREAD[5].store(canary, Ordering::Relaxed);
}

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
    reset_registers();
}

/// Gives every x87 and vector register, and their control words, the value that the ABI has at a program's start. Whatever a
/// VMSA says of them: QEMU 10.1 gives further vCPUs 0 (`sev_es_set_ap_context`), Linux gives its own 0x40 and 0x1f80.
pub fn reset_registers() {
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
