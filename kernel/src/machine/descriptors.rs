//! GDT, TSS and IDT.
//!
//! One GDT for all CPUs, with a task state for each: the selector of its task state tells a CPU which it is.

use super::{exceptions, instructions};
use core::arch::asm;
use core::mem::size_of;
use core::sync::atomic::{AtomicU64, Ordering};
use kernel::cpus::{MAX, stacks::Stacks};
use kernel::exceptions::{DOUBLE_FAULT, VC};
use kernel::fatal::{Fatal, OrFatal};
use kernel::once::Once;
use kernel::snp::vmsa::Table;
use wire::termination::Termination;

const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
/// The first CPU's task state; each takes two entries.
const TSS: u16 = 0x18;
const TSS_BYTES: u16 = 16;
const ENTRIES: usize = TSS as usize / 8 + 2 * MAX;
const VECTORS: usize = 256;

/// #DF and #VC have stacks of their own; all others end the VM and share one.
const IST_VC: u8 = 1;
const IST_DOUBLE_FAULT: u8 = 2;
const IST_OTHERS: u8 = 3;

/// APM vol. 2, §12.2.5.
#[repr(C, packed(4))]
struct TaskState {
    reserved: u32,
    rsp: [u64; 3],
    reserved_2: u64,
    ist: [u64; 7],
    reserved_3: u64,
    reserved_4: u16,
    io_map: u16,
}

/// APM vol. 2, §8.9.1: an interrupt gate in long mode.
#[repr(C)]
#[derive(Clone, Copy)]
struct Gate {
    offset_low: u16,
    selector: u16,
    ist: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

impl Gate {
    const fn new(handler: u64, ist: u8) -> Self {
        const PRESENT_INTERRUPT_GATE: u8 = 0x8e;
        Self {
            offset_low: handler as u16,
            selector: CODE,
            ist,
            kind: PRESENT_INTERRUPT_GATE,
            offset_middle: (handler >> 16) as u16,
            offset_high: (handler >> 32) as u32,
            reserved: 0,
        }
    }
}

/// Null, code, data, and the two halves of each TSS's descriptor. Atomic, because LTR sets the TSS's busy bit.
static GDT: [AtomicU64; ENTRIES] = {
    let mut gdt = [const { AtomicU64::new(0) }; ENTRIES];
    gdt[CODE as usize / 8] = AtomicU64::new(0x00af_9b00_0000_ffff);
    gdt[DATA as usize / 8] = AtomicU64::new(0x00cf_9300_0000_ffff);
    gdt
};
static TASKS: [Once<TaskState>; MAX] = [const { Once::new() }; MAX];
static IDT: Once<[Gate; VECTORS]> = Once::new();

/// Operand of LGDT and LIDT.
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// The number of the CPU that asks: 0 for the first, also before [`load`].
pub fn this_cpu() -> usize {
    usize::from(instructions::task_register().saturating_sub(TSS) / TSS_BYTES)
}

/// The GDT.
pub fn gdt() -> Table {
    Table { base: (&raw const GDT) as u64, limit: size_of::<[AtomicU64; ENTRIES]>() as u32 - 1 }
}

/// The IDT.
pub fn idt() -> Table {
    let base = IDT.get().map_or(0, |idt| (&raw const *idt) as u64);
    Table { base, limit: size_of::<[Gate; VECTORS]>() as u32 - 1 }
}

/// Gives CPU number `number` a task state with these stacks: its selector, and where it lies.
pub fn add_task(number: usize, stacks: &Stacks) -> OrFatal<(u16, Table)> {
    let twice = Fatal::new(Termination::CpuStart, number as u64);
    let tss = TaskState {
        reserved: 0,
        rsp: [0; 3],
        reserved_2: 0,
        ist: [stacks.vc.end, stacks.double_fault.end, stacks.others.end, 0, 0, 0, 0],
        reserved_3: 0,
        reserved_4: 0,
        io_map: size_of::<TaskState>() as u16,
    };
    let tss = TASKS.get(number).ok_or(twice)?.set(tss).map_err(|_| twice)?;
    let table = Table { base: (&raw const *tss) as u64, limit: size_of::<TaskState>() as u32 - 1 };
    let selector = TSS + number as u16 * TSS_BYTES;
    let (low, high) = (table.base & 0xff_ffff, table.base >> 24 & 0xff);
    let entry = usize::from(selector) / 8;
    GDT[entry].store(u64::from(table.limit) | low << 16 | 0x89 << 40 | high << 56, Ordering::Relaxed);
    GDT[entry + 1].store(table.base >> 32, Ordering::Relaxed);
    Ok((selector, table))
}

/// Loads the tables on the first CPU. Before this call any exception is a shutdown.
pub fn load(stacks: &Stacks) -> OrFatal<()> {
    let idt = core::array::from_fn(|vector| {
        let ist = match vector as u8 {
            VC => IST_VC,
            DOUBLE_FAULT => IST_DOUBLE_FAULT,
            _ => IST_OTHERS,
        };
        Gate::new(exceptions::stub(vector as u8), ist)
    });
    IDT.set(idt).map_err(|_| Fatal::new(Termination::CpuStart, 0))?;
    let (task, _) = add_task(0, stacks)?;
    let pointer = |table: Table| Pointer { limit: table.limit as u16, base: table.base };
    let (gdt, idt) = (pointer(self::gdt()), pointer(self::idt()));
    // SAFETY: both tables live for ever; the selectors name descriptors of the new GDT with the same meaning as before.
    unsafe {
        asm!(
            "lgdt [{gdt}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ss, {data:e}",
            "ltr {tss:x}",
            "lidt [{idt}]",
            gdt = in(reg) &raw const gdt,
            idt = in(reg) &raw const idt,
            code = const CODE,
            data = in(reg) u32::from(DATA),
            tss = in(reg) task,
            scratch = out(reg) _,
        );
    }
    Ok(())
}
