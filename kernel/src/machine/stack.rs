//! Wiping what calls left on the stack (REQUIREMENTS A20).

use super::image;
use core::arch::asm;

/// Zeroes the unused part of the main stack, and the vector registers. What is in use belongs to callers that are still
/// running: the boot and the main loop, which hold no text of a session.
#[inline(never)]
pub fn wipe_unused() {
    // SAFETY: from the stack's bottom to RSP nothing is in use (the image is built without a red zone, and this function
    // is not interrupted). The registers are declared as clobbered by the `C` ABI.
    unsafe {
        asm!(
            "mov rcx, rsp",
            "sub rcx, rdi",
            "shr rcx, 3",
            "xor eax, eax",
            "rep stosq",
            "xorps xmm0, xmm0",
            "xorps xmm1, xmm1",
            "xorps xmm2, xmm2",
            "xorps xmm3, xmm3",
            "xorps xmm4, xmm4",
            "xorps xmm5, xmm5",
            "xorps xmm6, xmm6",
            "xorps xmm7, xmm7",
            "xorps xmm8, xmm8",
            "xorps xmm9, xmm9",
            "xorps xmm10, xmm10",
            "xorps xmm11, xmm11",
            "xorps xmm12, xmm12",
            "xorps xmm13, xmm13",
            "xorps xmm14, xmm14",
            "xorps xmm15, xmm15",
            inout("rdi") image::main_stack_bottom() => _,
            clobber_abi("C"),
        );
    }
}
