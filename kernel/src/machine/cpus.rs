//! The CPUs beside the first: how they start, work, halt and are woken.
//!
//! SNP has no INIT and no SIPI: the first CPU builds a VMSA for each, marks its page as one with RMPADJUST, and asks the host to
//! run it (GHCB AP creation). A CPU without work executes HLT, which leaves to the host without a #VC (APM vol. 2, §15.35.4),
//! with interrupts off; KVM lets it go on at the hypercall `KVM_HC_KICK_CPU`. So nobody needs interrupts, and none is ever
//! expected (REQUIREMENTS A2).

use super::descriptors::{add_task, gdt, idt, this_cpu};
use super::instructions::{self, MSR_EFER, rdmsr};
use super::processor::PAT;
use super::shared::SharedRun;
use super::{clock, ghcb, image, paging, stack, terminate};
use crate::CPUID;
use core::ops::Range;
use kernel::cpus::pool::{self, Pool};
use kernel::cpus::stacks::{AREA, Stacks};
use kernel::fatal::{Fatal, OrFatal};
use kernel::once::Once;
use kernel::snp::status::SevStatus;
use kernel::snp::vmsa::{self, Start};
use wire::termination::Termination;

/// How long a CPU may need to start, in milliseconds of the untrusted clock.
const PATIENCE_MS: u64 = 60_000;

static POOL: Pool = Pool::new();
/// Where the stacks of the others lie.
static AREAS: Once<Range<u64>> = Once::new();

/// The stacks of a CPU.
pub fn stacks(number: usize) -> Stacks {
    match (number.checked_sub(1), AREAS.get()) {
        (Some(other), Some(areas)) => Stacks::in_area(areas.start + other as u64 * AREA),
        _ => image::stacks(),
    }
}

/// Starts the others, whose stacks lie in `areas`. Takes a GHCB for each from `shared`.
pub fn start(count: u32, areas: Range<u64>, shared: &mut SharedRun, status: SevStatus) -> OrFatal<()> {
    let refused = Fatal::new(Termination::CpuStart, count.into());
    AREAS.set(areas).map_err(|_| refused)?;
    let create = |number| {
        let refused = Fatal::new(Termination::CpuStart, number as u64);
        ghcb::prepare(number, shared)?;
        let features = status.features();
        let vmsa = prepare(number, features)?;
        ghcb::with(|ghcb| ghcb.create_cpu(apic_id(number), vmsa, features)).map_err(|_| refused)
    };
    let begin = clock::now_ms();
    let patience = || {
        core::hint::spin_loop();
        clock::now_ms().saturating_sub(begin) < PATIENCE_MS
    };
    POOL.start(count as usize, create, patience)
}

/// Builds the VMSA of a CPU: its address.
fn prepare(number: usize, features: u64) -> OrFatal<u64> {
    let failed = Fatal::new(Termination::CpuStart, number as u64);
    let stacks = stacks(number);
    stacks.guards().into_iter().try_for_each(paging::unmap)?;
    // SAFETY: EFER exists and is not intercepted; the entry wrote it.
    let efer = unsafe { rdmsr(MSR_EFER) };
    let page = Start {
        control: instructions::control_registers(),
        efer,
        xcr0: CPUID.get().map_or(0, |cpuid| cpuid.xcr0()).max(1),
        features,
        pat: PAT,
        fs: (&raw const stack::THREAD) as u64,
        gdt: gdt(),
        idt: idt(),
        task: add_task(number, &stacks)?,
        rip: enter as *const () as u64,
        // As after a call, which pushed a return address.
        rsp: stacks.main.end - 8,
        rdi: number as u64,
    }
    .page();
    let address = image::vmsa(number);
    // SAFETY: the linker set the page aside for this CPU; no Rust value lies in it, it was validated at launch as a page of
    // 4 KiB, and it is not used after it became a VMSA: its mapping goes.
    unsafe {
        (address as *mut [u8; vmsa::BYTES]).write(page);
        if instructions::rmpadjust_vmsa(address) != 0 {
            return Err(failed);
        }
    }
    paging::unmap(address)?;
    Ok(address)
}

/// QEMU numbers the vCPUs of one socket with one thread a core from 0 on, and gives them that APIC id.
const fn apic_id(number: usize) -> u32 {
    number as u32
}

/// Entered in long mode on the CPU's own stack, as [`prepare`] wrote.
extern "C" fn enter(number: usize) -> ! {
    stack::reset_registers();
    // The GHCB first: without one the CPU could not say why it ends the VM.
    let begun = ghcb::begin().and_then(|()| POOL.arrive(number));
    if let Err(fatal) = begun {
        terminate::terminate(fatal);
    }
    POOL.serve(number, &Hardware)
}

struct Hardware;

impl pool::Processor for Hardware {
    fn pause(&self) {
        // Some 400 cycles: shorter than what a task takes, longer than looking for one.
        (0..8).for_each(|_| core::hint::spin_loop());
    }

    fn halt(&self) {
        instructions::halt_once();
    }

    fn wake(&self, cpu: usize) {
        // A host that does not wake it gets fewer CPUs to compute, and no other result.
        let _ = ghcb::with(|ghcb| ghcb.wake_cpu(apic_id(cpu)));
    }

    fn tidy(&self) {
        stack::wipe_unused();
        instructions::flush_translations();
    }
}

/// All CPUs, for the engine and for the boot.
#[derive(Clone, Copy)]
pub struct Cpus;

impl inference::Workers for Cpus {
    fn count(&self) -> usize {
        POOL.count()
    }

    fn run(&self, task: &(dyn Fn(usize) + Sync)) {
        POOL.run(task, &Hardware);
    }
}

/// Wipes what is left of a session on the stacks and in the registers of all CPUs, and has all see the page tables as
/// they are now.
pub fn tidy() {
    pool::Processor::tidy(&Hardware);
    POOL.tidy(&Hardware);
}

/// Whether an access to `address` by this CPU ran out of one of its stacks.
pub fn is_guard(address: u64) -> bool {
    stacks(this_cpu()).is_guard(address)
}
