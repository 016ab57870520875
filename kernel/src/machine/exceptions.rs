//! The 256 stubs, and what they lead to: `kernel::exceptions` decides, this reads and writes the registers.

use super::{cpus, image, instructions, terminate::terminate};
use crate::CPUID;
use core::arch::global_asm;
use kernel::exceptions::{self, CPUID_BYTES, DOUBLE_FAULT, Exception, PAGE_FAULT};

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
    let vector = frame.vector as u8;
    let exception = Exception {
        vector,
        error: frame.error,
        rip: frame.rip,
        opcode: opcode(frame.rip),
        input: [frame.rax as u32, frame.rcx as u32],
        guard: match vector {
            PAGE_FAULT => Some(instructions::cr2()),
            // The fault that led here pushed, so it hit what lies just below RSP.
            DOUBLE_FAULT => Some(frame.rsp.wrapping_sub(1)),
            _ => None,
        }
        .filter(|address| cpus::is_guard(*address)),
    };
    match exceptions::serve(&exception, CPUID.get()) {
        Ok(answer) => {
            frame.rax = answer.eax.into();
            frame.rbx = answer.ebx.into();
            frame.rcx = answer.ecx.into();
            frame.rdx = answer.edx.into();
            frame.rip += CPUID_BYTES;
        }
        Err(fatal) => terminate(fatal),
    }
}

/// The first two bytes of an instruction of the image.
fn opcode(rip: u64) -> Option<[u8; 2]> {
    let text = image::text();
    if rip < text.start || rip > text.end - 2 {
        return None;
    }
    // SAFETY: two bytes of the image's code, which is mapped readable and never written.
    Some(unsafe { (rip as *const [u8; 2]).read_volatile() })
}
