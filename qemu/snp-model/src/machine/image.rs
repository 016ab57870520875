//! The model's own image: it moves out of the guest's memory and then runs under W^X page tables.
//!
//! QEMU loads the image at its link address, which is in the part of RAM that belongs to shared guest pages.
//! The image goes behind all of that and its virtual addresses with it.

use super::memory::{DIRECT_MAP, HostPage, Pool};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use snp_model::PAGE_BYTES;

unsafe extern "C" {
    static __image_start: u8;
    static __rodata_start: u8;
    static __data_start: u8;
    static __image_end: u8;
    static stack_guard: u8;
}

const PAGE: u64 = PAGE_BYTES as u64;
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// Where the stacks of other CPUs than the first are; below each of them nothing is mapped.
const STACKS: u64 = 1 << 30;
const STACK_STRIDE: u64 = 512 << 10;
const STACK_PAGES: u64 = 64;

/// The top page table, from [`relocate`] on.
static ROOT: AtomicU64 = AtomicU64::new(0);

fn start() -> u64 {
    &raw const __image_start as u64
}

/// Bytes of the image, whole pages.
pub fn bytes() -> u64 {
    &raw const __image_end as u64 - start()
}

/// Moves the image to host-physical `to`, with page tables from `pool`, and clears where it was.
///
/// # Safety
/// The image still runs at its load address, and `to..to + bytes()` is RAM that nothing else uses.
pub unsafe fn relocate(to: u64, pool: &mut Pool) {
    let from = start();
    let root = tables(to, pool);
    ROOT.store(root.address(), Relaxed);
    // SAFETY: the copy holds everything, this stack included, as it is at the moment of the switch: between
    // the copy's end and the switch nothing is written. The new tables map the same virtual addresses to the
    // copy with the rights that the program needs, and the direct map as before. Afterwards nothing refers to
    // the old place.
    unsafe {
        asm!(
            "rep movsq",
            "mov cr3, {root}",
            root = in(reg) root.address(),
            inout("rcx") bytes() / 8 => _,
            inout("rsi") DIRECT_MAP + from => _,
            inout("rdi") DIRECT_MAP + to => _,
            options(nostack, preserves_flags)
        );
        for page in (from..from + bytes()).step_by(PAGE_BYTES) {
            HostPage::from_address(page).clear();
        }
    }
}

/// Page tables: the image at its virtual addresses, on memory at `to`, and the direct map.
fn tables(to: u64, pool: &mut Pool) -> HostPage {
    let root = pool.take(1);
    let top = below(root, 0, pool);
    for gigabyte in 0..512u64 {
        let entry = gigabyte << 30 | PRESENT | WRITABLE | LARGE | NO_EXECUTE;
        below(top, (DIRECT_MAP >> 39 & 511) as usize, pool).write(gigabyte as usize * 8, entry);
    }
    let (rodata, data) = (&raw const __rodata_start as u64, &raw const __data_start as u64);
    let guard = &raw const stack_guard as u64;
    for page in (start()..start() + bytes()).step_by(PAGE_BYTES).filter(|page| *page != guard) {
        let rights = match page {
            _ if page < rodata => 0,
            _ if page < data => NO_EXECUTE,
            _ => WRITABLE | NO_EXECUTE,
        };
        map(root, page, (to + page - start()) | PRESENT | rights, pool);
    }
    root
}

/// Maps the page at the virtual address `at`, which is below 512 GiB.
fn map(root: HostPage, at: u64, entry: u64, pool: &mut Pool) {
    let directory = below(below(below(root, 0, pool), 0, pool), (at >> 30) as usize, pool);
    let table = below(directory, (at >> 21 & 511) as usize, pool);
    table.write((at / PAGE % 512) as usize * 8, entry);
}

fn root() -> HostPage {
    // SAFETY: `relocate`, which comes before everything that asks, stored the address of a page of the pool.
    unsafe { HostPage::from_address(ROOT.load(Relaxed)) }
}

/// Makes a stack for another CPU, and shows it the page of its first instructions at its own address. The top page
/// table and the end of the stack.
pub fn new_stack(cpu: u64, trampoline: u64, pool: &mut Pool) -> (HostPage, u64) {
    let root = root();
    let end = STACKS + (cpu + 1) * STACK_STRIDE;
    for page in 1..=STACK_PAGES {
        let entry = pool.take(1).address() | PRESENT | WRITABLE | NO_EXECUTE;
        map(root, end - page * PAGE, entry, pool);
    }
    map(root, trampoline, trampoline | PRESENT, pool);
    (root, end)
}

/// Takes the page of the first instructions away again; no other CPU runs in it any more.
pub fn forget_trampoline(trampoline: u64, pool: &mut Pool) {
    map(root(), trampoline, 0, pool);
}

/// The table below entry `index` of `table`, made if there is none.
fn below(table: HostPage, index: usize, pool: &mut Pool) -> HostPage {
    let entry = table.read::<u64>(index * 8);
    if entry & PRESENT != 0 {
        // SAFETY: this function wrote it, from a page of the pool.
        return unsafe { HostPage::from_address(entry) };
    }
    let new = pool.take(1);
    table.write(index * 8, new.address() | PRESENT | WRITABLE);
    new
}
