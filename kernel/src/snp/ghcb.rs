//! The GHCB page: explicit calls to the host (GHCB specification rev. 2.03, §2.6 and §4.1).
//!
//! The page is shared and so in the host's hands at all times (REQUIREMENTS A9). A call writes its fields, leaves, and
//! then copies each field of the answer out once; a field counts only if the host marked it valid.

use crate::fatal::{Fatal, OrFatal};
use crate::host::{Alleged, HostFault, HostIo, OutOfBounds, SharedBytes, Width};
use crate::snp::protocol::VERSION;
use wire::termination::Termination;

/// Bytes of the page.
pub const BYTES: usize = 4096;
/// Page-state changes that fit into one call (253: the shared buffer's 2032 bytes, less the header of 8).
pub const CHANGES: usize = (BUFFER_BYTES - 8) / 8;

// Offsets, §2.6 table 3.
const CPL: usize = 0x0cb;
const RAX: usize = 0x1f8;
const RCX: usize = 0x308;
const RBX: usize = 0x318;
const EXIT_CODE: usize = 0x390;
const EXIT_INFO_1: usize = 0x398;
const EXIT_INFO_2: usize = 0x3a0;
const SCRATCH: usize = 0x3a8;
const VALID: usize = 0x3f0;
const BUFFER: usize = 0x800;
const BUFFER_BYTES: usize = 0x7f0;
const PROTOCOL_VERSION: usize = 0xffa;
const USAGE: usize = 0xffc;

// Exit codes, §4.1 table 6.
const IOIO: u64 = 0x7b;
const VMMCALL: u64 = 0x81;
const MMIO_READ: u64 = 0x8000_0001;
const MMIO_WRITE: u64 = 0x8000_0002;
const PAGE_STATE_CHANGE: u64 = 0x8000_0010;
const GUEST_REQUEST: u64 = 0x8000_0011;
const EXTENDED_GUEST_REQUEST: u64 = 0x8000_0012;
const AP_CREATION: u64 = 0x8000_0013;

/// Leaves to the host; the GHCB MSR holds the page's address already.
pub trait Exit {
    /// Executes `VMGEXIT`.
    fn exit(&mut self);
}

/// What a page is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageState {
    /// The guest's own.
    Private = 1,
    /// The host's too.
    Shared = 2,
}

/// One entry of a page-state change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageChange {
    /// First byte of the page.
    pub gpa: u64,
    /// Whether it is a page of 2 MiB, not of 4 KiB.
    pub large: bool,
    /// What it becomes.
    pub state: PageState,
}

impl PageChange {
    const fn encode(self) -> u64 {
        self.gpa | (self.state as u64) << 52 | (self.large as u64) << 56
    }
}

/// How the host answered a request to the AMD-SP: low half the firmware's error, high half the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRequestStatus(pub u64);

impl GuestRequestStatus {
    /// The buffer for the certificates is too small; the message was not delivered.
    pub const INVALID_LENGTH: Self = Self(1 << 32);
    /// The host is busy; the message was not delivered.
    pub const BUSY: Self = Self(2 << 32);
}

/// The GHCB of one vCPU.
pub struct Ghcb<P, E> {
    page: P,
    exit: E,
}

/// Fields of one call. `EXIT_CODE`, `EXIT_INFO_1` and `EXIT_INFO_2` are always given.
#[derive(Clone, Copy, Default)]
struct Call {
    code: u64,
    info: [u64; 2],
    rax: Option<u64>,
    rbx: Option<u64>,
    rcx: Option<u64>,
    /// The host is to know that ring 0 asks.
    ring_0: bool,
    scratch: Option<u64>,
}

/// The answer's valid bitmap and the second exit information; the first was checked to report no error.
struct Answer {
    valid: u128,
    info_2: u64,
}

impl<P: SharedBytes, E: Exit> Ghcb<P, E> {
    /// Uses a page that is shared, cleared and registered.
    pub const fn new(page: P, exit: E) -> Self {
        Self { page, exit }
    }

    /// The page.
    pub const fn page(&self) -> &P {
        &self.page
    }

    /// Makes pages private or shared.
    pub fn change_pages(&mut self, changes: &[PageChange]) -> OrFatal<()> {
        changes.chunks(CHANGES).try_for_each(|batch| self.change_batch(batch))
    }

    /// §4.1.6: the host may stop anywhere and is called again until the current entry has passed the last one.
    fn change_batch(&mut self, batch: &[PageChange]) -> OrFatal<()> {
        let fault = |_| Fatal::new(Termination::GhcbProtocol, PAGE_STATE_CHANGE);
        let last = batch.len() as u64 - 1;
        let mut current = 0;
        self.write(BUFFER, last << 16).map_err(fault)?;
        for (index, change) in batch.iter().enumerate() {
            self.write(BUFFER + 8 + 8 * index, change.encode()).map_err(fault)?;
        }
        while current <= last {
            let call = Call { code: PAGE_STATE_CHANGE, scratch: Some(self.buffer()), ..Call::default() };
            let answer = self.call(call).map_err(fault)?;
            let header = self.read(BUFFER).map_err(fault)?;
            let (now, end, reserved) = (header & 0xffff, header >> 16 & 0xffff, header >> 32);
            // Each call must get somewhere, or a lying host could keep the guest here for ever.
            if answer.info_2 != 0 || end != last || reserved != 0 || now <= current || now > last + 1 {
                return Err(Fatal::new(Termination::GhcbProtocol, answer.info_2));
            }
            current = now;
        }
        Ok(())
    }

    /// Hands the message in the shared page at `request` to the AMD-SP, whose answer arrives in the page at `reply`.
    pub fn guest_request(&mut self, request: u64, reply: u64) -> Result<GuestRequestStatus, HostFault> {
        let answer = self.call(Call { code: GUEST_REQUEST, info: [request, reply], ..Call::default() })?;
        Ok(GuestRequestStatus(answer.info_2))
    }

    /// Like [`Self::guest_request`], and asks the host for the certificates, into `pages` shared pages at `data`.
    pub fn extended_guest_request(
        &mut self,
        request: u64,
        reply: u64,
        data: u64,
        pages: u64,
    ) -> Result<GuestRequestStatus, HostFault> {
        let answer = self.call(Call {
            code: EXTENDED_GUEST_REQUEST,
            info: [request, reply],
            rax: Some(data),
            rbx: Some(pages),
            ..Call::default()
        })?;
        Ok(GuestRequestStatus(answer.info_2))
    }

    /// §4.1.10: has the vCPU with this APIC id run from the VMSA at `vmsa`, now.
    pub fn create_cpu(&mut self, apic_id: u32, vmsa: u64, features: u64) -> Result<(), HostFault> {
        /// Bits 31:0; VMPL 0 in bits 19:16.
        const CREATE: u64 = 1;
        let info = [u64::from(apic_id) << 32 | CREATE, vmsa];
        self.call(Call { code: AP_CREATION, info, rax: Some(features), ..Call::default() }).map(drop)
    }

    /// Has a vCPU that halts go on, or not halt the next time: KVM's hypercall `KVM_HC_KICK_CPU` (Linux
    /// `Documentation/virt/kvm/x86/hypercalls.rst`; number in RAX, flags in RBX, APIC id in RCX).
    pub fn wake_cpu(&mut self, apic_id: u32) -> Result<(), HostFault> {
        const KICK_CPU: u64 = 5;
        self.call(Call {
            code: VMMCALL,
            rax: Some(KICK_CPU),
            rbx: Some(0),
            rcx: Some(apic_id.into()),
            ring_0: true,
            ..Call::default()
        })?;
        Ok(())
    }

    /// Writes bytes to a port, one after the other, as `REP OUTSB` does (§4.1.2: the bytes are in the scratch area). They fit
    /// the shared buffer.
    pub fn port_write_all(&mut self, port: u16, bytes: &[u8]) -> Result<(), HostFault> {
        if bytes.len() > BUFFER_BYTES {
            return Err(HostFault);
        }
        self.page.write(BUFFER, bytes)?;
        let info = [port_information(port, Width::Byte)? | PORT_STRING, bytes.len() as u64];
        self.call(Call { code: IOIO, info, scratch: Some(self.buffer()), ..Call::default() }).map(drop)
    }

    fn buffer(&self) -> u64 {
        self.page.gpa() + BUFFER as u64
    }

    fn call(&mut self, call: Call) -> Result<Answer, HostFault> {
        let fields = [
            (EXIT_CODE, Some(call.code)),
            (EXIT_INFO_1, Some(call.info[0])),
            (EXIT_INFO_2, Some(call.info[1])),
            (RAX, call.rax),
            (RBX, call.rbx),
            (RCX, call.rcx),
            (CPL & !7, call.ring_0.then_some(0)),
            (SCRATCH, call.scratch),
        ];
        let mut valid = 0u128;
        for (offset, value) in fields {
            if let Some(value) = value {
                self.write(offset, value)?;
                valid |= bit(offset);
            }
        }
        self.page.write(VALID, &valid.to_le_bytes())?;
        self.page.write(PROTOCOL_VERSION, &VERSION.to_le_bytes())?;
        self.page.write(USAGE, &0u32.to_le_bytes())?;

        self.exit.exit();

        let mut valid = [0; 16];
        self.page.read(VALID, &mut valid)?;
        let valid = u128::from_le_bytes(valid);
        let info_1 = self.field(valid, EXIT_INFO_1)?;
        let info_2 = self.field(valid, EXIT_INFO_2)?;
        // Low half 0: done. Anything else is an exception to raise or a malformed request (§4.1, "SW_EXITINFO1").
        if info_1 as u32 != 0 {
            return Err(HostFault);
        }
        Ok(Answer { valid, info_2 })
    }

    fn field(&self, valid: u128, offset: usize) -> Result<u64, HostFault> {
        if valid & bit(offset) == 0 {
            return Err(HostFault);
        }
        self.read(offset)
    }

    fn read(&self, offset: usize) -> Result<u64, HostFault> {
        let mut bytes = [0; 8];
        self.page.read(offset, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&mut self, offset: usize, value: u64) -> Result<(), HostFault> {
        Ok(self.page.write(offset, &value.to_le_bytes())?)
    }
}

impl<P: SharedBytes, E: Exit> HostIo for Ghcb<P, E> {
    fn port_read(&mut self, port: u16, width: Width) -> Result<Alleged<u32>, HostFault> {
        let info = port_information(port, width)? | PORT_IN;
        let answer = self.call(Call { code: IOIO, info: [info, 0], rax: Some(0), ..Call::default() })?;
        Ok(Alleged::new(self.field(answer.valid, RAX)? as u32 & mask(width) as u32))
    }

    fn port_write(&mut self, port: u16, width: Width, value: u32) -> Result<(), HostFault> {
        let info = port_information(port, width)?;
        let rax = u64::from(value) & mask(width);
        self.call(Call { code: IOIO, info: [info, 0], rax: Some(rax), ..Call::default() }).map(drop)
    }

    fn mmio_read(&mut self, gpa: u64, width: Width) -> Result<Alleged<u64>, HostFault> {
        let info = [gpa, width.bytes()];
        self.call(Call { code: MMIO_READ, info, scratch: Some(self.buffer()), ..Call::default() })?;
        Ok(Alleged::new(self.read(BUFFER)? & mask(width)))
    }

    fn mmio_write(&mut self, gpa: u64, width: Width, value: u64) -> Result<(), HostFault> {
        self.write(BUFFER, value & mask(width))?;
        let info = [gpa, width.bytes()];
        self.call(Call { code: MMIO_WRITE, info, scratch: Some(self.buffer()), ..Call::default() }).map(drop)
    }
}

impl From<OutOfBounds> for HostFault {
    fn from(_: OutOfBounds) -> Self {
        Self
    }
}

/// Bit of the valid bitmap: one for each 8 bytes of the save area.
const fn bit(offset: usize) -> u128 {
    1 << (offset / 8)
}

const PORT_IN: u64 = 1;
/// A string instruction with a repeat prefix.
const PORT_STRING: u64 = 1 << 2 | 1 << 3;

/// `EXITINFO1` of an I/O intercept with a 16-bit port address (APM vol. 2, §15.10.2).
fn port_information(port: u16, width: Width) -> Result<u64, HostFault> {
    const ADDRESS_16: u64 = 1 << 7;
    let size = match width {
        Width::Byte => 1 << 4,
        Width::Word => 1 << 5,
        Width::Long => 1 << 6,
        Width::Quad => return Err(HostFault),
    };
    Ok(u64::from(port) << 16 | ADDRESS_16 | size)
}

const fn mask(width: Width) -> u64 {
    u64::MAX >> (64 - 8 * width.bytes())
}

#[cfg(test)]
#[path = "ghcb_tests.rs"]
mod tests;
