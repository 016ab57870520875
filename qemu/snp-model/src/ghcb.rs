//! The Guest-Hypervisor Communication Block and the protocol of its MSR, as GHCB §2 lays them out.

use crate::PAGE_BYTES;

/// Highest protocol version that the model speaks; SNP guests need it.
pub const VERSION: u16 = 2;

/// Offsets of the fields in the page (GHCB table 3).
pub mod offset {
    /// CPL.
    pub const CPL: usize = 0x0CB;
    /// XSS.
    pub const XSS: usize = 0x140;
    /// RAX.
    pub const RAX: usize = 0x1F8;
    /// RCX.
    pub const RCX: usize = 0x308;
    /// RDX.
    pub const RDX: usize = 0x310;
    /// RBX.
    pub const RBX: usize = 0x318;
    /// RSI.
    pub const RSI: usize = 0x330;
    /// `SW_EXITCODE`.
    pub const EXIT_CODE: usize = 0x390;
    /// `SW_EXITINFO1`.
    pub const EXIT_INFO_1: usize = 0x398;
    /// `SW_EXITINFO2`.
    pub const EXIT_INFO_2: usize = 0x3A0;
    /// `SW_SCRATCH`.
    pub const SCRATCH: usize = 0x3A8;
    /// XCR0.
    pub const XCR0: usize = 0x3E8;
    /// `VALID_BITMAP`: a bit for each 8 bytes before it.
    pub const VALID_BITMAP: usize = 0x3F0;
    /// The shared buffer.
    pub const SHARED_BUFFER: usize = 0x800;
    /// Its end.
    pub const SHARED_BUFFER_END: usize = 0xFF0;
    /// Protocol version.
    pub const VERSION: usize = 0xFFA;
    /// Usage: 0 for this layout.
    pub const USAGE: usize = 0xFFC;
}

/// Non-automatic exits (GHCB table 6).
pub mod event {
    /// Read of DR7.
    pub const READ_DR7: u64 = 0x27;
    /// Write of DR7.
    pub const WRITE_DR7: u64 = 0x37;
    /// RDTSC.
    pub const RDTSC: u64 = 0x6E;
    /// RDPMC.
    pub const RDPMC: u64 = 0x6F;
    /// CPUID.
    pub const CPUID: u64 = 0x72;
    /// INVD.
    pub const INVD: u64 = 0x76;
    /// HLT.
    pub const HLT: u64 = 0x78;
    /// Port I/O.
    pub const IOIO: u64 = 0x7B;
    /// RDMSR or WRMSR.
    pub const MSR: u64 = 0x7C;
    /// VMMCALL: a call of the hypervisor in its own convention.
    pub const VMMCALL: u64 = 0x81;
    /// RDTSCP.
    pub const RDTSCP: u64 = 0x87;
    /// WBINVD.
    pub const WBINVD: u64 = 0x89;
    /// MONITOR.
    pub const MONITOR: u64 = 0x8A;
    /// MWAIT.
    pub const MWAIT: u64 = 0x8B;
    /// Read of device memory.
    pub const MMIO_READ: u64 = 0x8000_0001;
    /// Write of device memory.
    pub const MMIO_WRITE: u64 = 0x8000_0002;
    /// AP reset hold.
    pub const AP_RESET_HOLD: u64 = 0x8000_0004;
    /// AP jump table.
    pub const AP_JUMP_TABLE: u64 = 0x8000_0005;
    /// Page-state change.
    pub const PAGE_STATE_CHANGE: u64 = 0x8000_0010;
    /// Guest message.
    pub const GUEST_REQUEST: u64 = 0x8000_0011;
    /// Guest message that also wants certificates.
    pub const EXTENDED_GUEST_REQUEST: u64 = 0x8000_0012;
    /// AP creation.
    pub const AP_CREATION: u64 = 0x8000_0013;
    /// Hypervisor features.
    pub const HYPERVISOR_FEATURES: u64 = 0x8000_FFFD;
    /// Termination request.
    pub const TERMINATE: u64 = 0x8000_FFFE;
    /// The guest met a #VC that it cannot handle.
    pub const UNSUPPORTED: u64 = 0x8000_FFFF;
}

/// Fields that an event takes besides `SW_EXITCODE` and the two of information (GHCB table 6 and §4.1); `None` for an
/// event that does not exist.
const fn fields_of(code: u64) -> Option<&'static [usize]> {
    use offset::{CPL, RAX, RBX, RCX, RDX, RSI, SCRATCH, XCR0, XSS};
    Some(match code {
        event::IOIO => &[RAX, SCRATCH],
        event::MSR => &[RAX, RCX, RDX],
        event::CPUID => &[RAX, RCX, XCR0, XSS],
        event::MMIO_READ | event::MMIO_WRITE | event::PAGE_STATE_CHANGE => &[SCRATCH],
        event::EXTENDED_GUEST_REQUEST => &[RAX, RBX],
        event::VMMCALL => &[RAX, RBX, RCX, RDX, RSI, CPL],
        event::AP_CREATION | event::WRITE_DR7 => &[RAX],
        event::RDPMC => &[RCX],
        event::MONITOR => &[RAX, RCX, RDX],
        event::MWAIT => &[RAX, RCX],
        event::GUEST_REQUEST
        | event::HYPERVISOR_FEATURES
        | event::HLT
        | event::RDTSC
        | event::RDTSCP
        | event::READ_DR7
        | event::INVD
        | event::WBINVD
        | event::AP_RESET_HOLD
        | event::AP_JUMP_TABLE
        | event::TERMINATE
        | event::UNSUPPORTED => &[],
        _ => return None,
    })
}

/// The first field that is marked valid and means nothing to the event.
pub fn stray_field(code: u64, valid: ValidBitmap) -> Option<usize> {
    let mut allowed = ValidBitmap::default();
    let always = [offset::EXIT_CODE, offset::EXIT_INFO_1, offset::EXIT_INFO_2];
    always.iter().chain(fields_of(code)?).for_each(|field| allowed.mark(*field));
    (0..PAGE_BYTES / 32).map(|quadword| quadword * 8).find(|field| valid.has(*field) && !allowed.has(*field))
}

/// Hypercalls of KVM (Linux `include/uapi/linux/kvm_para.h`). The number is in RAX, and so is the result.
pub mod hypercall {
    /// `KVM_HC_KICK_CPU`: wakes the vCPU whose APIC id is in RCX.
    pub const KICK_CPU: u64 = 5;
    /// `-KVM_ENOSYS`: there is no such hypercall.
    pub const UNKNOWN: u64 = (-1000i64).cast_unsigned();
    /// `-KVM_EPERM`: the caller is not at CPL 0.
    pub const NOT_PERMITTED: u64 = (-1i64).cast_unsigned();
}

/// Hypervisor features (GHCB table 5): SEV-SNP and SNP AP creation, as KVM answers.
pub const HYPERVISOR_FEATURES: u64 = 0b11;

/// Answer in `SW_EXITINFO1`, low half (GHCB §4.1): raise the exception in `SW_EXITINFO2`.
pub const RAISE_EXCEPTION: u64 = 1;
/// Answer in `SW_EXITINFO1`, low half: the request was malformed, `SW_EXITINFO2` says how.
pub const MALFORMED: u64 = 2;

/// Why a request is malformed: the value of `SW_EXITINFO2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Malformed {
    /// The usage field has no meaning.
    Usage = 2,
    /// The scratch area is not where it may be.
    Scratch = 3,
    /// A field that the event needs is not marked valid.
    MissingInput = 4,
    /// A field has a value that it must not have.
    InvalidInput = 5,
    /// There is no such event.
    InvalidEvent = 6,
}

/// The bitmap of fields that hold something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValidBitmap(pub [u64; 2]);

impl ValidBitmap {
    /// Whether the field at `offset` is marked.
    pub fn has(self, offset: usize) -> bool {
        let bit = offset / 8;
        self.0.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// Marks the field at `offset`.
    pub fn mark(&mut self, offset: usize) {
        let bit = offset / 8;
        if let Some(word) = self.0.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    }

    /// `Ok` if every field of `offsets` is marked.
    pub fn need(self, offsets: &[usize]) -> Result<(), Malformed> {
        if offsets.iter().all(|offset| self.has(*offset)) { Ok(()) } else { Err(Malformed::MissingInput) }
    }
}

/// Port I/O as `SW_EXITINFO1` describes it (APM §15.10.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAccess {
    /// The port.
    pub port: u16,
    /// Whether it is an IN.
    pub read: bool,
    /// Bytes: 1, 2 or 4.
    pub bytes: u8,
    /// Whether it is INS or OUTS: `SW_EXITINFO2` elements in the scratch area.
    pub string: bool,
}

impl PortAccess {
    /// Reads `SW_EXITINFO1`. Only string I/O repeats.
    pub fn parse(info: u64) -> Result<Self, Malformed> {
        const RESERVED: u64 = 1 << 1 | 0b111 << 13;
        const STRING: u64 = 1 << 2;
        const REPEAT: u64 = 1 << 3;
        let string = info & STRING != 0;
        if info >> 32 != 0 || info & RESERVED != 0 || info & REPEAT != 0 && !string {
            return Err(Malformed::InvalidInput);
        }
        let bytes = match info >> 4 & 7 {
            1 => 1,
            2 => 2,
            4 => 4,
            _ => return Err(Malformed::InvalidInput),
        };
        Ok(Self { port: (info >> 16) as u16, read: info & 1 == 1, bytes, string })
    }
}

/// What `AP_CREATION` asks for (GHCB §4.1.9).
pub mod creation {
    use super::{Malformed, PAGE_BYTES};

    /// A request. An APIC id names the vCPU.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Request {
        /// Run the vCPU from this VMSA.
        Create {
            /// Which vCPU.
            apic_id: u32,
            /// Guest-physical address of the VMSA.
            vmsa: u64,
            /// Not now, but when the vCPU gets an INIT.
            on_init: bool,
        },
        /// Stop the vCPU.
        Destroy {
            /// Which vCPU.
            apic_id: u32,
        },
    }

    impl Request {
        /// Reads `SW_EXITINFO1` (APIC id in bits 63:32, VMPL in 19:16, request in 15:0) and `SW_EXITINFO2` (the VMSA).
        /// Another VMPL than 0 is refused: the hypervisor does not offer them.
        pub fn parse(info_1: u64, info_2: u64) -> Result<Self, Malformed> {
            let apic_id = (info_1 >> 32) as u32;
            let page = info_2.is_multiple_of(PAGE_BYTES as u64) && info_2 >> 52 == 0;
            match info_1 as u32 {
                on_init @ (0 | 1) if page => {
                    Ok(Self::Create { apic_id, vmsa: info_2, on_init: on_init == 0 })
                }
                2 => Ok(Self::Destroy { apic_id }),
                _ => Err(Malformed::InvalidInput),
            }
        }
    }
}

/// Where a scratch area is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scratch {
    /// In the shared buffer of the GHCB, at this offset of the page.
    Inside(usize),
    /// In another shared page, at this guest-physical address; it does not cross a page.
    Outside(u64),
}

/// Finds the scratch area of `bytes` at `gpa` for the GHCB at `ghcb`. Inside the GHCB only the shared buffer
/// is allowed (GHCB table 3, and KVM's `setup_vmgexit_scratch`).
pub fn scratch(gpa: u64, ghcb: u64, bytes: usize) -> Result<Scratch, Malformed> {
    let (page, offset) = (gpa & !(PAGE_BYTES as u64 - 1), gpa as usize % PAGE_BYTES);
    let end = offset.checked_add(bytes).ok_or(Malformed::Scratch)?;
    let inside = (offset::SHARED_BUFFER..offset::SHARED_BUFFER_END).contains(&offset);
    match page == ghcb {
        true if inside && end <= offset::SHARED_BUFFER_END => Ok(Scratch::Inside(offset)),
        false if end <= PAGE_BYTES => Ok(Scratch::Outside(gpa)),
        _ => Err(Malformed::Scratch),
    }
}

/// What the guest asks for through the GHCB MSR (GHCB §2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrRequest {
    /// 0x000: the request is in the GHCB at this address.
    Page(u64),
    /// 0x002: versions and C-bit.
    SevInformation,
    /// 0x004: one register of a CPUID leaf: 0 for EAX to 3 for EDX.
    Cpuid {
        /// The leaf.
        leaf: u32,
        /// The register.
        register: u8,
    },
    /// 0x006: AP reset hold.
    ApResetHold,
    /// 0x010: the GHCB address that the hypervisor prefers.
    PreferredGhcb,
    /// 0x012: register a GHCB address.
    RegisterGhcb(u64),
    /// 0x014: a page-state change, still to be parsed.
    PageStateChange(u64),
    /// 0x080: hypervisor features.
    HypervisorFeatures,
    /// 0x100: termination.
    Terminate {
        /// Set of reason codes.
        set: u8,
        /// Reason code.
        code: u8,
    },
    /// Anything else.
    Unknown(u64),
}

impl MsrRequest {
    /// Reads the MSR's value.
    pub fn parse(value: u64) -> Self {
        let address = value & !0xFFF;
        match value & 0xFFF {
            0x000 => Self::Page(address),
            0x002 => Self::SevInformation,
            0x004 => Self::Cpuid { leaf: (value >> 32) as u32, register: (value >> 30 & 3) as u8 },
            0x006 => Self::ApResetHold,
            0x010 => Self::PreferredGhcb,
            0x012 => Self::RegisterGhcb(address),
            0x014 => Self::PageStateChange(value),
            0x080 => Self::HypervisorFeatures,
            0x100 => Self::Terminate { set: (value >> 12 & 0xF) as u8, code: (value >> 16) as u8 },
            _ => Self::Unknown(value),
        }
    }
}

/// What the hypervisor answers in the GHCB MSR.
pub mod answer {
    use super::{HYPERVISOR_FEATURES, VERSION};

    /// 0x001: versions and C-bit; also the MSR's value before the guest's first request.
    pub const fn sev_information(c_bit: u8) -> u64 {
        const LOWEST: u64 = 1;
        (VERSION as u64) << 48 | LOWEST << 32 | (c_bit as u64) << 24 | 0x001
    }

    /// 0x005: a register of CPUID.
    pub const fn cpuid(value: u32, register: u8) -> u64 {
        (value as u64) << 32 | (register as u64 & 3) << 30 | 0x005
    }

    /// 0x011: no GHCB address is preferred.
    pub const fn no_preferred_ghcb() -> u64 {
        !0xFFF | 0x011
    }

    /// 0x013: the address is registered.
    pub const fn registered(gpa: u64) -> u64 {
        gpa & !0xFFF | 0x013
    }

    /// 0x013: it is not.
    pub const fn not_registered() -> u64 {
        !0xFFF | 0x013
    }

    /// 0x015: the page-state change's error code, 0 for none.
    pub const fn page_state_change(error: u32) -> u64 {
        (error as u64) << 32 | 0x015
    }

    /// 0x081: the features.
    pub const fn hypervisor_features() -> u64 {
        HYPERVISOR_FEATURES << 12 | 0x081
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bitmap_has_a_bit_for_each_quadword() {
        let mut bitmap = ValidBitmap::default();
        // GHCB table 3: RAX is quadword 63, SW_EXITCODE quadword 114.
        bitmap.mark(offset::RAX);
        bitmap.mark(offset::EXIT_CODE);
        assert_eq!(bitmap.0, [1 << 63, 1 << (114 - 64)]);
        assert!(bitmap.has(offset::RAX) && !bitmap.has(offset::RBX));
        assert_eq!(bitmap.need(&[offset::RAX, offset::RBX]), Err(Malformed::MissingInput));
        assert!(!bitmap.has(offset::USAGE));
    }

    #[test]
    fn fields_that_an_event_does_not_take_are_found() {
        let mut bitmap = ValidBitmap::default();
        for field in [offset::EXIT_CODE, offset::EXIT_INFO_1, offset::EXIT_INFO_2, offset::SCRATCH] {
            bitmap.mark(field);
        }
        assert_eq!(stray_field(event::PAGE_STATE_CHANGE, bitmap), None);
        assert_eq!(stray_field(event::GUEST_REQUEST, bitmap), Some(offset::SCRATCH));
        bitmap.mark(offset::CPL);
        assert_eq!(stray_field(event::PAGE_STATE_CHANGE, bitmap), Some(offset::CPL & !7));
        assert_eq!(stray_field(0x1234, bitmap), None, "no such event");
    }

    #[test]
    fn port_accesses_are_of_one_size() {
        let out = PortAccess { port: 0xE9, read: false, bytes: 1, string: false };
        assert_eq!(PortAccess::parse(0x00E9_021C), Ok(PortAccess { string: true, ..out }));
        assert_eq!(PortAccess::parse(0x00E9_0210), Ok(out));
        assert_eq!(
            PortAccess::parse(0x0CFC_0241),
            Ok(PortAccess { port: 0xCFC, read: true, bytes: 4, string: false })
        );
        for bad in [0x00E9_0212, 0x00E9_0218, 0x00E9_0200, 0x00E9_0230, 1 << 32 | 0x00E9_0210] {
            assert_eq!(PortAccess::parse(bad), Err(Malformed::InvalidInput), "{bad:#x}");
        }
    }

    #[test]
    fn scratch_is_in_the_shared_buffer_or_in_another_page() {
        const GHCB: u64 = 0x7000;
        assert_eq!(scratch(0x7800, GHCB, 0x7F0), Ok(Scratch::Inside(0x800)));
        assert_eq!(scratch(0x9FF8, GHCB, 8), Ok(Scratch::Outside(0x9FF8)));
        for (gpa, bytes) in
            [(0x7000, 8), (0x77F8, 8), (0x7800, 0x7F1), (0x7FF0, 1), (0x9FF9, 8), (0x7800, usize::MAX)]
        {
            assert_eq!(scratch(gpa, GHCB, bytes), Err(Malformed::Scratch), "{gpa:#x}");
        }
    }

    #[test]
    fn vcpus_are_created_from_whole_pages() {
        use creation::Request;
        let create = |on_init| Ok(Request::Create { apic_id: 3, vmsa: 0x7000, on_init });
        assert_eq!(Request::parse(3 << 32, 0x7000), create(true));
        assert_eq!(Request::parse(3 << 32 | 1, 0x7000), create(false));
        assert_eq!(Request::parse(3 << 32 | 2, 0), Ok(Request::Destroy { apic_id: 3 }));
        for (info_1, info_2) in [(1, 0x7001), (3, 0x7000), (1 << 16 | 1, 0x7000), (1, 1 << 52)] {
            assert_eq!(Request::parse(info_1, info_2), Err(Malformed::InvalidInput), "{info_1:#x}");
        }
    }

    #[test]
    fn msr_requests_are_those_of_the_table() {
        for (value, request) in [
            (0x7000, MsrRequest::Page(0x7000)),
            (0x002, MsrRequest::SevInformation),
            (0x8000_001F_4000_0004, MsrRequest::Cpuid { leaf: 0x8000_001F, register: 1 }),
            (0x7012, MsrRequest::RegisterGhcb(0x7000)),
            (0x080, MsrRequest::HypervisorFeatures),
            (0x12_3100, MsrRequest::Terminate { set: 3, code: 0x12 }),
            (0x0FF, MsrRequest::Unknown(0x0FF)),
        ] {
            assert_eq!(MsrRequest::parse(value), request);
        }
    }

    #[test]
    fn answers_are_those_of_the_table() {
        assert_eq!(answer::sev_information(51), 0x0002_0001_3300_0001);
        assert_eq!(answer::hypervisor_features(), 0x3081);
        assert_eq!(answer::cpuid(0x1234, 2), 0x0000_1234_8000_0005);
    }
}
