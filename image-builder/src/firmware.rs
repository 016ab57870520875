//! The tables by which QEMU and this project's tools read a ROM, and a reader for them.
//!
//! QEMU finds them as it does in OVMF (`hw/i386/pc_sysfw_ovmf.c`): a list of entries that grows downwards from 32 bytes
//! below the end of the ROM, each entry its data, its size (`u16`, everything included) and a GUID. The first one
//! from the end, the footer, gives the size of the whole list.

use crate::layout::{MANIFEST, PAGE};
use attestation::manifest::Manifest;

/// Footer of the list of entries.
pub const FOOTER: Guid = Guid::new(0x96b5_82de, 0x1fb2, 0x45f7, 0xbaea_a366_c55a_082d);
/// Entry: how far the SNP metadata is from the end of the ROM.
pub const SNP_METADATA: Guid = Guid::new(0xdc88_6566, 0x984a, 0x4798, 0xa75e_5585_a7bf_67cc);
/// Entry: where KVM lets the vCPUs after the first one start.
pub const RESET_BLOCK: Guid = Guid::new(0x00f7_71de, 0x1a7e, 0x4fcb, 0x890e_68c7_7e2f_b44e);
/// Entry of this project: how far the copy table is from the end of the ROM.
pub const COPY_TABLE: Guid = Guid::new(0x5bd6_3c6f, 0x0b5e, 0x4f0e, 0x9d0a_3e1f_7a54_c2e8);
/// The list ends so far from the end of the ROM.
pub const LIST_END: usize = 0x20;
/// Size and GUID of an entry.
pub const ENTRY_HEADER: usize = 2 + 16;
/// QEMU takes no larger firmware by default (`max-fw-size`).
pub const MAX_ROM: usize = 8 << 20;
/// Version of the SNP metadata.
pub const METADATA_VERSION: u32 = 1;
/// First bytes of the SNP metadata.
pub const METADATA_SIGNATURE: [u8; 4] = *b"ASEV";

/// A GUID in the byte order that UEFI stores it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    const fn new(a: u32, b: u16, c: u16, d: u64) -> Self {
        let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
        Self([a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]])
    }
}

/// What the AMD-SP does with a range of pages at launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SectionKind {
    /// Made private, validated and measured as zeros.
    Memory = 1,
    /// Gets the guest's secrets.
    Secrets = 2,
    /// Gets the CPUID values that the AMD-SP has checked.
    Cpuid = 3,
}

/// One entry of the SNP metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Guest-physical address, page-aligned.
    pub address: u32,
    /// Bytes, whole pages.
    pub size: u32,
    /// What happens to them.
    pub kind: SectionKind,
}

/// Why a file is not a ROM that can be measured.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareError {
    /// Its length cannot be a ROM's.
    #[error(
        "it has {0} bytes, but a ROM has whole pages of 4096 bytes, at least one and at most {MAX_ROM} bytes"
    )]
    Length(usize),
    /// It has no list of entries.
    #[error("it has no firmware table at its end; give the `cloister.rom` that `cloister-image build` wrote")]
    NoTable,
    /// The list or what it points to is broken.
    #[error("its {0} is malformed; build the ROM again")]
    Malformed(&'static str),
    /// Something that this project's ROMs have is missing.
    #[error(
        "it has no {0}, so it is not an image for SEV-SNP; give the `cloister.rom` that `cloister-image build` wrote"
    )]
    Missing(&'static str),
}

/// A ROM, read through its tables.
#[derive(Debug)]
pub struct Firmware<'a> {
    rom: &'a [u8],
    list: &'a [u8],
}

impl<'a> Firmware<'a> {
    /// Checks the length and finds the list of entries.
    pub fn parse(rom: &'a [u8]) -> Result<Self, FirmwareError> {
        if rom.is_empty() || rom.len() > MAX_ROM || !rom.len().is_multiple_of(PAGE as usize) {
            return Err(FirmwareError::Length(rom.len()));
        }
        let above = &rom[..rom.len() - LIST_END];
        let (above, size, guid) = split_entry(above).ok_or(FirmwareError::NoTable)?;
        if guid != FOOTER {
            return Err(FirmwareError::NoTable);
        }
        let start = (above.len() + ENTRY_HEADER).checked_sub(size);
        let list =
            start.and_then(|start| above.get(start..)).ok_or(FirmwareError::Malformed("firmware table"))?;
        Ok(Self { rom, list })
    }

    /// The bytes of the ROM.
    pub fn rom(&self) -> &'a [u8] {
        self.rom
    }

    /// Guest-physical address of the ROM's first byte; it ends at 4 GiB.
    pub fn address(&self) -> u64 {
        (1 << 32) - self.rom.len() as u64
    }

    /// The `u32` that an entry holds.
    fn entry(&self, wanted: Guid, name: &'static str) -> Result<u32, FirmwareError> {
        let malformed = FirmwareError::Malformed("firmware table");
        let mut list = self.list;
        while !list.is_empty() {
            let Some((above, size, guid)) = split_entry(list) else { return Err(malformed) };
            let start = (above.len() + ENTRY_HEADER).checked_sub(size);
            let Some(data) = start.and_then(|start| above.get(start..)) else { return Err(malformed) };
            if guid == wanted {
                return data.try_into().map(u32::from_le_bytes).map_err(|_| malformed);
            }
            list = &above[..above.len() - data.len()];
        }
        Err(FirmwareError::Missing(name))
    }

    fn tail(&self, distance: u32, name: &'static str) -> Result<&'a [u8], FirmwareError> {
        let start = self.rom.len().checked_sub(distance as usize).ok_or(FirmwareError::Malformed(name))?;
        Ok(&self.rom[start..])
    }

    /// Where KVM lets the vCPUs after the first one start.
    pub fn ap_start(&self) -> Result<u32, FirmwareError> {
        self.entry(RESET_BLOCK, "SEV-ES reset block")
    }

    /// The sections of the SNP metadata, in their order.
    pub fn sections(&self) -> Result<Vec<Section>, FirmwareError> {
        const NAME: &str = "SNP metadata";
        let malformed = FirmwareError::Malformed(NAME);
        let metadata = self.tail(self.entry(SNP_METADATA, NAME)?, NAME)?;
        let (header, rest) = metadata.split_first_chunk::<16>().ok_or(malformed)?;
        let [signature, size, version, count] = words(header);
        let whole = 16 + u64::from(count) * 12;
        let right = signature.to_le_bytes() == METADATA_SIGNATURE
            && version == METADATA_VERSION
            && u64::from(size) == whole;
        let entries =
            rest.get(..whole as usize - 16).filter(|_| right).ok_or(FirmwareError::Malformed(NAME))?;
        entries
            .as_chunks::<12>()
            .0
            .iter()
            .map(|entry| Section::read(entry).ok_or(FirmwareError::Malformed(NAME)))
            .collect()
    }

    /// What the boot code copies: (offset in the ROM, guest-physical address, bytes).
    pub fn copies(&self) -> Result<Vec<(usize, u32, usize)>, FirmwareError> {
        const NAME: &str = "copy table";
        let table = self.tail(self.entry(COPY_TABLE, NAME)?, NAME)?;
        let mut copies = Vec::new();
        for entry in table.as_chunks::<12>().0 {
            let [from, to, length] = words(entry);
            if length == 0 {
                return Ok(copies);
            }
            let offset = u64::from(from).checked_sub(self.address());
            let offset = offset.filter(|offset| offset + u64::from(length) <= self.rom.len() as u64);
            copies.push((offset.ok_or(FirmwareError::Malformed(NAME))? as usize, to, length as usize));
        }
        Err(FirmwareError::Malformed(NAME))
    }

    /// The measured manifest inside the ROM.
    pub fn manifest(&self) -> Result<Manifest, FirmwareError> {
        let copies = self.copies()?;
        let found = copies.iter().find(|(_, to, _)| *to == MANIFEST.start);
        let (offset, _, length) = *found.ok_or(FirmwareError::Missing("manifest"))?;
        let malformed = || FirmwareError::Malformed("manifest");
        let (prefix, rest) =
            self.rom[offset..offset + length].split_first_chunk::<4>().ok_or_else(malformed)?;
        let bytes = rest.get(..u32::from_le_bytes(*prefix) as usize).ok_or_else(malformed)?;
        Manifest::decode(bytes).map_err(|_| malformed())
    }
}

impl Section {
    fn read(entry: &[u8; 12]) -> Option<Self> {
        let [address, size, kind] = words(entry);
        let kind = [SectionKind::Memory, SectionKind::Secrets, SectionKind::Cpuid]
            .into_iter()
            .find(|known| *known as u32 == kind)?;
        let one_page = kind == SectionKind::Memory || size == PAGE;
        let whole = address.is_multiple_of(PAGE) && size.is_multiple_of(PAGE) && size > 0;
        (one_page && whole && address.checked_add(size).is_some()).then_some(Self { address, size, kind })
    }
}

/// The last entry's size and GUID, and everything above them.
fn split_entry(list: &[u8]) -> Option<(&[u8], usize, Guid)> {
    let (above, guid) = list.split_last_chunk::<16>()?;
    let (above, size) = above.split_last_chunk::<2>()?;
    Some((above, u16::from_le_bytes(*size).into(), Guid(*guid)))
}

fn words<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u32; WORDS] {
    let (words, _) = bytes.as_chunks::<4>();
    std::array::from_fn(|i| u32::from_le_bytes(words[i]))
}
