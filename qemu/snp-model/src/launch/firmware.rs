//! The GUIDed table and SEV metadata of a firmware image, read as QEMU reads them: `hw/i386/pc_sysfw_ovmf.c`,
//! `pc_system_parse_sev_metadata` and `sev_es_find_reset_vector`.
//!
//! QEMU trusts the file; here a table that QEMU would read beyond is refused, and so are sections that would fail
//! later in `SNP_LAUNCH_UPDATE`: pages added twice or outside the guest's memory.

use super::{PageKind, Region};
use crate::PAGE_BYTES;
use alloc::vec::Vec;
use core::fmt;

/// The ROM ends where 32-bit addresses do.
const ROM_END: u64 = 1 << 32;
/// The table's footer ends so many bytes before the end of the ROM: above it is the reset vector.
const FOOTER_FROM_END: usize = 32;
/// An entry is data, then this: its whole length (`u16`) and its GUID.
const ENTRY_TRAILER: usize = 2 + 16;
/// `OVMF_TABLE_FOOTER_GUID` 96b582de-1fb2-45f7-baea-a366c55a082d, as stored.
const FOOTER_GUID: [u8; 16] = guid(0x96b5_82de, 0x1fb2, 0x45f7, 0xbaea_a366_c55a_082d);
/// `OVMF_SEV_META_DATA_GUID` dc886566-984a-4798-a75e-5585a7bf67cc.
const SEV_METADATA_GUID: [u8; 16] = guid(0xdc88_6566, 0x984a, 0x4798, 0xa75e_5585_a7bf_67cc);
/// `SEV_INFO_BLOCK_GUID` 00f771de-1a7e-4fcb-890e-68c77e2fb44e: the SEV-ES reset block.
const RESET_BLOCK_GUID: [u8; 16] = guid(0x00f7_71de, 0x1a7e, 0x4fcb, 0x890e_68c7_7e2f_b44e);

/// Header of the metadata: signature `ASEV`, length, version, number of sections.
const METADATA_HEADER: usize = 16;
const METADATA_VERSION: u32 = 1;
/// One section: base, length, type.
const SECTION_BYTES: usize = 12;

/// A GUID in memory order: the first three fields little-endian, the rest as written.
const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// Why a ROM cannot be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirmwareError {
    /// The ROM is empty, not whole pages, or larger than the space below 4 GiB.
    Size,
    /// There is no GUIDed table before the reset vector.
    NoTable,
    /// An entry of the table is shorter than its trailer or longer than what is left of the table.
    BrokenTable,
    /// The table has no SEV metadata: this is not an image for SEV-SNP.
    NoMetadata,
    /// The metadata lies outside the ROM, has another signature or version, or fewer bytes than its sections need.
    BrokenMetadata,
    /// A section is not whole pages, is empty, or overlaps another one or the ROM.
    Placement {
        /// Where it was to begin.
        gpa: u64,
    },
    /// A section lies above the guest's RAM.
    OutsideMemory {
        /// Where it was to begin.
        gpa: u64,
    },
    /// A section has a type that QEMU does not know or this model does not offer.
    SectionType {
        /// The type.
        kind: u32,
    },
    /// There is no SEV-ES reset block, or its address is zero; QEMU asks for it even where one vCPU is all.
    NoResetBlock,
}

impl fmt::Display for FirmwareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size => f.write_str("the ROM is not whole pages below 4 GiB")?,
            Self::NoTable => f.write_str("the ROM has no GUIDed table before its reset vector")?,
            Self::BrokenTable => f.write_str("the ROM's GUIDed table has an entry of impossible length")?,
            Self::NoMetadata => f.write_str("the ROM has no SEV metadata")?,
            Self::BrokenMetadata => f.write_str("the ROM's SEV metadata is malformed")?,
            Self::Placement { gpa } => {
                write!(f, "the metadata section at {gpa:#x} is misplaced or overlaps another")?
            }
            Self::OutsideMemory { gpa } => {
                write!(f, "the metadata section at {gpa:#x} lies above the guest's RAM")?
            }
            Self::SectionType { kind } => write!(f, "the metadata has a section of unknown type {kind:#x}")?,
            Self::NoResetBlock => {
                f.write_str("the ROM has no SEV-ES reset block for other vCPUs than the first")?
            }
        }
        f.write_str("; build an SNP image with cloister-image")
    }
}

impl core::error::Error for FirmwareError {}

/// A ROM and what its tables ask for.
#[derive(Clone, Debug)]
pub struct Firmware<'a> {
    rom: &'a [u8],
    regions: Vec<Region>,
    reset_block: u32,
}

impl<'a> Firmware<'a> {
    /// Reads the tables of `rom`.
    pub fn parse(rom: &'a [u8]) -> Result<Self, FirmwareError> {
        let length = u64::try_from(rom.len()).map_err(|_| FirmwareError::Size)?;
        if rom.is_empty() || !rom.len().is_multiple_of(PAGE_BYTES) || length >= ROM_END {
            return Err(FirmwareError::Size);
        }
        let table = Table::find(rom)?;
        // QEMU's SevInfoBlock is one u32: the address at which other vCPUs start.
        let reset_block = table.entry(&RESET_BLOCK_GUID)?.and_then(|data| data.first_chunk());
        let reset_block = reset_block.map(|bytes| u32::from_le_bytes(*bytes)).unwrap_or(0);
        if reset_block == 0 {
            return Err(FirmwareError::NoResetBlock);
        }
        let metadata = table.entry(&SEV_METADATA_GUID)?.ok_or(FirmwareError::NoMetadata)?;
        let mut regions =
            alloc::vec![Region { gpa: ROM_END - length, bytes: length, kind: PageKind::Normal }];
        for (gpa, bytes, kind) in sections(rom, metadata)? {
            let region = Region { gpa: gpa.into(), bytes: bytes.into(), kind: page_kind(kind)? };
            let page = PAGE_BYTES as u64;
            let whole =
                region.gpa.is_multiple_of(page) && region.bytes.is_multiple_of(page) && region.bytes > 0;
            // One secrets page and one CPUID page hold all there is to say; QEMU would repeat the same CPUID table.
            let single = !matches!(region.kind, PageKind::Secrets | PageKind::Cpuid) || region.bytes == page;
            let apart = regions.iter().all(|r| region.end() <= r.gpa || r.end() <= region.gpa);
            if !whole || !single || !apart {
                return Err(FirmwareError::Placement { gpa: region.gpa });
            }
            regions.push(region);
        }
        Ok(Self { rom, regions, reset_block })
    }

    /// The ROM's bytes.
    pub const fn rom(&self) -> &'a [u8] {
        self.rom
    }

    /// What the guest starts with, in the order of the launch: the ROM, then the metadata sections.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Where vCPU `index` starts: the reset vector, or for all but the first the address in the SEV-ES reset block.
    pub const fn entry(&self, index: u32) -> u32 {
        if index == 0 { super::RESET_VECTOR } else { self.reset_block }
    }

    /// Refuses sections above `memory_mib` of RAM, for which QEMU has no host memory.
    pub fn check_memory(&self, memory_mib: u32) -> Result<(), FirmwareError> {
        let ram = u64::from(memory_mib) << 20;
        match self.regions.iter().skip(1).find(|r| r.end() > ram) {
            Some(outside) => Err(FirmwareError::OutsideMemory { gpa: outside.gpa }),
            None => Ok(()),
        }
    }
}

/// QEMU's `snp_metadata_desc_to_page_type`.
const fn page_kind(section: u32) -> Result<PageKind, FirmwareError> {
    match section {
        // SEV_DESC_TYPE_SNP_SEC_MEM: pre-validated, zero.
        1 => Ok(PageKind::Zero),
        // SEV_DESC_TYPE_SNP_SECRETS.
        2 => Ok(PageKind::Secrets),
        // SEV_DESC_TYPE_CPUID.
        3 => Ok(PageKind::Cpuid),
        // SVSM_CAA (4) and SNP_KERNEL_HASHES (0x10) become zero pages without an SVSM and without `-kernel`.
        4 | 0x10 => Ok(PageKind::Zero),
        kind => Err(FirmwareError::SectionType { kind }),
    }
}

/// The GUIDed table without its footer; entries are read from the end to the start.
struct Table<'a>(&'a [u8]);

impl<'a> Table<'a> {
    fn find(rom: &'a [u8]) -> Result<Self, FirmwareError> {
        let end = rom.len() - FOOTER_FROM_END;
        let (length, guid) = trailer(&rom[..end]).ok_or(FirmwareError::NoTable)?;
        if guid != FOOTER_GUID {
            return Err(FirmwareError::NoTable);
        }
        // The footer's length counts the whole table, the footer included.
        let entries = length.checked_sub(ENTRY_TRAILER).ok_or(FirmwareError::BrokenTable)?;
        let footer = end - ENTRY_TRAILER;
        let start = footer.checked_sub(entries).ok_or(FirmwareError::BrokenTable)?;
        Ok(Self(&rom[start..footer]))
    }

    /// The data of the entry with this GUID; of several, the last one in the ROM, which QEMU meets first.
    fn entry(&self, wanted: &[u8; 16]) -> Result<Option<&'a [u8]>, FirmwareError> {
        let mut rest = self.0;
        while let Some((length, guid)) = trailer(rest) {
            let data = length.checked_sub(ENTRY_TRAILER).ok_or(FirmwareError::BrokenTable)?;
            let start = rest.len().checked_sub(length).ok_or(FirmwareError::BrokenTable)?;
            if guid == *wanted {
                return Ok(Some(&rest[start..start + data]));
            }
            rest = &rest[..start];
        }
        Ok(None)
    }
}

/// Length and GUID at the end of `bytes`.
fn trailer(bytes: &[u8]) -> Option<(usize, [u8; 16])> {
    let (rest, guid) = bytes.split_last_chunk()?;
    let (_, length) = rest.split_last_chunk()?;
    Some((u16::from_le_bytes(*length).into(), *guid))
}

/// Base, length and type of each section. `entry` holds the distance of the metadata from the end of the ROM.
fn sections(rom: &[u8], entry: &[u8]) -> Result<Vec<(u32, u32, u32)>, FirmwareError> {
    const BROKEN: FirmwareError = FirmwareError::BrokenMetadata;
    let from_end = u32::from_le_bytes(*entry.first_chunk().ok_or(BROKEN)?);
    let start = rom.len().checked_sub(from_end.try_into().map_err(|_| BROKEN)?).ok_or(BROKEN)?;
    let (header, rest) = rom[start..].split_first_chunk::<METADATA_HEADER>().ok_or(BROKEN)?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (length, version, count) = (word(4), word(8), word(12));
    if header[..4] != *b"ASEV" || version != METADATA_VERSION {
        return Err(BROKEN);
    }
    let count = usize::try_from(count).map_err(|_| BROKEN)?;
    let bytes = count.checked_mul(SECTION_BYTES).ok_or(BROKEN)?;
    // QEMU copies `length` bytes from the header's start and then reads `count` sections from the copy.
    let copied = usize::try_from(length).ok().and_then(|l| l.checked_sub(METADATA_HEADER)).ok_or(BROKEN)?;
    if bytes > copied {
        return Err(BROKEN);
    }
    let (sections, _) = rest.get(..bytes).ok_or(BROKEN)?.as_chunks::<SECTION_BYTES>();
    let word =
        |s: &[u8; SECTION_BYTES], at: usize| u32::from_le_bytes([s[at], s[at + 1], s[at + 2], s[at + 3]]);
    Ok(sections.iter().map(|s| (word(s, 0), word(s, 4), word(s, 8))).collect())
}
