//! The first instructions; see `entry.s`.

use core::arch::global_asm;
use wire::termination::{REASON_SET, Termination};

/// PG, WP, NE, ET, MP, PE; caches on.
const CR0: u32 = 0x8001_0033;
/// PAE, OSFXSR, OSXMMEXCPT.
const CR4: u32 = 0x620;
const CR4_MCE: u32 = 1 << 6;
/// NXE and LME.
const EFER: u32 = 1 << 11 | 1 << 8;

global_asm!(
    include_str!("entry.s"),
    cr0 = const CR0,
    cr4 = const CR4,
    cr4_mce = const CR4_MCE,
    efer = const EFER,
    reason_set = const REASON_SET,
    not_snp = const Termination::NotSnp as u8,
    c_bit = const Termination::CBit as u8,
    start = sym crate::start,
    thread = sym super::stack::THREAD,
);
