//! A virtual CPU: its VMCB, the registers that VMRUN leaves alone, and its side of the GHCB protocol.

use super::{
    cpu, cpus,
    memory::Pool,
    npt::Npt,
    stop::{internal, violation},
    vmcb::{PermissionMaps, Segment, Vmcb, control},
};
use core::arch::asm;
use snp_model::{Page, cpuid_page::C_BIT, ghcb::answer, launch::offset};

unsafe extern "C" {
    fn svm_run(vmcb: u64, registers: *mut [u64; 16], fpu: *mut VectorArea);
}

/// Vector registers: an FXSAVE image, then an XSAVE area in the standard format of which only AVX is used
/// (APM §11.5).
#[repr(C, align(64))]
struct VectorArea {
    fxsave: [u8; 512],
    xsave: [u8; 512 + 64 + 256],
}

/// Number of RAX among the general registers, and so on as instructions encode them.
pub mod register {
    /// RAX.
    pub const RAX: u8 = 0;
    /// RCX.
    pub const RCX: u8 = 1;
    /// RDX.
    pub const RDX: u8 = 2;
    /// RSP.
    pub const RSP: u8 = 4;
}

/// EFER.LME.
pub const LONG_MODE_ENABLE: u64 = 1 << 8;
/// EFER.LMA.
pub const LONG_MODE_ACTIVE: u64 = 1 << 10;
/// EFER.SVME, which must be set for VMRUN and which an SEV-ES guest cannot clear (APM §15.35.10).
pub const SVM_ENABLE: u64 = 1 << 12;
/// CR0.PE.
pub const PROTECTION: u64 = 1 << 0;
/// CR0.PG.
pub const PAGING: u64 = 1 << 31;

/// Arithmetic flags that PVALIDATE and RMPADJUST set by their result: OF, SF, ZF, AF, PF and CF.
const RESULT_FLAGS: u64 = 1 << 11 | 1 << 7 | 1 << 6 | 1 << 4 | 1 << 2 | 1;
const ZERO_FLAG: u64 = 1 << 6;

/// A virtual CPU.
pub struct Vcpu {
    /// Its number, which is its APIC id.
    pub number: usize,
    /// Its VMCB.
    pub vmcb: Vmcb,
    /// `SEV_STATUS` as the guest reads it.
    pub sev_status: u64,
    /// The GHCB MSR.
    pub ghcb_msr: u64,
    /// The registered GHCB.
    pub ghcb: Option<u64>,
    /// Time-stamp counter in the guest since the machine last looked.
    pub ticks: u64,
    /// The interrupt that the processor was offered at the last VMRUN.
    pub offered: Option<u8>,
    roots: [u64; 2],
    registers: [u64; 16],
    fpu: VectorArea,
}

/// Numbers and places of the general registers in a VMSA, but for those that the VMCB has.
fn vmsa_registers() -> impl Iterator<Item = (usize, usize)> {
    [
        (1, offset::RCX),
        (2, offset::RDX),
        (3, offset::RBX),
        (5, offset::RBP),
        (6, offset::RSI),
        (7, offset::RDI),
    ]
    .into_iter()
    .chain((8..16).map(|n| (n, offset::R8 + (n - 8) * 8)))
}

impl Vcpu {
    /// A vCPU without a state, for the CPU with this number.
    pub fn new(number: usize, maps: &PermissionMaps, npt: &Npt, pool: &mut Pool) -> Self {
        Self {
            number,
            vmcb: Vmcb::new(maps, pool),
            sev_status: 0,
            ghcb_msr: 0,
            ghcb: None,
            ticks: 0,
            offered: None,
            roots: [npt.root(false), npt.root(true)],
            registers: [0; 16],
            fpu: VectorArea { fxsave: [0; 512], xsave: [0; 832] },
        }
    }

    /// Takes the state of a VMSA. Runs on the vCPU's own CPU.
    pub fn load(&mut self, vmsa: &Page) {
        let quad = |at: usize| u64::from_le_bytes(core::array::from_fn(|byte| vmsa[at + byte]));
        self.vmcb.load(vmsa);
        // APM §15.34.10: SEV and SEV-ES, then the VMSA's SEV_FEATURES from bit 2 on.
        self.sev_status = 0b11 | quad(offset::SEV_FEATURES) << 2;
        self.ghcb_msr = answer::sev_information(C_BIT as u8);
        self.ghcb = None;
        self.fpu = VectorArea { fxsave: [0; 512], xsave: [0; 832] };
        self.fpu.fxsave[0..2].copy_from_slice(&vmsa[offset::X87_FCW..offset::X87_FCW + 2]);
        self.fpu.fxsave[24..28].copy_from_slice(&vmsa[offset::MXCSR..offset::MXCSR + 4]);
        for (number, at) in vmsa_registers() {
            self.registers[number] = quad(at);
        }
        let xcr0 = quad(offset::XCR0);
        if xcr0 & 1 == 0 || xcr0 & !cpu::xcr0_supported() != 0 {
            violation!(
                "VMRUN of vCPU {}: XCR0 {xcr0:#x} in its VMSA is no value of that register",
                self.number
            );
        }
        // SAFETY: CR4.OSXSAVE is set in boot.s, and XCR0 was checked. The save area holds the segments and
        // MSRs of a VMSA, and this program uses none of them.
        unsafe {
            cpu::write_xcr0(xcr0);
            asm!("vmload rax", in("rax") self.vmcb.address(), options(nostack, preserves_flags));
        }
    }

    /// Writes the state into its VMSA. Runs on the vCPU's own CPU.
    pub fn store(&self, vmsa: &mut Page) {
        self.save_task_register();
        self.vmcb.store(vmsa);
        for (number, at) in vmsa_registers() {
            vmsa[at..at + 8].copy_from_slice(&self.registers[number].to_le_bytes());
        }
        vmsa[offset::XCR0..offset::XCR0 + 8].copy_from_slice(&cpu::xcr0().to_le_bytes());
    }

    /// Runs the guest until its next exit.
    pub fn run(&mut self) {
        const FLUSH_ALL: u8 = 1;
        self.vmcb.set(control::NESTED_ROOT, self.roots[usize::from(self.has_paging())]);
        self.vmcb.set(control::CLEAN, 0u32);
        let flush = cpus::enter(self.number);
        self.vmcb.set(control::TLB, if flush { FLUSH_ALL } else { 0 });
        let before = cpu::timestamp();
        // SAFETY: the VMCB is complete, its nested tables show the guest nothing but its own memory, and the
        // host state save area was set up at start. The guest's general and vector registers are swapped by
        // `svm_run`.
        unsafe { svm_run(self.vmcb.address(), &raw mut self.registers, &raw mut self.fpu) };
        self.ticks += cpu::timestamp() - before;
        cpus::leave(self.number);
        self.vmcb.set(control::EVENT_INJECTION, 0u64);
    }

    /// A general register by its number.
    pub fn register(&self, number: u8) -> u64 {
        match number & 15 {
            register::RAX => self.vmcb.state(offset::RAX),
            register::RSP => self.vmcb.state(offset::RSP),
            other => self.registers[usize::from(other)],
        }
    }

    /// Sets a general register.
    pub fn set_register(&mut self, number: u8, value: u64) {
        match number & 15 {
            register::RAX => self.vmcb.set_state(offset::RAX, value),
            register::RSP => self.vmcb.set_state(offset::RSP, value),
            other => self.registers[usize::from(other)] = value,
        }
    }

    /// EDX:EAX, as WRMSR takes it.
    pub fn edx_eax(&self) -> u64 {
        self.register(register::RDX) << 32 | self.register(register::RAX) & 0xFFFF_FFFF
    }

    /// Sets EDX:EAX, as RDMSR does.
    pub fn set_edx_eax(&mut self, value: u64) {
        self.set_register(register::RAX, value & 0xFFFF_FFFF);
        self.set_register(register::RDX, value >> 32);
    }

    /// Whether CR0.PG is set.
    pub fn has_paging(&self) -> bool {
        self.vmcb.state::<u64>(offset::CR0) & PAGING != 0
    }

    /// Whether CR0.PE is set.
    pub fn is_protected(&self) -> bool {
        self.vmcb.state::<u64>(offset::CR0) & PROTECTION != 0
    }

    /// Whether long mode is active (64-bit or compatibility).
    pub fn is_long(&self) -> bool {
        self.vmcb.state::<u64>(offset::EFER) & LONG_MODE_ACTIVE != 0
    }

    /// Whether the code segment is a 64-bit one.
    pub fn runs_64_bit_code(&self) -> bool {
        self.is_long() && self.vmcb.segment(offset::CS).attributes & Segment::LONG != 0
    }

    /// Current privilege level.
    pub fn privilege(&self) -> u8 {
        self.vmcb.state(offset::CPL)
    }

    /// The linear address of the instruction at RIP.
    pub fn linear_rip(&self) -> u64 {
        let rip = self.vmcb.rip();
        if self.runs_64_bit_code() {
            rip
        } else {
            self.vmcb.segment(offset::CS).base.wrapping_add(rip) & 0xFFFF_FFFF
        }
    }

    /// Steps over an instruction that the model executed.
    pub fn skip(&mut self, bytes: u8) {
        let rip = self.vmcb.rip().wrapping_add(bytes.into());
        self.vmcb.set_state(offset::RIP, if self.runs_64_bit_code() { rip } else { rip & 0xFFFF_FFFF });
        // An instruction that completes ends the interrupt shadow.
        const SHADOW: usize = 0x068;
        self.vmcb.set(SHADOW, 0u64);
    }

    /// Ends PVALIDATE or RMPADJUST: EAX is the return code, flags follow it, and CF is the instruction's own.
    pub fn return_code(&mut self, code: u64, carry: bool) {
        self.set_register(register::RAX, code);
        let mut flags = self.vmcb.state::<u64>(offset::RFLAGS) & !RESULT_FLAGS;
        flags |= u64::from(carry) | if code == 0 { ZERO_FLAG } else { 0 };
        self.vmcb.set_state(offset::RFLAGS, flags);
    }

    /// Makes the next run begin with an exception other than `#VC` (whose error code TCG would drop).
    pub fn raise(&mut self, exception: Exception) {
        const VALID: u64 = 1 << 31;
        const HAS_ERROR: u64 = 1 << 11;
        const EXCEPTION: u64 = 3 << 8;
        let event = match exception {
            Exception::UndefinedOpcode => 6 | EXCEPTION | VALID,
            Exception::GeneralProtection => 13 | EXCEPTION | HAS_ERROR | VALID,
        };
        self.vmcb.set(control::EVENT_INJECTION, event);
    }

    /// Continues the delivery of the event that the exit interrupted.
    pub fn resume_event(&mut self) {
        const VALID: u64 = 1 << 31;
        let event: u64 = self.vmcb.get(control::EXIT_INTERRUPT_INFO);
        if event & VALID != 0 {
            self.vmcb.set(control::EVENT_INJECTION, event);
        }
    }

    /// Executes a write of CR0: what a trap after the write would show to a hypervisor (APM §15.35.10), and
    /// the choice of the nested root.
    pub fn write_cr0(&mut self, value: u64) -> Result<(), Exception> {
        const CACHE_DISABLE: u64 = 1 << 30;
        const NOT_WRITE_THROUGH: u64 = 1 << 29;
        const EXTENSION_TYPE: u64 = 1 << 4;
        const PAE: u64 = 1 << 5;
        let (pe, pg) = (value & PROTECTION != 0, value & PAGING != 0);
        let efer: u64 = self.vmcb.state(offset::EFER);
        let long = pg && efer & LONG_MODE_ENABLE != 0;
        let refused = pg && !pe
            || value & NOT_WRITE_THROUGH != 0 && value & CACHE_DISABLE == 0
            || value >> 32 != 0
            || long && self.vmcb.state::<u64>(offset::CR4) & PAE == 0
            || !pg && self.runs_64_bit_code();
        if refused {
            return Err(Exception::GeneralProtection);
        }
        if long {
            // CR3 has only 32 bits before long mode, so it cannot name the C-bit; the processor walks guest
            // tables as private memory in any case (APM §15.34.5).
            let cr3: u64 = self.vmcb.state(offset::CR3);
            self.vmcb.set_state(offset::CR3, cr3 | 1 << C_BIT);
        } else if pg {
            internal!("the guest turned on paging without long mode, which the model does not run");
        }
        self.vmcb.set_state(offset::CR0, value | EXTENSION_TYPE);
        let efer = if long { efer | LONG_MODE_ACTIVE } else { efer & !LONG_MODE_ACTIVE };
        self.vmcb.set_state(offset::EFER, efer);
        Ok(())
    }

    /// Saves TR into the VMCB, where a `#VC` looks for the stack table.
    pub fn save_task_register(&self) {
        // SAFETY: VMSAVE writes FS, GS, TR, LDTR and the system-call MSRs to the VMCB's page.
        unsafe { asm!("vmsave rax", in("rax") self.vmcb.address(), options(nostack, preserves_flags)) };
    }
}

/// Exceptions that the model raises in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// `#UD`.
    UndefinedOpcode,
    /// `#GP(0)`.
    GeneralProtection,
}
