//! The CPUs of the machine, each of which runs one vCPU: how they start, how one makes another look up, and how
//! translations that changed leave all of them.

use super::{image, lock::Lock, machine::Machine, memory::HostPage, trap};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering::SeqCst};
use snp_model::bundle::MAX_VCPUS;

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_end: u8;
}

/// What other CPUs must know of one. A number is the CPU's APIC id, which QEMU counts from 0.
struct Slot {
    /// It is between a look at [`EPOCH`] and the end of VMRUN.
    in_guest: AtomicBool,
    /// The value of [`EPOCH`] that its TLB is as new as.
    flushed: AtomicU64,
    /// Somebody wants it to look up from its guest or its sleep.
    attention: AtomicBool,
}

static SLOTS: [Slot; MAX_VCPUS as usize] = [const {
    Slot { in_guest: AtomicBool::new(false), flushed: AtomicU64::new(0), attention: AtomicBool::new(false) }
}; MAX_VCPUS as usize];

/// Counts changes of nested page tables after which old translations must not be used. From 1, so that every CPU
/// begins with a flush.
static EPOCH: AtomicU64 = AtomicU64::new(1);

// What boot.s gives the CPU that starts: its number, its page tables, its stack.
#[unsafe(no_mangle)]
static NEXT_CPU: AtomicU64 = AtomicU64::new(0);
#[unsafe(no_mangle)]
static NEXT_CPU_ROOT: AtomicU64 = AtomicU64::new(0);
#[unsafe(no_mangle)]
static NEXT_CPU_STACK: AtomicU64 = AtomicU64::new(0);

static MACHINE: AtomicPtr<Lock<Machine>> = AtomicPtr::new(core::ptr::null_mut());
static STARTED: AtomicU64 = AtomicU64::new(0);

/// Starts CPUs 1 to `count - 1`, one after the other; each goes on in [`Machine::run`].
pub fn start(count: u32, machine: &'static Lock<Machine>) {
    /// Two pages below 1 MiB that nothing uses yet: the code, and a copy of the top page table.
    const TRAMPOLINE: u64 = 0x8000;
    const ROOT: u64 = TRAMPOLINE + 0x1000;
    // SAFETY: low RAM, which shows to the guest only after this function.
    let [code, root] = [TRAMPOLINE, ROOT].map(|page| unsafe { HostPage::from_address(page) });
    let length = &raw const trampoline_end as usize - &raw const trampoline as usize;
    // SAFETY: boot.s put these bytes between the two labels.
    code.write_bytes(0, unsafe { core::slice::from_raw_parts(&raw const trampoline, length) });
    MACHINE.store(core::ptr::from_ref(machine).cast_mut(), SeqCst);
    for cpu in 1..u64::from(count) {
        let (tables, stack_top) = image::new_stack(cpu, TRAMPOLINE, &mut machine.lock().pool);
        let mut copy = [0; snp_model::PAGE_BYTES];
        tables.copy(&mut copy);
        root.write_bytes(0, &copy);
        NEXT_CPU.store(cpu, SeqCst);
        NEXT_CPU_ROOT.store(tables.address(), SeqCst);
        NEXT_CPU_STACK.store(stack_top, SeqCst);
        trap::start_cpu(cpu as u32, TRAMPOLINE);
        let mut tries = 0u64;
        while STARTED.load(SeqCst) != cpu {
            tries += 1;
            if tries > 1 << 32 {
                super::stop::internal!("CPU {cpu} did not start; start QEMU with -smp {count}");
            }
            spin_loop();
        }
    }
    image::forget_trampoline(TRAMPOLINE, &mut machine.lock().pool);
    code.clear();
    root.clear();
}

/// Where boot.s enters Rust on every CPU but the first.
#[unsafe(no_mangle)]
extern "C" fn model_cpu(cpu: u64) -> ! {
    trap::install_on_this_cpu();
    STARTED.store(cpu, SeqCst);
    // SAFETY: `start` stored a reference that lives for ever before it started this CPU.
    let machine = unsafe { &*MACHINE.load(SeqCst) };
    super::vcpus::run(machine, cpu as usize)
}

/// Asks a CPU to look up: it leaves its guest, or its sleep.
pub fn call(cpu: usize) {
    SLOTS[cpu].attention.store(true, SeqCst);
    trap::kick(cpu as u32);
}

/// Whether the CPU was asked to look up since it last did.
pub fn is_called(cpu: usize) -> bool {
    SLOTS[cpu].attention.load(SeqCst)
}

/// Looks up: what follows sees all that was prepared before [`call`].
pub fn look_up(cpu: usize) {
    SLOTS[cpu].attention.store(false, SeqCst);
}

/// Waits, without using the host's CPU, until this CPU is called or an interrupt arrives.
pub fn sleep(cpu: usize) {
    while !is_called(cpu) && !super::interrupts::have_arrived(cpu) {
        super::cpu::halt_until_interrupt();
    }
}

/// This CPU is about to enter its guest; whether it must flush its TLB on the way.
pub fn enter(cpu: usize) -> bool {
    let slot = &SLOTS[cpu];
    slot.in_guest.store(true, SeqCst);
    let epoch = EPOCH.load(SeqCst);
    slot.flushed.swap(epoch, SeqCst) != epoch
}

/// This CPU has left its guest.
pub fn leave(cpu: usize) {
    SLOTS[cpu].in_guest.store(false, SeqCst);
}

/// Returns when no CPU uses translations that are older than this call.
pub fn shoot_down(me: usize) {
    let epoch = EPOCH.fetch_add(1, SeqCst) + 1;
    let stale = |slot: &Slot| slot.in_guest.load(SeqCst) && slot.flushed.load(SeqCst) < epoch;
    let others = || SLOTS.iter().enumerate().filter(|(cpu, _)| *cpu != me);
    for (cpu, _) in others().filter(|(_, slot)| stale(slot)) {
        trap::kick(cpu as u32);
    }
    for (_, slot) in others() {
        while stale(slot) {
            spin_loop();
        }
    }
}
