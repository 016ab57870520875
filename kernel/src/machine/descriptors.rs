//! GDT, TSS and IDT of the one CPU.

use super::{exceptions, image};
use core::arch::asm;
use core::mem::size_of;
use core::sync::atomic::AtomicU64;
use kernel::exceptions::{DOUBLE_FAULT, VC};
use kernel::once::Once;

const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
const TSS: u16 = 0x18;
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

/// Null, code, data, and the two halves of the TSS's descriptor. Atomic, because LTR sets the TSS's busy bit.
type Gdt = [AtomicU64; 5];

static TSS_IN_USE: Once<TaskState> = Once::new();
static GDT: Once<Gdt> = Once::new();
static IDT: Once<[Gate; VECTORS]> = Once::new();

/// Operand of LGDT and LIDT.
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Loads the tables. Before this call any exception is a shutdown.
pub fn load() {
    let tss = TaskState {
        reserved: 0,
        rsp: [0; 3],
        reserved_2: 0,
        ist: [
            image::vc_stack_top(),
            image::double_fault_stack_top(),
            image::exceptions_stack_top(),
            0,
            0,
            0,
            0,
        ],
        reserved_3: 0,
        reserved_4: 0,
        io_map: size_of::<TaskState>() as u16,
    };
    let idt = core::array::from_fn(|vector| {
        let ist = match vector as u8 {
            VC => IST_VC,
            DOUBLE_FAULT => IST_DOUBLE_FAULT,
            _ => IST_OTHERS,
        };
        Gate::new(exceptions::stub(vector as u8), ist)
    });
    let Ok(tss) = TSS_IN_USE.set(tss) else { return };
    let base = (&raw const *tss) as u64;
    let limit = size_of::<TaskState>() as u64 - 1;
    let descriptor = limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    let gdt = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, descriptor, base >> 32].map(AtomicU64::new);
    let (Ok(gdt), Ok(idt)) = (GDT.set(gdt), IDT.set(idt)) else { return };
    let gdt = Pointer { limit: size_of::<Gdt>() as u16 - 1, base: (&raw const *gdt) as u64 };
    let idt = Pointer { limit: size_of::<[Gate; VECTORS]>() as u16 - 1, base: (&raw const *idt) as u64 };
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
            tss = in(reg) TSS,
            scratch = out(reg) _,
        );
    }
}
