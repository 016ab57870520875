//! An IGVM file as QEMU's loader reads it (`backends/igvm.c`, QEMU 10.1): pages and the state of the first vCPU.
//!
//! Sources for the format: the IGVM specification as `igvm_defs` 0.5.0 gives it, for what is taken from a VMSA
//! `check_vmsa_supported` of QEMU's `target/i386/sev.c`. What the loader would do otherwise from one version to the
//! next, and what no guest of this model needs, is refused: pages without data, parameters, other platforms.

use super::{PageKind, Region, VMSA_GPA, offset};
use crate::{PAGE_BYTES, Page};
use alloc::{boxed::Box, vec::Vec};
use core::fmt;

/// First bytes of a file.
pub const MAGIC: [u8; 4] = *b"IGVM";

/// Bytes of the fixed header of format version 1: magic, version, offset, size, total size, checksum.
const FIXED_HEADER: usize = 24;
const CHECKSUM: usize = 20;
const VERSION: u32 = 1;

/// Variable header types.
mod header {
    pub const SUPPORTED_PLATFORM: u32 = 0x1;
    pub const GUEST_POLICY: u32 = 0x101;
    pub const PAGE_DATA: u32 = 0x302;
    pub const VP_CONTEXT: u32 = 0x304;
}

/// `IGVM_PLATFORM_TYPE_SEV_SNP`.
const SEV_SNP: u8 = 2;
/// `IGVM_PAGE_DATA_TYPE_*`.
const NORMAL: u16 = 0;
const SECRETS: u16 = 1;
const CPUID_DATA: u16 = 2;

/// Why an IGVM file cannot be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgvmError {
    /// Not a whole file of format version 1, or its checksum is wrong.
    Header,
    /// A variable header is cut short or points outside the file.
    Broken,
    /// The file is for no platform but SEV-SNP, once.
    Platform,
    /// There is not exactly one guest policy.
    Policy,
    /// A header of this type asks for more than a page or a vCPU.
    Directive {
        /// The type.
        kind: u32,
    },
    /// A page is misaligned, has flags, an unknown type or no data, or comes twice.
    Page {
        /// Its address.
        gpa: u64,
    },
    /// Not exactly one vCPU context: QEMU takes one for each vCPU, but a file cannot know how many there are. It must come
    /// last, since KVM measures it last, and have KVM's address.
    Context,
    /// The vCPU context has a field that QEMU does not give to KVM, so that it refuses the file.
    Field {
        /// Its offset.
        at: usize,
    },
    /// A page lies above the guest's RAM.
    OutsideMemory {
        /// Its address.
        gpa: u64,
    },
}

impl fmt::Display for IgvmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => {
                f.write_str("the IGVM file is cut short, of another version, or its checksum is wrong")?
            }
            Self::Broken => {
                f.write_str("the IGVM file has a header that is cut short or points outside the file")?
            }
            Self::Platform => f.write_str("the IGVM file is not for SEV-SNP, or not for it alone")?,
            Self::Policy => f.write_str("the IGVM file has no guest policy, or several")?,
            Self::Directive { kind } => write!(
                f,
                "the IGVM file has a header of type {kind:#x}, which this loader does not carry out"
            )?,
            Self::Page { gpa } => write!(
                f,
                "the IGVM file's page at {gpa:#x} is misplaced, has no data or flags, or comes twice"
            )?,
            Self::Context => f.write_str(
                "the IGVM file must end with one context for vCPU 0, at the address that KVM uses",
            )?,
            Self::Field { at } => write!(
                f,
                "the IGVM file's vCPU context has a value at {at:#x} that QEMU does not give to KVM"
            )?,
            Self::OutsideMemory { gpa } => {
                write!(f, "the IGVM file's page at {gpa:#x} lies above the guest's RAM")?
            }
        }
        f.write_str("; build an SNP image with cloister-image")
    }
}

impl core::error::Error for IgvmError {}

/// A file and what it asks for.
#[derive(Clone, Debug)]
pub struct Igvm<'a> {
    pages: Vec<(Region, &'a [u8])>,
    vmsa: Box<Page>,
    policy: u64,
}

impl<'a> Igvm<'a> {
    /// Reads a file.
    pub fn parse(file: &'a [u8]) -> Result<Self, IgvmError> {
        let word = |at: usize| number::<4>(file, at).map(|value| value as u32).ok_or(IgvmError::Header);
        let (start, size) = (word(8)? as usize, word(12)? as usize);
        let end = start.checked_add(size).ok_or(IgvmError::Header)?;
        let whole = word(16)? as usize == file.len() && start >= FIXED_HEADER && end <= file.len();
        if !file.starts_with(&MAGIC) || word(4)? != VERSION || !whole {
            return Err(IgvmError::Header);
        }
        // Over fixed and variable headers, with the checksum itself as zero.
        let parts = [&file[..CHECKSUM], &[0; 4], &file[FIXED_HEADER..start], &file[start..end]];
        if crc32(&parts) != word(CHECKSUM)? {
            return Err(IgvmError::Header);
        }
        let mut found = Found::default();
        let mut rest = &file[start..end];
        while !rest.is_empty() {
            let kind = number::<4>(rest, 0).ok_or(IgvmError::Broken)? as u32;
            let length = number::<4>(rest, 4).ok_or(IgvmError::Broken)? as usize;
            let body = rest.get(8..).and_then(|body| body.get(..length)).ok_or(IgvmError::Broken)?;
            found.header(file, kind, body)?;
            rest = rest.get(8 + length.next_multiple_of(8)..).unwrap_or(&[]);
        }
        let vmsa = found.vmsa.ok_or(IgvmError::Context)?;
        check_context(&vmsa)?;
        if !found.platform {
            return Err(IgvmError::Platform);
        }
        Ok(Self { pages: found.pages, vmsa, policy: found.policy.ok_or(IgvmError::Policy)? })
    }

    /// The pages in the order of the launch, and the contents of those that have any.
    pub fn pages(&self) -> impl Iterator<Item = (Region, &'a [u8])> + '_ {
        self.pages.iter().copied()
    }

    /// The state of the first vCPU.
    pub fn vmsa(&self) -> &Page {
        &self.vmsa
    }

    /// The guest policy (SNP ABI §4.3), which QEMU takes from here.
    pub const fn policy(&self) -> u64 {
        self.policy
    }

    /// Refuses pages above `memory_mib` of RAM.
    pub fn check_memory(&self, memory_mib: u32) -> Result<(), IgvmError> {
        let ram = u64::from(memory_mib) << 20;
        match self.pages.iter().find(|(region, _)| region.end() > ram) {
            Some((region, _)) => Err(IgvmError::OutsideMemory { gpa: region.gpa }),
            None => Ok(()),
        }
    }
}

/// What the headers say so far.
#[derive(Default)]
struct Found<'a> {
    platform: bool,
    policy: Option<u64>,
    pages: Vec<(Region, &'a [u8])>,
    vmsa: Option<Box<Page>>,
}

impl<'a> Found<'a> {
    fn header(&mut self, file: &'a [u8], kind: u32, body: &[u8]) -> Result<(), IgvmError> {
        match kind {
            header::SUPPORTED_PLATFORM => {
                let (Some(1), Some(platform)) = (number::<4>(body, 0), body.get(5)) else {
                    return Err(IgvmError::Platform);
                };
                if *platform != SEV_SNP || self.platform {
                    return Err(IgvmError::Platform);
                }
                self.platform = true;
            }
            header::GUEST_POLICY => match (number::<8>(body, 0), number::<4>(body, 8), self.policy) {
                (Some(policy), Some(1), None) => self.policy = Some(policy),
                _ => return Err(IgvmError::Policy),
            },
            header::PAGE_DATA => self.page(file, body)?,
            header::VP_CONTEXT => {
                let field = (number::<8>(body, 0), number::<4>(body, 8), number::<2>(body, 16));
                if field != (Some(VMSA_GPA), Some(1), Some(0)) || self.vmsa.is_some() {
                    return Err(IgvmError::Context);
                }
                let at = number::<4>(body, 12).ok_or(IgvmError::Broken)? as usize;
                let bytes = file.get(at..).and_then(|rest| rest.first_chunk()).ok_or(IgvmError::Broken)?;
                self.vmsa = Some(Box::new(*bytes));
            }
            kind => return Err(IgvmError::Directive { kind }),
        }
        Ok(())
    }

    fn page(&mut self, file: &'a [u8], body: &[u8]) -> Result<(), IgvmError> {
        let gpa = number::<8>(body, 0).ok_or(IgvmError::Broken)?;
        let bad = IgvmError::Page { gpa };
        let (mask, at, flags) = (number::<4>(body, 8), number::<4>(body, 12), number::<4>(body, 16));
        let (Some(1), Some(at), Some(0), Some(kind)) = (mask, at, flags, number::<2>(body, 20)) else {
            return Err(bad);
        };
        if self.vmsa.is_some() {
            return Err(IgvmError::Context);
        }
        let (kind, contents) = match (kind as u16, at as usize) {
            (NORMAL, 0) => return Err(bad),
            (NORMAL, at) => {
                let bytes = file.get(at..).and_then(|rest| rest.get(..PAGE_BYTES)).ok_or(bad)?;
                (PageKind::Normal, bytes)
            }
            (SECRETS, _) => (PageKind::Secrets, &[][..]),
            (CPUID_DATA, _) => (PageKind::Cpuid, &[][..]),
            _ => return Err(bad),
        };
        let page = Region { gpa, bytes: PAGE_BYTES as u64, kind };
        let twice = self.pages.iter().any(|(other, _)| other.gpa == gpa);
        if !gpa.is_multiple_of(PAGE_BYTES as u64) || gpa >= VMSA_GPA || twice {
            return Err(bad);
        }
        self.pages.push((page, contents));
        Ok(())
    }
}

/// QEMU's `check_vmsa_supported`: whatever is not one of its registers must be zero.
fn check_context(vmsa: &Page) -> Result<(), IgvmError> {
    const REGISTERS: [(usize, usize); 10] = [
        (offset::ES, offset::TR + 0x10),
        (offset::EFER, 8),
        // CR4, CR3, CR0, DR7, DR6, RFLAGS, RIP.
        (offset::CR4, offset::RIP + 8 - offset::CR4),
        (offset::RSP, 8),
        (offset::RAX, 8),
        (offset::G_PAT, 8),
        (offset::RCX, 24),
        (offset::RBP, offset::R15 + 8 - offset::RBP),
        (offset::SEV_FEATURES, 8),
        (offset::XCR0, 8),
    ];
    let taken = |at: usize| {
        REGISTERS.iter().any(|(start, bytes)| (*start..start + bytes).contains(&at))
            || (offset::MXCSR..offset::MXCSR + 4).contains(&at)
            || (offset::X87_FCW..offset::X87_FCW + 2).contains(&at)
    };
    let stray = vmsa.iter().enumerate().find(|(at, byte)| **byte != 0 && !taken(*at));
    match (stray, number::<8>(vmsa, offset::SEV_FEATURES)) {
        (Some((at, _)), _) => Err(IgvmError::Field { at }),
        (None, Some(super::SEV_FEATURES)) => Ok(()),
        (None, _) => Err(IgvmError::Field { at: offset::SEV_FEATURES }),
    }
}

/// A little-endian number of `BYTES` bytes.
fn number<const BYTES: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let field: &[u8; BYTES] = bytes.get(at..)?.first_chunk()?;
    Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// CRC-32 of ISO 3309, the one of zlib and PNG, over some parts in a row.
fn crc32(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    !bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}
