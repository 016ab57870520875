//! The vCPUs: what each of them does, how the guest creates and ends them, how they sleep and wake.
//!
//! CPU `n` of the machine runs vCPU `n` and no other. All that vCPUs do outside the guest they do one at a time, behind
//! the lock of the [`Machine`].

use super::{
    cpu, cpus,
    lock::Lock,
    machine::Machine,
    memory::Pool,
    npt::Side,
    stop::violation,
    vcpu::{SVM_ENABLE, Vcpu},
};
use alloc::{boxed::Box, vec::Vec};
use snp_model::{
    PAGE_BYTES, Page,
    ghcb::{Malformed, creation::Request},
    launch::{SEV_FEATURES, offset},
    rmp::{Size, State},
};

/// What a vCPU does, as the others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    /// It has no VMSA yet, or none any more.
    Absent,
    /// It runs.
    Running,
    /// HLT.
    Halted,
}

/// What another vCPU wants of one.
enum Command {
    /// Start from this VMSA, which is a page of the guest if it has an address.
    Start(Box<Page>, Option<u64>),
    /// Stop.
    Stop,
}

/// What the machine knows of a vCPU.
struct Known {
    activity: Activity,
    command: Option<Command>,
    /// Its VMSA, if that is a page of the guest: the page is the processor's own while the vCPU exists.
    vmsa: Option<u64>,
    /// A VMSA that waits for an INIT.
    on_init: Option<u64>,
    /// Somebody woke it: it will not sleep, or sleeps no longer (KVM's `pv_unhalted`).
    woken: bool,
    /// RFLAGS.IF of a vCPU that sleeps.
    takes_interrupts: bool,
}

/// All vCPUs.
pub struct Vcpus(Vec<Known>);

impl Vcpus {
    /// `count` vCPUs, of which the first starts from `vmsa`.
    pub fn new(count: u32, vmsa: Box<Page>) -> Self {
        let mut all: Vec<Known> = (0..count)
            .map(|_| Known {
                activity: Activity::Absent,
                command: None,
                vmsa: None,
                on_init: None,
                woken: false,
                takes_interrupts: false,
            })
            .collect();
        if let Some(first) = all.first_mut() {
            first.command = Some(Command::Start(vmsa, None));
        }
        Self(all)
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.0.len() as u32
    }

    /// Whether the page of `gpa` is the VMSA of a vCPU that exists.
    pub fn use_as_vmsa(&self, gpa: u64) -> bool {
        self.0.iter().any(|known| known.vmsa == Some(gpa & !(PAGE_BYTES as u64 - 1)))
    }
}

/// The life of CPU `number`.
pub fn run(machine: &'static Lock<Machine>, number: usize) -> ! {
    let mut vcpu = {
        let mut machine = machine.lock();
        let machine = &mut *machine;
        enable_svm(&mut machine.pool);
        Vcpu::new(number, &machine.maps, &machine.npt, &mut machine.pool)
    };
    let mut after_exit = false;
    loop {
        let runs = {
            let mut machine = machine.lock();
            machine.collect_interrupts(number);
            if after_exit {
                machine.note_delivery(&mut vcpu);
            }
            machine.look_up(&mut vcpu);
            if after_exit && machine.is_running(number) {
                machine.exit(&mut vcpu);
            }
            if machine.is_running(number) {
                machine.offer_interrupt(&mut vcpu);
                machine.hostile_entry(&mut vcpu);
            }
            if machine.npt.take_stale() {
                cpus::shoot_down(number);
            }
            machine.is_running(number)
        };
        after_exit = runs;
        if runs {
            vcpu.run();
        } else {
            cpus::sleep(number);
        }
    }
}

/// APM §15.30.4: VMRUN saves the host's state to the page that VM_HSAVE_PA names.
fn enable_svm(pool: &mut Pool) {
    const VM_HSAVE_PA: u32 = 0xC001_0117;
    // SAFETY: boot.s found SVM and set EFER.SVME; the page belongs to the processor from now on.
    unsafe { cpu::write_msr(VM_HSAVE_PA, pool.take(1).address()) };
}

impl Machine {
    fn is_running(&self, number: usize) -> bool {
        self.vcpus.0[number].activity == Activity::Running
    }

    /// Does what other vCPUs asked for.
    fn look_up(&mut self, vcpu: &mut Vcpu) {
        cpus::look_up(vcpu.number);
        match self.vcpus.0[vcpu.number].command.take() {
            Some(Command::Start(vmsa, gpa)) => {
                self.release(vcpu);
                self.start(vcpu, &vmsa, gpa);
            }
            Some(Command::Stop) => self.release(vcpu),
            None => {}
        }
        let interrupt = self.interrupt_waits(vcpu);
        let known = &mut self.vcpus.0[vcpu.number];
        if known.activity == Activity::Halted && (interrupt || core::mem::take(&mut known.woken)) {
            known.activity = Activity::Running;
        }
    }

    /// The first VMRUN with a VMSA: what the processor checks of it (APM §15.36.12 and §15.5.1).
    fn start(&mut self, vcpu: &mut Vcpu, vmsa: &Page, gpa: Option<u64>) {
        let number = vcpu.number;
        let quad = |at: usize| u64::from_le_bytes(core::array::from_fn(|byte| vmsa[at + byte]));
        if let Some(gpa) = gpa {
            if self.vcpus.use_as_vmsa(gpa) {
                violation!("VMRUN of vCPU {number}: the VMSA at {gpa:#x} is in use by another vCPU");
            }
            if vmsa[offset::VMPL] != 0 {
                violation!(
                    "VMRUN of vCPU {number}: its VMSA is for VMPL {}, and nothing runs there",
                    vmsa[offset::VMPL]
                );
            }
            let features = quad(offset::SEV_FEATURES);
            if features != SEV_FEATURES {
                violation!(
                    "VMRUN of vCPU {number}: its VMSA has SEV_FEATURES {features:#x}, the launch {SEV_FEATURES:#x}"
                );
            }
            if quad(offset::EFER) & SVM_ENABLE == 0 {
                violation!("VMRUN of vCPU {number}: EFER.SVME is 0 in its VMSA");
            }
        }
        vcpu.load(vmsa);
        self.hostile.vcpu(vcpu);
        let known = &mut self.vcpus.0[number];
        known.vmsa = gpa;
        known.activity = Activity::Running;
        known.woken = false;
        if let Some(gpa) = gpa {
            // The page is the processor's while it is in use; any access of the guest's is a nested fault.
            self.npt.unmap(Side::Private, gpa, Size::Small, &mut self.pool);
        }
    }

    /// The vCPU stops; its state is in its VMSA, which is the guest's again.
    fn release(&mut self, vcpu: &mut Vcpu) {
        let known = &mut self.vcpus.0[vcpu.number];
        known.activity = Activity::Absent;
        if let Some(gpa) = known.vmsa.take() {
            if let Some(page) = self.private_page(gpa) {
                let mut vmsa = [0; PAGE_BYTES];
                page.copy(&mut vmsa);
                vcpu.store(&mut vmsa);
                page.write_bytes(0, &vmsa);
            }
            self.map(gpa, Size::Small);
        }
    }

    /// `AP_CREATION` (GHCB §4.1.9), with the answers of KVM's `sev_snp_ap_creation`.
    pub fn create_vcpu(&mut self, request: Request, features: Option<u64>) -> Result<(), Malformed> {
        let (apic_id, vmsa) = match request {
            Request::Create { apic_id, vmsa, .. } => (apic_id, Some(vmsa)),
            Request::Destroy { apic_id } => (apic_id, None),
        };
        let target = apic_id as usize;
        if apic_id >= self.vcpus.count() {
            return Err(Malformed::InvalidInput);
        }
        let Some(gpa) = vmsa else {
            self.command(target, Command::Stop);
            return Ok(());
        };
        if let Some(answer) = self.hostile_create(target, gpa) {
            return answer;
        }
        if features.ok_or(Malformed::MissingInput)? != SEV_FEATURES {
            return Err(Malformed::InvalidInput);
        }
        // KVM refuses a VMSA at the start of 2 MiB, where a processor's erratum could meet it.
        if gpa.is_multiple_of(Size::Large.bytes()) || !self.rmp.is_memory(gpa) {
            return Err(Malformed::InvalidInput);
        }
        if let Request::Create { on_init: true, .. } = request {
            self.vcpus.0[target].on_init = Some(gpa);
            return Ok(());
        }
        self.start_from(target, gpa);
        Ok(())
    }

    /// Has a vCPU start from the VMSA at `gpa`.
    fn start_from(&mut self, target: usize, gpa: u64) {
        let usable = self.rmp.is_vmsa(gpa) && matches!(self.rmp.lookup(gpa), Some((State::Validated, _)));
        let Some(page) = self.private_page(gpa).filter(|_| usable) else {
            violation!(
                "VMRUN of vCPU {target}: {gpa:#x} is not a VMSA page; RMPADJUST gives a page that attribute"
            );
        };
        let mut vmsa = Box::new([0; PAGE_BYTES]);
        page.copy(&mut vmsa);
        self.command(target, Command::Start(vmsa, Some(gpa)));
    }

    /// Has a vCPU start from a VMSA that is no page of the guest's.
    pub fn run_vmsa(&mut self, target: usize, vmsa: Box<Page>) {
        self.command(target, Command::Start(vmsa, None));
    }

    /// INIT: a vCPU that was created for it starts (`CREATE_ON_INIT`); others ignore it, as their state is not the
    /// hypervisor's to reset.
    pub fn init_vcpu(&mut self, target: usize) {
        if let Some(gpa) = self.vcpus.0[target].on_init.take() {
            self.start_from(target, gpa);
        }
    }

    fn command(&mut self, target: usize, command: Command) {
        self.vcpus.0[target].command = Some(command);
        cpus::call(target);
    }

    /// HLT: the vCPU sleeps until it is woken, unless that happened already.
    pub fn halt(&mut self, vcpu: &Vcpu) {
        let interrupt = self.interrupt_waits(vcpu);
        let known = &mut self.vcpus.0[vcpu.number];
        if interrupt || core::mem::take(&mut known.woken) {
            return;
        }
        known.activity = Activity::Halted;
        known.takes_interrupts = vcpu.takes_interrupts();
        let awake = |known: &Known| match known.activity {
            Activity::Running => true,
            Activity::Halted => known.command.is_some() || known.woken || known.takes_interrupts,
            Activity::Absent => known.command.is_some(),
        };
        if !self.vcpus.0.iter().any(awake) {
            violation!("every vCPU sleeps, and nothing is left that could wake one");
        }
    }

    /// KVM's hypercall `KVM_HC_KICK_CPU` (Linux `Documentation/virt/kvm/x86/hypercalls.rst`): wakes the vCPU with this
    /// APIC id whether or not it takes interrupts. A wake-up that comes before the HLT ends that one.
    pub fn wake(&mut self, apic_id: u64) {
        if self.hostile.leaves_asleep() {
            return;
        }
        let Some(known) = usize::try_from(apic_id).ok().and_then(|id| self.vcpus.0.get_mut(id)) else {
            return;
        };
        known.woken = true;
        if known.activity == Activity::Halted {
            cpus::call(apic_id as usize);
        }
    }
}
