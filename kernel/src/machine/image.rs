//! Where the linker put things; see `link.ld`.

use core::ops::Range;
use kernel::cpus::stacks::Stacks;
use kernel::memory::layout::FRAME;
use kernel::snp::vmsa;

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __ghcb: u8;
    static __tables: u8;
    static __rodata_end: u8;
    static __vmsas: u8;
    static __stack_main_bottom: u8;
    static __stack_main_top: u8;
    static __stack_vc_bottom: u8;
    static __stack_vc_top: u8;
    static __stack_double_fault_bottom: u8;
    static __stack_double_fault_top: u8;
    static __stack_exceptions_bottom: u8;
    static __stack_exceptions_top: u8;
}

/// The page that becomes the GHCB.
pub fn ghcb() -> u64 {
    (&raw const __ghcb) as u64
}

/// The page tables that the entry made: PML4, PDPT, page directory, three page tables.
pub fn tables() -> u64 {
    (&raw const __tables) as u64
}

/// The code, and nothing but code.
pub fn text() -> Range<u64> {
    (&raw const __text_start) as u64..(&raw const __text_end) as u64
}

/// Constants, which are never written.
pub fn constants() -> Range<u64> {
    (&raw const __text_end) as u64..(&raw const __rodata_end) as u64
}

/// The first CPU's stacks.
pub fn stacks() -> Stacks {
    let range = |start: *const u8, end: *const u8| start as u64..end as u64;
    Stacks {
        main: range(&raw const __stack_main_bottom, &raw const __stack_main_top),
        vc: range(&raw const __stack_vc_bottom, &raw const __stack_vc_top),
        double_fault: range(&raw const __stack_double_fault_bottom, &raw const __stack_double_fault_top),
        others: range(&raw const __stack_exceptions_bottom, &raw const __stack_exceptions_top),
    }
}

/// The page for the VMSA of a CPU beside the first. It never begins a frame of 2 MiB: some processors take an access to such
/// a frame for one to the VMSA, so KVM refuses it (Linux `snp_safe_alloc_page`, `sev_snp_ap_creation`).
pub fn vmsa(number: usize) -> u64 {
    let first = (&raw const __vmsas) as u64;
    let page = first + (number as u64 - 1) * vmsa::BYTES as u64;
    let crossed = page / FRAME != (first - 1) / FRAME;
    page + if crossed { vmsa::BYTES as u64 } else { 0 }
}
