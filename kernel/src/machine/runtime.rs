//! What the compiler and the libraries expect of a platform.

use super::ghcb;
use super::terminate::{last_word, terminate};
use core::arch::asm;
use core::panic::PanicInfo;
use kernel::fatal::Fatal;
use wire::event::Event;
use wire::termination::Termination;

/// A panic is a defect of the guest. Its message could hold text of a request, so it never leaves; line and file do.
#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    let (line, file) = info.location().map_or((0, 0), |at| (at.line(), fnv_1a(at.file().as_bytes())));
    ghcb::emit(Event::Panicked { line, file });
    terminate(Fatal::new(Termination::Panic, line.into()))
}

/// FNV-1a, 64 bits (draft-eastlake-fnv).
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The precompiled `alloc` was built for unwinding and names this; with `panic = "abort"` nobody calls it.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume(_exception: *mut u8) -> ! {
    terminate(Fatal::new(Termination::Panic, 0))
}

/// As [`_Unwind_Resume`].
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() -> ! {
    terminate(Fatal::new(Termination::Panic, 0))
}

/// A function found its stack canary changed before it returned (`machine::stack`).
#[unsafe(no_mangle)]
extern "C" fn __stack_chk_fail() -> ! {
    last_word(Termination::StackCorrupt)
}

/// Copies up to 32 bytes with loads that may overlap and all come before the stores; right for overlapping runs too.
///
/// # Safety
/// As `memmove`, with `length <= 32`.
#[inline(always)]
unsafe fn copy_short(to: *mut u8, from: *const u8, length: usize) {
    macro_rules! ends {
        ($word:ty) => {{
            let last = length - size_of::<$word>();
            // SAFETY: the caller's runs are `length` bytes long, which is at least one word.
            unsafe {
                let head = from.cast::<$word>().read_unaligned();
                let tail = from.add(last).cast::<$word>().read_unaligned();
                to.cast::<$word>().write_unaligned(head);
                to.add(last).cast::<$word>().write_unaligned(tail);
            }
        }};
    }
    match length {
        0 => {}
        1 => ends!(u8),
        2..=3 => ends!(u16),
        4..=7 => ends!(u32),
        8..=15 => ends!(u64),
        _ => ends!(u128),
    }
}

/// C's `memcpy`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    if length <= 32 {
        // SAFETY: the caller's promise.
        unsafe { copy_short(to, from, length) };
        return to;
    }
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        asm!(
            "rep movsq",
            "mov ecx, {rest:e}",
            "rep movsb",
            rest = in(reg) length & 7,
            inout("rcx") length >> 3 => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// C's `memmove`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    if length <= 32 {
        // SAFETY: the caller's promise.
        unsafe { copy_short(to, from, length) };
        return to;
    }
    if to.addr().wrapping_sub(from.addr()) >= length {
        // SAFETY: upwards, no byte is written before it was read.
        return unsafe { memcpy(to, from, length) };
    }
    // SAFETY: downwards, no byte is written before it was read: first the odd bytes at the end, then the words below them.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "sub rdi, 7",
            "sub rsi, 7",
            "mov rcx, {words}",
            "rep movsq",
            "cld",
            words = in(reg) length >> 3,
            inout("rcx") length & 7 => _,
            inout("rdi") to.add(length - 1) => _,
            inout("rsi") from.add(length - 1) => _,
            options(nostack),
        );
    }
    to
}

/// C's `memset`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        asm!(
            "rep stosq",
            "mov ecx, {rest:e}",
            "rep stosb",
            rest = in(reg) length & 7,
            in("rax") u64::from(value as u8) * 0x0101_0101_0101_0101,
            inout("rcx") length >> 3 => _, inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
    to
}

/// C's `memcmp`.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    let mut at = 0;
    while at + 8 <= length {
        // SAFETY: within the caller's runs.
        let (x, y) =
            unsafe { (a.add(at).cast::<u64>().read_unaligned(), b.add(at).cast::<u64>().read_unaligned()) };
        if x != y {
            return if x.swap_bytes() < y.swap_bytes() { -1 } else { 1 };
        }
        at += 8;
    }
    while at < length {
        // SAFETY: within the caller's runs.
        let (x, y) = unsafe { (*a.add(at), *b.add(at)) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        at += 1;
    }
    0
}

/// LLVM's `bcmp`.
///
/// # Safety
/// As `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(a, b, length) }
}
