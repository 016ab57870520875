//! Exceptions of the model itself, which are always its own fault, and the one interrupt that it uses.

use super::{memory::DIRECT_MAP, stop::internal};
use core::arch::asm;
use core::cell::UnsafeCell;

unsafe extern "C" {
    static trap_stubs: u8;
    static timer_stub: u8;
}

const STUB_BYTES: u64 = 16;
const VECTORS: usize = 256;
const TIMER_VECTOR: usize = 0x40;

struct Table(UnsafeCell<[[u64; 2]; VECTORS]>);
// SAFETY: only `install` writes it, once, before anything else runs.
unsafe impl Sync for Table {}
static TABLE: Table = Table(UnsafeCell::new([[0; 2]; VECTORS]));

/// What the stubs leave on the stack.
#[repr(C)]
struct Frame {
    vector: u64,
    error: u64,
    rip: u64,
}

fn gate(handler: u64) -> [u64; 2] {
    const CODE: u64 = 0x08 << 16;
    const PRESENT_INTERRUPT: u64 = 0x8E << 40;
    [handler & 0xFFFF | CODE | PRESENT_INTERRUPT | (handler >> 16 & 0xFFFF) << 48, handler >> 32]
}

/// Loads the interrupt table, silences the PICs and leaves the local APIC with nothing but its timer.
pub fn install() {
    // SAFETY: called once at start; the stubs are those of boot.s, 16 bytes apart, and the table lives
    // forever. The PICs and the APIC touch no memory.
    unsafe {
        let table = &mut *TABLE.0.get();
        for (vector, entry) in table.iter_mut().take(32).enumerate() {
            *entry = gate(&raw const trap_stubs as u64 + vector as u64 * STUB_BYTES);
        }
        table[TIMER_VECTOR] = gate(&raw const timer_stub as u64);
        let pointer: [u16; 5] = {
            let base = table.as_ptr() as u64;
            [
                size_of_val(table) as u16 - 1,
                base as u16,
                (base >> 16) as u16,
                (base >> 32) as u16,
                (base >> 48) as u16,
            ]
        };
        asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags));
        super::cpu::out8(0x21, 0xFF);
        super::cpu::out8(0xA1, 0xFF);
    }
    apic::write(apic::SPURIOUS, 0x1FF);
    apic::write(apic::TIMER_DIVIDE, 0b1011);
    apic::write(apic::TIMER, TIMER_VECTOR as u32);
}

/// Waits for about a millisecond without using the machine.
pub fn nap() {
    // QEMU's APIC timer counts nanoseconds.
    apic::write(apic::TIMER_COUNT, 1_000_000);
    super::cpu::halt_until_interrupt();
}

mod apic {
    use super::DIRECT_MAP;

    const BASE: u64 = 0xFEE0_0000;
    pub const SPURIOUS: u64 = 0xF0;
    pub const TIMER: u64 = 0x320;
    pub const TIMER_COUNT: u64 = 0x380;
    pub const TIMER_DIVIDE: u64 = 0x3E0;

    pub fn write(register: u64, value: u32) {
        // SAFETY: the registers above, at the address that the APIC has from reset on; it touches no memory.
        unsafe { ((DIRECT_MAP + BASE + register) as *mut u32).write_volatile(value) }
    }
}

/// Where the exception stubs end.
///
/// # Safety
/// `frame` is what a stub of boot.s left on the stack.
#[unsafe(no_mangle)]
unsafe extern "C" fn model_trap(frame: *const Frame) -> ! {
    let address: u64;
    // SAFETY: reading CR2 changes nothing; the frame is the caller's.
    let frame = unsafe {
        asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags));
        &*frame
    };
    internal!(
        "exception {} (error {:#x}) in the model at {:#x}, address {address:#x}",
        frame.vector,
        frame.error,
        frame.rip
    )
}
