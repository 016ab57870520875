//! All 256 vectors. One of them is served: `#VC` for `cpuid`. Every other ends the VM.
//!
//! The host can raise any vector at any time (REQUIREMENTS A1, A2). So a `#VC` counts only if the instruction it
//! interrupted is the one that its exit code names, and the answer comes from the CPUID page, never from the host.

use super::{image, instructions, terminate::terminate};
use crate::CPUID;
use core::arch::global_asm;
use kernel::fatal::Fatal;
use kernel::snp::vc;
use wire::termination::Termination;

/// VMM communication exception.
pub const VC: u8 = 29;
/// Double fault.
pub const DOUBLE_FAULT: u8 = 8;
const PAGE_FAULT: u8 = 14;

const STUB_BYTES: u64 = 16;

global_asm!(include_str!("exceptions.s"), handler = sym handle);

unsafe extern "C" {
    static exception_stubs: u8;
}

/// Address of a vector's stub.
pub fn stub(vector: u8) -> u64 {
    (&raw const exception_stubs) as u64 + u64::from(vector) * STUB_BYTES
}

/// What the stub and the processor pushed.
#[repr(C)]
struct Frame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rcx: u64,
    rax: u64,
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

extern "C" fn handle(frame: &mut Frame) {
    let result = match frame.vector as u8 {
        VC => serve_cpuid(frame),
        PAGE_FAULT if image::is_guard(instructions::cr2()) => {
            Err(Fatal::new(Termination::StackOverflow, instructions::cr2()))
        }
        DOUBLE_FAULT if image::is_guard(frame.rsp.wrapping_sub(1)) => {
            Err(Fatal::new(Termination::StackOverflow, frame.rsp))
        }
        vector => Err(Fatal::new(Termination::UnexpectedVector, u64::from(vector) << 56 | frame.rip)),
    };
    if let Err(fatal) = result {
        terminate(fatal);
    }
}

fn serve_cpuid(frame: &mut Frame) -> Result<(), Fatal> {
    let unexpected = Fatal::new(Termination::UnexpectedVc, frame.error);
    let text = image::text();
    if frame.rip < text.start || frame.rip + 2 > text.end {
        return Err(unexpected);
    }
    // SAFETY: two bytes of the image's code, which is mapped readable and never written.
    let opcode = unsafe { (frame.rip as *const [u8; 2]).read_volatile() };
    if !vc::is_cpuid(frame.error, opcode) {
        return Err(unexpected);
    }
    let table = CPUID.get().ok_or(unexpected)?;
    let answer = table.instruction(frame.rax as u32, frame.rcx as u32)?;
    frame.rax = answer.eax.into();
    frame.rbx = answer.ebx.into();
    frame.rcx = answer.ecx.into();
    frame.rdx = answer.edx.into();
    frame.rip += 2;
    Ok(())
}
