//! Events through the GHCB page (GHCB §4.1). The page is shared, so each field is read once, and what is not
//! marked valid is not there.

use super::{
    cpu, devices,
    ghcb_msr::terminate,
    machine::{BadChange, Machine},
    memory::HostPage,
    serial::log,
    stop::violation,
    vcpu::Vcpu,
};
use snp_model::{
    PAGE_BYTES, apic,
    counts::Kind,
    extended_request::{Extended, exit_info_2},
    ghcb::{
        HYPERVISOR_FEATURES, MALFORMED, Malformed, PortAccess, RAISE_EXCEPTION, Scratch, VERSION,
        ValidBitmap, creation, event, hypercall, offset, scratch,
    },
    psc,
};

/// A request, as it was when the guest left.
pub struct Request {
    /// The GHCB.
    pub page: HostPage,
    /// Its guest-physical address.
    pub gpa: u64,
    valid: ValidBitmap,
    /// `SW_EXITINFO1`.
    pub info_1: u64,
    /// `SW_EXITINFO2`.
    pub info_2: u64,
}

/// What comes back: `SW_EXITINFO1`, `SW_EXITINFO2` and registers.
#[derive(Default)]
pub struct Reply {
    info_1: u64,
    info_2: u64,
    registers: [Option<(usize, u64)>; 4],
}

impl Reply {
    fn with_info_2(info_2: u64) -> Self {
        Self { info_2, ..Self::default() }
    }

    /// A reply that is these fields.
    pub fn with_registers<const N: usize>(registers: [(usize, u64); N]) -> Self {
        let mut reply = Self::default();
        for (slot, register) in reply.registers.iter_mut().zip(registers) {
            *slot = Some(register);
        }
        reply
    }

    /// `#GP(0)`, as an event for injection (APM §15.20).
    fn general_protection() -> Self {
        Self { info_1: RAISE_EXCEPTION, info_2: 13 | 3 << 8 | 1 << 11 | 1 << 31, ..Self::default() }
    }
}

impl From<Malformed> for Reply {
    fn from(why: Malformed) -> Self {
        Self { info_1: MALFORMED, info_2: why as u64, ..Self::default() }
    }
}

impl Request {
    /// A register, which must be marked valid.
    fn register(&self, field: usize) -> Result<u64, Malformed> {
        self.valid.need(&[field])?;
        Ok(self.page.read(field))
    }

    /// Writes the reply; nothing but what it holds is marked valid.
    fn reply(&self, reply: &Reply) {
        let mut valid = ValidBitmap::default();
        let info = [(offset::EXIT_INFO_1, reply.info_1), (offset::EXIT_INFO_2, reply.info_2)];
        for (field, value) in info.into_iter().chain(reply.registers.into_iter().flatten()) {
            self.page.write(field, value);
            valid.mark(field);
        }
        self.page.write(offset::VALID_BITMAP, valid.0[0]);
        self.page.write(offset::VALID_BITMAP + 8, valid.0[1]);
    }
}

impl Machine {
    /// Serves the request in the GHCB at `gpa`.
    pub fn ghcb_page(&mut self, vcpu: &mut Vcpu, gpa: u64) {
        // GHCB §2.5.2: an SNP guest registers its GHCB, and the hypervisor refuses any other.
        if vcpu.ghcb != Some(gpa) {
            violation!("VMGEXIT with the GHCB at {gpa:#x}, which is not the registered one");
        }
        let Some(page) = self.shared_page(gpa) else {
            violation!("VMGEXIT with the GHCB at {gpa:#x}, which is not a shared page");
        };
        let request = Request {
            page,
            gpa,
            valid: ValidBitmap([page.read(offset::VALID_BITMAP), page.read(offset::VALID_BITMAP + 8)]),
            info_1: page.read(offset::EXIT_INFO_1),
            info_2: page.read(offset::EXIT_INFO_2),
        };
        let reply = self.hostile_serve(&request).unwrap_or_else(|| {
            let reply = self.serve(vcpu, &request);
            if let Err(why) = reply {
                self.strict.check_refusal(page.read(offset::EXIT_CODE), why);
            }
            reply
        });
        request.reply(&reply.unwrap_or_else(Reply::from));
        self.hostile_replied(&request);
    }

    fn serve(&mut self, vcpu: &Vcpu, request: &Request) -> Result<Reply, Malformed> {
        if request.page.read::<u32>(offset::USAGE) != 0 {
            return Err(Malformed::Usage);
        }
        if !(1..=VERSION).contains(&request.page.read(offset::VERSION)) {
            return Err(Malformed::InvalidInput);
        }
        request.valid.need(&[offset::EXIT_CODE, offset::EXIT_INFO_1, offset::EXIT_INFO_2])?;
        let code: u64 = request.page.read(offset::EXIT_CODE);
        self.strict.check_fields(code, request.valid);
        self.counts.add(Kind::of_event(code));
        match code {
            event::IOIO => self.port(request),
            event::MSR => self.hypervisor_msr(vcpu, request),
            event::CPUID => self.hypervisor_cpuid(request),
            event::MMIO_READ | event::MMIO_WRITE => self.mmio(request, code == event::MMIO_WRITE),
            event::PAGE_STATE_CHANGE => self.page_state_changes(vcpu, request),
            event::GUEST_REQUEST => self.guest_request(request).map(Reply::with_info_2),
            event::EXTENDED_GUEST_REQUEST => self.extended_guest_request(request),
            event::HYPERVISOR_FEATURES => Ok(Reply::with_info_2(HYPERVISOR_FEATURES)),
            event::HLT => {
                self.halt(vcpu);
                Ok(Reply::default())
            }
            event::VMMCALL => self.hypercall(request),
            event::RDTSC | event::RDTSCP => Ok(timestamp(code == event::RDTSCP)),
            // Caches are coherent in QEMU, and nobody watches the monitored line: these may do nothing.
            event::INVD | event::WBINVD | event::MONITOR | event::MWAIT => Ok(Reply::default()),
            event::WRITE_DR7 => request.register(offset::RAX).map(|_| Reply::default()),
            event::RDPMC => Ok(Reply::general_protection()),
            event::AP_CREATION => {
                let wanted = creation::Request::parse(request.info_1, request.info_2)?;
                self.create_vcpu(wanted, request.register(offset::RAX).ok())?;
                Ok(Reply::default())
            }
            // The AP jump table is for guests without SNP (GHCB §2.7).
            event::AP_JUMP_TABLE => Err(Malformed::InvalidInput),
            event::AP_RESET_HOLD => {
                violation!("AP reset hold, but the model starts vCPUs by AP creation only")
            }
            event::TERMINATE => terminate(request.info_1 as u8 & 0xF, request.info_2 as u8),
            event::UNSUPPORTED => {
                violation!("the guest met #VC {:#x}, which it does not support", request.info_1)
            }
            _ => {
                log!("unknown GHCB event {code:#x}: refused");
                Err(Malformed::InvalidEvent)
            }
        }
    }

    fn hypervisor_msr(&mut self, vcpu: &Vcpu, request: &Request) -> Result<Reply, Malformed> {
        let msr = request.register(offset::RCX)? as u32;
        if request.info_1 == 0 {
            let value = match msr {
                _ if is_apic(msr) => self.read_apic(vcpu, msr).ok(),
                _ => self.msrs.read(msr),
            };
            return Ok(match value {
                Some(value) => {
                    Reply::with_registers([(offset::RAX, value & 0xFFFF_FFFF), (offset::RDX, value >> 32)])
                }
                None => Reply::general_protection(),
            });
        }
        let value = request.register(offset::RDX)? << 32 | request.register(offset::RAX)? & 0xFFFF_FFFF;
        let done = match msr {
            _ if is_apic(msr) => self.write_apic(vcpu, msr, value).is_ok(),
            _ => self.msrs.write(msr, value),
        };
        Ok(if done { Reply::default() } else { Reply::general_protection() })
    }

    fn hypervisor_cpuid(&self, request: &Request) -> Result<Reply, Malformed> {
        const EXTENDED_STATE: u32 = 0xD;
        let leaf = request.register(offset::RAX)? as u32;
        let subleaf = request.register(offset::RCX)? as u32;
        if leaf == EXTENDED_STATE {
            request.register(offset::XCR0)?;
        }
        let [a, b, c, d] = self.cpuid.lookup(leaf, subleaf).unwrap_or_default().map(u64::from);
        Ok(Reply::with_registers([(offset::RAX, a), (offset::RBX, b), (offset::RCX, c), (offset::RDX, d)]))
    }

    /// VMMCALL by GHCB: KVM takes RAX and CPL for required (`sev_es_validate_vmgexit`), RBX, RCX, RDX and RSI as arguments.
    fn hypercall(&mut self, request: &Request) -> Result<Reply, Malformed> {
        let number = request.register(offset::RAX)?;
        request.valid.need(&[offset::CPL & !7])?;
        if request.page.read::<u8>(offset::CPL) != 0 {
            return Ok(Reply::with_registers([(offset::RAX, hypercall::NOT_PERMITTED)]));
        }
        let result = match number {
            hypercall::KICK_CPU => {
                self.wake(request.register(offset::RCX)?);
                0
            }
            _ => hypercall::UNKNOWN,
        };
        Ok(Reply::with_registers([(offset::RAX, result)]))
    }

    fn port(&mut self, request: &Request) -> Result<Reply, Malformed> {
        let access = PortAccess::parse(request.info_1)?;
        if access.string {
            return self.port_string(request, access);
        }
        if access.read {
            let value = self.hostile.port_read(access, devices::port_read(access));
            return Ok(Reply::with_registers([(offset::RAX, value.into())]));
        }
        let value = request.register(offset::RAX)? as u32;
        self.port_write(request, access, value);
        Ok(Reply::default())
    }

    /// INS and OUTS (KVM's `sev_es_string_io`): `SW_EXITINFO2` elements, one after the other in the scratch area.
    fn port_string(&mut self, request: &Request, access: PortAccess) -> Result<Reply, Malformed> {
        let bytes = usize::from(access.bytes);
        let count = usize::try_from(request.info_2).map_err(|_| Malformed::Scratch)?;
        let (page, start) = self.scratch(request, count.checked_mul(bytes).ok_or(Malformed::Scratch)?)?;
        for at in (start..).step_by(bytes).take(count) {
            let mut data = [0; 4];
            if access.read {
                let value = self.hostile.port_read(access, devices::port_read(access)).to_le_bytes();
                page.write_bytes(at, &value[..bytes]);
            } else {
                page.read_bytes(at, &mut data[..bytes]);
                self.port_write(request, access, u32::from_le_bytes(data));
            }
        }
        Ok(Reply::default())
    }

    fn port_write(&mut self, request: &Request, access: PortAccess, value: u32) {
        devices::port_write(access, value);
        if access.port == devices::EVENTS {
            self.count_event(value as u8);
        }
        self.hostile_port_write(access, value, request.gpa);
    }

    fn mmio(&mut self, request: &Request, write: bool) -> Result<Reply, Malformed> {
        let (gpa, length) = (request.info_1, request.info_2);
        let bytes = match length {
            1 | 2 | 4 | 8 => length as usize,
            _ => return Err(Malformed::InvalidInput),
        };
        if self.rmp.is_memory(gpa) {
            violation!("MMIO event for {gpa:#x}, which is the guest's own memory");
        }
        let (page, at) = self.scratch(request, bytes)?;
        let mut data = [0; 8];
        if write {
            page.read_bytes(at, &mut data[..bytes]);
            self.hostile_mmio_write(gpa, bytes, u64::from_le_bytes(data));
        } else {
            let value = self.hostile.mmio_read(gpa, devices::mmio_read(gpa, bytes)).to_le_bytes();
            page.write_bytes(at, &value[..bytes]);
        }
        Ok(Reply::default())
    }

    /// The scratch area of a request: a page and an offset in it.
    fn scratch(&self, request: &Request, bytes: usize) -> Result<(HostPage, usize), Malformed> {
        let gpa = request.register(offset::SCRATCH)?;
        match scratch(gpa, request.gpa, bytes)? {
            Scratch::Inside(at) => Ok((request.page, at)),
            Scratch::Outside(gpa) => {
                let page = self.shared_page(gpa).ok_or(Malformed::Scratch)?;
                Ok((page, gpa as usize % PAGE_BYTES))
            }
        }
    }

    /// GHCB §4.1.6. The list is in shared memory: each word is read once, and only progress is written back.
    fn page_state_changes(&mut self, vcpu: &Vcpu, request: &Request) -> Result<Reply, Malformed> {
        const HEADER_BYTES: usize = 8;
        const INVALID_HEADER: u64 = 1 << 32 | 1;
        const INVALID_ENTRY: u64 = 1 << 32 | 2;
        let (page, at) = self.scratch(request, HEADER_BYTES)?;
        let Some(header) = psc::Header::parse(page.read(at)) else {
            return Ok(Reply::with_info_2(INVALID_HEADER));
        };
        let list_bytes = HEADER_BYTES * (usize::from(header.end) + 2);
        self.scratch(request, list_bytes)?;
        for index in header.current..=header.end {
            let slot = at + HEADER_BYTES * (usize::from(index) + 1);
            let word: u64 = page.read(slot);
            let changed = psc::Entry::parse(word).ok_or(BadChange).and_then(|entry| {
                self.change_page_state(entry.change)?;
                self.watch_for_flush(vcpu, entry.change);
                Ok(entry.change.size)
            });
            let Ok(size) = changed else { return Ok(Reply::with_info_2(INVALID_ENTRY)) };
            page.write(slot, psc::Entry::done(word, size));
            page.write(at, index + 1);
        }
        Ok(Reply::default())
    }

    /// GHCB §4.1.7: `SW_EXITINFO1` and `SW_EXITINFO2` name two shared pages, of the message and of its
    /// response. The result is `SW_EXITINFO2` of the reply.
    fn guest_request(&mut self, request: &Request) -> Result<u64, Malformed> {
        let (from, to) = self.message_pages(request)?;
        let (mut message, mut response) = ([0; PAGE_BYTES], [0; PAGE_BYTES]);
        from.copy(&mut message);
        if let Some(info_2) = self.hostile.withheld(&message) {
            return Ok(info_2);
        }
        let result = self.amd_sp.guest_request(&message, &mut response);
        let result = self.hostile.message(&mut response, result);
        match result {
            Ok(()) => to.write_bytes(0, &response),
            Err(status) => log!("the AMD-SP refused a guest message: {status}"),
        }
        Ok(exit_info_2(result))
    }

    fn message_pages(&self, request: &Request) -> Result<(HostPage, HostPage), Malformed> {
        let (from, to) = (request.info_1, request.info_2);
        if !(from | to).is_multiple_of(PAGE_BYTES as u64) || from == to {
            return Err(Malformed::InvalidInput);
        }
        match (self.shared_page(from), self.shared_page(to)) {
            (Some(from), Some(to)) => Ok((from, to)),
            _ => violation!("guest request with pages {from:#x} and {to:#x} that are not both shared"),
        }
    }

    /// GHCB §4.1.8: the same, and certificates into RBX pages at RAX.
    fn extended_guest_request(&mut self, request: &Request) -> Result<Reply, Malformed> {
        let start = request.register(offset::RAX)?;
        let pages = request.register(offset::RBX)?;
        if !start.is_multiple_of(PAGE_BYTES as u64) {
            return Err(Malformed::InvalidInput);
        }
        let (from, _) = self.message_pages(request)?;
        let mut message = [0; PAGE_BYTES];
        from.copy(&mut message);
        match Extended::decide(&message, pages, self.certificates) {
            Extended::TooFewPages { needed } => {
                let mut reply = Reply::with_registers([(offset::RBX, needed)]);
                reply.info_2 = Extended::TOO_FEW_PAGES;
                Ok(reply)
            }
            Extended::Forward { data } => {
                let info_2 = self.guest_request(request)?;
                for (chunk, gpa) in data.chunks(PAGE_BYTES).zip((start..).step_by(PAGE_BYTES)) {
                    let Some(page) = self.shared_page(gpa) else {
                        violation!("extended guest request with the data page {gpa:#x}, which is not shared");
                    };
                    page.write_bytes(0, chunk);
                }
                Ok(Reply::with_info_2(info_2))
            }
        }
    }
}

fn is_apic(msr: u32) -> bool {
    msr == apic::BASE || apic::REGISTERS.contains(&msr)
}

fn timestamp(with_aux: bool) -> Reply {
    let now = cpu::timestamp();
    let (low, high) = (now & 0xFFFF_FFFF, now >> 32);
    if with_aux {
        Reply::with_registers([(offset::RAX, low), (offset::RDX, high), (offset::RCX, 0)])
    } else {
        Reply::with_registers([(offset::RAX, low), (offset::RDX, high)])
    }
}
