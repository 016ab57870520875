//! Exceptions of the model itself, which are always its own fault, and the interrupts of the machine: calls of
//! its CPUs to each other, and what is for the guest (`interrupts`).

use super::{memory::DIRECT_MAP, stop::internal};
use core::arch::asm;
use core::cell::UnsafeCell;

unsafe extern "C" {
    static trap_stubs: u8;
    static kick_stub: u8;
    static device_stubs: u8;
}

const STUB_BYTES: u64 = 16;
const VECTORS: usize = 256;
/// Vectors that are the model's own; all others from 32 on are for the guest.
const KICK_VECTOR: usize = 0xFE;
/// The local APIC's timer, which counts for the guest.
pub const TIMER_VECTOR: usize = 0xFD;

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

/// Fills the interrupt table, silences the PICs, and has this CPU use both.
pub fn install() {
    // SAFETY: called once at start; the stubs are those of boot.s, 16 bytes apart. The PICs touch no memory.
    unsafe {
        let table = &mut *TABLE.0.get();
        for (vector, entry) in table.iter_mut().take(32).enumerate() {
            *entry = gate(&raw const trap_stubs as u64 + vector as u64 * STUB_BYTES);
        }
        for (index, entry) in table.iter_mut().skip(32).enumerate() {
            *entry = gate(&raw const device_stubs as u64 + index as u64 * STUB_BYTES);
        }
        table[KICK_VECTOR] = gate(&raw const kick_stub as u64);
        super::cpu::out8(0x21, 0xFF);
        super::cpu::out8(0xA1, 0xFF);
    }
    install_on_this_cpu();
}

/// Loads the interrupt table and turns the local APIC on.
pub fn install_on_this_cpu() {
    let base = TABLE.0.get() as u64;
    let limit = size_of::<[[u64; 2]; VECTORS]>() as u16 - 1;
    let pointer: [u16; 5] =
        [limit, base as u16, (base >> 16) as u16, (base >> 32) as u16, (base >> 48) as u16];
    // SAFETY: `install` filled the table, which lives forever.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) };
    apic::write(apic::SPURIOUS, 0x1FF);
}

/// Has this CPU's timer count down from `count`, 0 for never.
pub fn set_timer(count: u32, divide: u32, periodic: bool) {
    const PERIODIC: u32 = 1 << 17;
    apic::write(apic::TIMER_DIVIDE, divide);
    apic::write(apic::TIMER, TIMER_VECTOR as u32 | if periodic { PERIODIC } else { 0 });
    apic::write(apic::TIMER_COUNT, count);
}

/// What this CPU's timer counts at the moment.
pub fn timer_count() -> u32 {
    apic::read(apic::TIMER_CURRENT)
}

/// Interrupts a CPU.
pub fn kick(cpu: u32) {
    apic::send(cpu, KICK_VECTOR as u32);
}

/// Starts a CPU in real mode at `page`, below 1 MiB (APM §16.5: INIT, then STARTUP).
pub fn start_cpu(cpu: u32, page: u64) {
    const INIT: u32 = 0b101 << 8;
    const STARTUP: u32 = 0b110 << 8;
    apic::send(cpu, INIT);
    apic::send(cpu, STARTUP | (page / snp_model::PAGE_BYTES as u64) as u32);
}

mod apic {
    use super::DIRECT_MAP;

    const BASE: u64 = 0xFEE0_0000;
    pub const SPURIOUS: u64 = 0xF0;
    pub const TIMER: u64 = 0x320;
    pub const TIMER_COUNT: u64 = 0x380;
    pub const TIMER_CURRENT: u64 = 0x390;
    pub const TIMER_DIVIDE: u64 = 0x3E0;
    const COMMAND_LOW: u64 = 0x300;
    const COMMAND_HIGH: u64 = 0x310;

    /// Sends an interrupt command, edge-triggered.
    pub fn send(cpu: u32, command: u32) {
        const ASSERT: u32 = 1 << 14;
        write(COMMAND_HIGH, cpu << 24);
        write(COMMAND_LOW, command | ASSERT);
    }

    pub fn read(register: u64) -> u32 {
        // SAFETY: as in `write`; the register has no effect when it is read.
        unsafe { ((DIRECT_MAP + BASE + register) as *const u32).read_volatile() }
    }

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
