//! What a Rust program finds in an operating system: memory functions, a heap, a place for panics to end.

use super::stop::internal;
use core::arch::asm;
use embedded_alloc::TlsfHeap;

#[global_allocator]
static HEAP: TlsfHeap = TlsfHeap::empty();

/// Gives the heap its memory.
///
/// # Safety
/// Called once; the range is mapped, zeroed RAM that nothing else uses.
pub unsafe fn start_heap(start: usize, bytes: usize) {
    // SAFETY: the caller's.
    unsafe { HEAP.init(start, bytes) }
}

struct OneAtATime;
critical_section::set_impl!(OneAtATime);
// SAFETY: only the heap enters critical sections. It is used by one CPU at a time: before `cpus::start` there is only
// one, and afterwards by whoever holds the lock of the `Machine`. The only interrupt handler (the stub of boot.s) uses
// no heap.
unsafe impl critical_section::Impl for OneAtATime {
    unsafe fn acquire() {}
    unsafe fn release((): ()) {}
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    internal!("{info}")
}

#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    internal!("unwinding in a program that aborts on panic")
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    // SAFETY: the caller's; quadwords first, because QEMU's TCG moves one element at a time.
    unsafe {
        asm!(
            "rep movsq", "mov rcx, {rest}", "rep movsb", rest = in(reg) bytes % 8,
            inout("rcx") bytes / 8 => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= bytes {
        // SAFETY: forward copying never overwrites what is still to be read.
        return unsafe { memcpy(to, from, bytes) };
    }
    // SAFETY: the caller's; the direction flag is cleared again.
    unsafe {
        asm!(
            "std", "rep movsb", "cld",
            inout("rcx") bytes => _, inout("rdi") to.wrapping_add(bytes).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(bytes).wrapping_sub(1) => _, options(nostack)
        );
    }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, bytes: usize) -> *mut u8 {
    let pattern = 0x0101_0101_0101_0101 * u64::from(value as u8);
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "rep stosq", "mov rcx, {rest}", "rep stosb", rest = in(reg) bytes % 8,
            inout("rcx") bytes / 8 => _, inout("rdi") to => _, in("rax") pattern,
            options(nostack, preserves_flags)
        );
    }
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, bytes: usize) -> i32 {
    for i in 0..bytes {
        // SAFETY: the caller's. Volatile, so that the loop does not become a call of this function.
        let (a, b) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, bytes: usize) -> i32 {
    // SAFETY: the caller's.
    unsafe { memcmp(a, b, bytes) }
}
