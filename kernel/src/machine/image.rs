//! Where the linker put things; see `link.ld`.

use core::ops::Range;

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __ghcb: u8;
    static __tables: u8;
    static __guard_main: u8;
    static __stack_main_bottom: u8;
    static __guard_vc: u8;
    static __stack_vc_bottom: u8;
    static __stack_vc_top: u8;
    static __guard_double_fault: u8;
    static __stack_double_fault_top: u8;
    static __guard_exceptions: u8;
    static __stack_exceptions_top: u8;
}

macro_rules! address {
    ($($(#[doc = $doc:literal])* $name:ident = $symbol:ident;)*) => {
        $(
            $(#[doc = $doc])*
            pub fn $name() -> u64 {
                (&raw const $symbol) as u64
            }
        )*
    };
}

address! {
    /// The page that becomes the GHCB.
    ghcb = __ghcb;
    /// The page tables that the entry made: PML4, PDPT, page directory, three page tables.
    tables = __tables;
    /// Lowest byte of the main stack.
    main_stack_bottom = __stack_main_bottom;
    /// Lowest byte of the #VC stack.
    vc_stack_bottom = __stack_vc_bottom;
    /// Where #VC handling starts.
    vc_stack_top = __stack_vc_top;
    /// Where double-fault handling starts.
    double_fault_stack_top = __stack_double_fault_top;
    /// Where handling of all other vectors starts.
    exceptions_stack_top = __stack_exceptions_top;
}

/// The code, and nothing but code.
pub fn text() -> Range<u64> {
    (&raw const __text_start) as u64..(&raw const __text_end) as u64
}

/// Whether an access to `address` ran out of a stack.
pub fn is_guard(address: u64) -> bool {
    [
        &raw const __guard_main,
        &raw const __guard_vc,
        &raw const __guard_double_fault,
        &raw const __guard_exceptions,
    ]
    .iter()
    .any(|guard| address & !0xfff == *guard as u64)
}
