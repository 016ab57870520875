//! What leaves the guest, and where it goes: to the guest's own `#VC` handler, or to the hypervisor behind
//! VMGEXIT.
//!
//! Under SEV-ES a hypervisor sees only automatic exits (APM §15.35.4, table 15-33). The model also gets the
//! exits that hardware would never have made, because TCG knows nothing of SEV; those it turns into what the
//! processor would have done.

use super::{
    machine::Machine,
    npt::Side,
    stop::{internal, violation},
    vcpu::{Exception, Vcpu},
    vmcb::{control, exit},
};
use snp_model::{
    counts::Kind,
    cpuid_page::C_BIT,
    decode::{Decoded, Instruction, MAX_BYTES, decode},
    launch::offset,
    rmp::{Size, State},
};

impl Machine {
    /// What a vCPU left its guest for.
    pub fn exit(&mut self, vcpu: &mut Vcpu) {
        let code: u64 = vcpu.vmcb.get(control::EXIT_CODE);
        self.counts.guest_ticks += core::mem::take(&mut vcpu.ticks);
        if let Some(kind) = counted(code) {
            self.counts.add(kind);
        }
        if self.hostile_exit(vcpu, code) {
            return;
        }
        match code {
            exit::NPF => self.nested_page_fault(vcpu),
            exit::VMMCALL => match self.instruction(vcpu) {
                Decoded { instruction: Instruction::Vmgexit, bytes } => {
                    vcpu.skip(bytes);
                    self.vmgexit(vcpu);
                }
                _ => self.deliver_vc(vcpu, code),
            },
            exit::MSR => self.msr(vcpu),
            exit::UNDEFINED => self.undefined_opcode(vcpu),
            exit::CPUID
            | exit::IOIO
            | exit::RDPMC
            | exit::INVD
            | exit::WBINVD
            | exit::MONITOR
            | exit::MWAIT
            | exit::DR7_READ
            | exit::DR7_WRITE
            | exit::INVLPGA
            | exit::VMRUN..=exit::SKINIT => self.deliver_vc(vcpu, code),
            // An automatic exit: RIP stands behind the instruction, and no handler of the guest runs.
            exit::HLT => {
                let bytes = self.instruction(vcpu).bytes;
                vcpu.skip(bytes);
                self.halt(vcpu);
            }
            exit::CR0_WRITE => self.cr0_write(vcpu),
            // They run when they are met again.
            exit::CR3_WRITE | exit::CR4_WRITE | exit::INVLPG => self.flushed(vcpu),
            exit::INTERRUPT => vcpu.resume_event(),
            exit::SHUTDOWN => violation!("shutdown (triple fault) at {:#x}", vcpu.vmcb.rip()),
            exit::INVALID => internal!("VMRUN refused the guest's state at {:#x}", vcpu.vmcb.rip()),
            _ => internal!("exit {code:#x} at {:#x} has no handler", vcpu.vmcb.rip()),
        }
    }

    /// The instruction at RIP.
    pub fn instruction(&self, vcpu: &Vcpu) -> Decoded {
        let mut bytes = [0; MAX_BYTES];
        let (length, _) = self.read_some(vcpu, vcpu.linear_rip(), &mut bytes);
        decode(&bytes[..length], vcpu.runs_64_bit_code())
    }

    fn cr0_write(&mut self, vcpu: &mut Vcpu) {
        const TASK_SWITCHED: u64 = 1 << 3;
        let old: u64 = vcpu.vmcb.state(offset::CR0);
        let decoded = self.instruction(vcpu);
        let new = match decoded.instruction {
            Instruction::MoveToCr0(register) if vcpu.runs_64_bit_code() => vcpu.register(register),
            Instruction::MoveToCr0(register) => vcpu.register(register) & 0xFFFF_FFFF,
            // LMSW writes bits 3:0 and cannot clear PE (APM volume 3).
            Instruction::LoadMachineStatus(register) => old & !0xE | vcpu.register(register) & 0xF,
            Instruction::ClearTaskSwitched => old & !TASK_SWITCHED,
            _ => internal!("the model cannot decode the write of CR0 at {:#x}", vcpu.vmcb.rip()),
        };
        match vcpu.write_cr0(new) {
            Ok(()) => vcpu.skip(decoded.bytes),
            Err(exception) => vcpu.raise(exception),
        }
    }

    /// An access that the nested tables do not allow (APM §15.36.10, table 15-39).
    fn nested_page_fault(&mut self, vcpu: &mut Vcpu) {
        let access = Access::of(vcpu);
        let Access { gpa, private, fetch, walk, .. } = access;
        let rip = vcpu.vmcb.rip();
        let Some((state, page)) = self.rmp.lookup(gpa) else {
            if fetch || walk || private && vcpu.has_paging() {
                violation!("{access} at {gpa:#x}, where there is no memory (RIP {rip:#x})");
            }
            // Device memory: hypervisors set a reserved bit there, so that the guest gets #VC (APM §15.35.4).
            return self.deliver_vc(vcpu, exit::NPF);
        };
        if walk && !private {
            return self.walk_without_c_bit(vcpu, gpa);
        }
        match (private, state) {
            (true, State::Unvalidated) => {
                // APM §15.36.10: CR2 holds the guest-virtual address. TCG does not say which one it was, so
                // it is looked for where it most likely is: at RIP, or mapped one to one.
                let virtual_address = if fetch { vcpu.linear_rip() } else { gpa };
                vcpu.vmcb.set_state(offset::CR2, virtual_address);
                self.deliver_vc(vcpu, exit::PAGE_NOT_VALIDATED);
            }
            (true, State::Validated) if self.vcpus.use_as_vmsa(gpa) => {
                violation!("{access} at {gpa:#x}, the VMSA of a vCPU that exists (RIP {rip:#x})")
            }
            (true, State::Validated) => self.map_again(vcpu, Side::Private, gpa, page.size),
            (false, State::Hypervisor) if !fetch => {
                self.check_flush(vcpu, gpa, false);
                self.map_again(vcpu, Side::Shared, gpa, page.size);
            }
            (true, State::Hypervisor) => {
                violation!("{access} at {gpa:#x}, a page that the hypervisor owns (RIP {rip:#x})")
            }
            (false, _) => violation!("{access} at {gpa:#x}, which is {state:?} (RIP {rip:#x})"),
        }
    }

    /// The state allows the access, so the tables only lagged behind, or another vCPU has changed them since.
    fn map_again(&mut self, vcpu: &mut Vcpu, side: Side, gpa: u64, size: Size) {
        if !self.npt.maps(side, gpa) {
            self.map(gpa & !(size.bytes() - 1), size);
        }
        vcpu.resume_event();
    }

    /// The processor walks guest page tables as private memory whatever the C-bit says (APM §15.36.10), and TCG takes the
    /// address as it is. For the root, which 32-bit code cannot name otherwise, the model adds the bit. A lower table
    /// without it shows, to a lenient model, through the shared side as well; a strict one wants the bit, because a guest
    /// that forgets it there has mistaken a table for shared memory.
    fn walk_without_c_bit(&mut self, vcpu: &mut Vcpu, gpa: u64) {
        let cr3: u64 = vcpu.vmcb.state(offset::CR3);
        if gpa & !0xFFF == cr3 & !0xFFF {
            vcpu.vmcb.set_state(offset::CR3, cr3 | 1 << C_BIT);
            return vcpu.resume_event();
        }
        let rip = vcpu.vmcb.rip();
        let Some(page) = self.private_page(gpa) else {
            violation!("the page table at {gpa:#x} is not in private, validated memory (RIP {rip:#x})");
        };
        if self.strict.is_on() {
            violation!(
                "the page-table entry that leads to the table at {gpa:#x} has no C-bit (RIP {rip:#x})"
            );
        }
        self.npt.map(Side::Shared, gpa & !0xFFF, Size::Small, page, &mut self.pool);
        vcpu.resume_event();
    }

    /// Raises `#GP(0)`.
    pub fn refuse(&self, vcpu: &mut Vcpu) {
        vcpu.raise(Exception::GeneralProtection);
    }
}

/// The kind of an exit, unless it depends on more than the code.
const fn counted(code: u64) -> Option<Kind> {
    match code {
        exit::NPF => Some(Kind::NestedFault),
        exit::HLT => Some(Kind::Halt),
        exit::INTERRUPT => Some(Kind::Kick),
        exit::CR0_WRITE | exit::MSR => Some(Kind::Other),
        _ => None,
    }
}

/// What an NPF says about the access (APM §15.25.6).
struct Access {
    gpa: u64,
    private: bool,
    write: bool,
    fetch: bool,
    walk: bool,
}

impl Access {
    fn of(vcpu: &Vcpu) -> Self {
        const WRITE: u64 = 1 << 1;
        const FETCH: u64 = 1 << 4;
        const WALK: u64 = 1 << 33;
        let info: u64 = vcpu.vmcb.get(control::EXIT_INFO_1);
        let address: u64 = vcpu.vmcb.get(control::EXIT_INFO_2);
        Self {
            gpa: address & !(1 << C_BIT),
            private: address >> C_BIT & 1 == 1 || !vcpu.has_paging(),
            write: info & WRITE != 0,
            fetch: info & FETCH != 0 && info & WALK == 0,
            walk: info & WALK != 0,
        }
    }
}

impl core::fmt::Display for Access {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(if self.private { "private " } else { "shared " })?;
        f.write_str(match self {
            Self { walk: true, .. } => "page-table access",
            Self { fetch: true, .. } => "instruction fetch",
            Self { write: true, .. } => "write",
            _ => "read",
        })
    }
}
