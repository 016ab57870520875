//! Builds the firmware image: the segments, then one page with tables and code that ends at 4 GiB.
//!
//! | place | what |
//! |---|---|
//! | start | zeros, up to a whole number of 64 KiB (QEMU's `-bios` takes nothing else) |
//! | then | the kernel's segments and the manifest |
//! | last page | copy table, GDT, boot code, SNP metadata, list of entries |
//! | last 16 bytes | reset vector |

use crate::elf::{ElfError, Kernel, Segment};
use crate::firmware::{
    COPY_TABLE, ENTRY_HEADER, FOOTER, Guid, LIST_END, MAX_ROM, METADATA_SIGNATURE, METADATA_VERSION,
    RESET_BLOCK, SNP_METADATA, Section, SectionKind,
};
use crate::layout::{CPUID_PAGE, ENTRY_STACK_PAGE, KERNEL, MANIFEST, PAGE, SECRETS_PAGE};
use crate::reset::{boot_code, reset_vector};
use attestation::manifest::{MANIFEST_MAX_BYTES, Manifest};

/// QEMU's `-bios` refuses other multiples (`x86_bios_rom_init`).
const ROM_GRANULE: usize = 64 << 10;
/// Segments begin at multiples of this, so that the boot code copies aligned words.
const ALIGNMENT: usize = 16;

/// Why no ROM can be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RomError {
    /// The kernel's file is unusable.
    #[error("the kernel cannot be placed: {0}")]
    Kernel(#[from] ElfError),
    /// The manifest does not fit its region.
    #[error(
        "the manifest takes {0} bytes, but there is room for {MANIFEST_MAX_BYTES}; shorten its instructions or its template"
    )]
    Manifest(usize),
    /// The kernel is too large for any ROM.
    #[error("the ROM would have {0} bytes, but QEMU takes at most {MAX_ROM}; make the kernel smaller")]
    TooLarge(usize),
    /// The kernel has so many segments that the tables do not fit their page.
    #[error(
        "the kernel has {0} segments, which is more than the ROM's copy table holds; check its linker script"
    )]
    TooManySegments(usize),
}

/// The ROM that starts `kernel` (an ELF file) with `manifest`.
pub fn build(kernel: &[u8], manifest: &Manifest) -> Result<Vec<u8>, RomError> {
    let kernel = Kernel::parse(kernel)?;
    let manifest = with_length(&manifest.encode());
    if manifest.len() > MANIFEST_MAX_BYTES {
        return Err(RomError::Manifest(manifest.len()));
    }

    let mut copied: Vec<Segment> = kernel.segments.iter().filter(|s| !s.bytes.is_empty()).copied().collect();
    copied.push(Segment { address: MANIFEST.start, bytes: &manifest, size: MANIFEST.end - MANIFEST.start });
    let body_bytes: usize = copied.iter().map(|s| s.bytes.len().next_multiple_of(ALIGNMENT)).sum();
    let rom_bytes = (body_bytes + PAGE as usize).next_multiple_of(ROM_GRANULE);
    if rom_bytes > MAX_ROM {
        return Err(RomError::TooLarge(rom_bytes));
    }

    // The segments end where the last page begins, and the ROM ends at 4 GiB.
    let last_page = 0u32.wrapping_sub(PAGE);
    let body = last_page - body_bytes as u32;
    let mut rom = vec![0; rom_bytes - body_bytes - PAGE as usize];
    let mut copy_table = Vec::new();
    for segment in &copied {
        let from = body + (rom.len() - (rom_bytes - body_bytes - PAGE as usize)) as u32;
        let length = segment.bytes.len().next_multiple_of(size_of::<u32>()) as u32;
        copy_table.extend([from, segment.address, length].map(u32::to_le_bytes).as_flattened());
        rom.extend_from_slice(segment.bytes);
        rom.resize(rom.len().next_multiple_of(ALIGNMENT), 0);
    }
    copy_table.extend([0; 12]);

    let page = LastPage { copy_table: &copy_table, entry: kernel.entry, sections: &sections(&kernel) };
    rom.extend(page.build(last_page).ok_or(RomError::TooManySegments(kernel.segments.len()))?);
    Ok(rom)
}

/// What the AMD-SP prepares before the first instruction, in the order in which it is measured.
fn sections(kernel: &Kernel) -> [Section; 5] {
    let memory = |range: std::ops::Range<u32>| Section {
        address: range.start,
        size: range.end - range.start,
        kind: SectionKind::Memory,
    };
    [
        memory(ENTRY_STACK_PAGE..ENTRY_STACK_PAGE + PAGE),
        memory(MANIFEST),
        memory(KERNEL.start..kernel.end()),
        Section { address: SECRETS_PAGE, size: PAGE, kind: SectionKind::Secrets },
        Section { address: CPUID_PAGE, size: PAGE, kind: SectionKind::Cpuid },
    ]
}

/// The page that ends at 4 GiB.
struct LastPage<'a> {
    copy_table: &'a [u8],
    entry: u32,
    sections: &'a [Section],
}

impl LastPage<'_> {
    /// Its bytes, or `None` if they would be more than a page.
    fn build(&self, address: u32) -> Option<Vec<u8>> {
        let mut page = self.copy_table.to_vec();
        page.resize(page.len().next_multiple_of(ALIGNMENT), 0);
        let code = boot_code(address + page.len() as u32, address, self.entry);
        page.extend(&code.bytes);
        page.resize(page.len().next_multiple_of(ALIGNMENT), 0);

        let from_end = |offset: usize| PAGE - offset as u32;
        let metadata = from_end(page.len());
        page.extend(metadata_bytes(self.sections));

        // Entries that are read first stand last.
        let mut list = Vec::new();
        list_entry(&mut list, COPY_TABLE, from_end(0));
        list_entry(&mut list, SNP_METADATA, metadata);
        list_entry(&mut list, RESET_BLOCK, code.parked);
        let whole = (list.len() + ENTRY_HEADER) as u16;
        list.extend(whole.to_le_bytes());
        list.extend(FOOTER.0);

        let room = (PAGE as usize - LIST_END).checked_sub(page.len() + list.len())?;
        page.resize(page.len() + room, 0);
        page.extend(list);
        page.resize(PAGE as usize - 16, 0);
        page.extend(reset_vector(code.start16));
        Some(page)
    }
}

fn list_entry(list: &mut Vec<u8>, guid: Guid, data: u32) {
    list.extend(data.to_le_bytes());
    list.extend(((size_of::<u32>() + ENTRY_HEADER) as u16).to_le_bytes());
    list.extend(guid.0);
}

/// QEMU `include/hw/i386/pc.h`, `OvmfSevMetadata`.
fn metadata_bytes(sections: &[Section]) -> Vec<u8> {
    let size = 16 + 12 * sections.len() as u32;
    let mut bytes = METADATA_SIGNATURE.to_vec();
    bytes.extend([size, METADATA_VERSION, sections.len() as u32].map(u32::to_le_bytes).as_flattened());
    for section in sections {
        bytes.extend(
            [section.address, section.size, section.kind as u32].map(u32::to_le_bytes).as_flattened(),
        );
    }
    bytes
}

fn with_length(encoded: &[u8]) -> Vec<u8> {
    let mut bytes = (encoded.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(encoded);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::firmware::{Firmware, FirmwareError};
    use crate::samples::{kernel, manifest};

    #[test]
    fn what_is_built_reads_back() {
        let code = [0x90; 4095];
        let rom = build(&kernel(&code), &manifest()).unwrap();
        assert_eq!(rom.len(), 64 << 10);
        let firmware = Firmware::parse(&rom).unwrap();
        assert_eq!(firmware.address(), 0xffff_0000);
        assert_eq!(firmware.manifest().unwrap(), manifest());
        let [(from, to, length), _] = firmware.copies().unwrap()[..] else { panic!() };
        assert_eq!((to, length), (0x20_0000, 4096));
        assert_eq!(rom[from..from + 4095], code);
        let described: Vec<_> =
            firmware.sections().unwrap().iter().map(|s| (s.address, s.size, s.kind as u32)).collect();
        assert_eq!(
            described,
            [
                (0x10_2000, 0x1000, 1),
                (0x18_0000, 0x1_0000, 1),
                (0x20_0000, 0x4000, 1),
                (0x10_1000, 0x1000, 2),
                (0x10_0000, 0x1000, 3),
            ]
        );
        let parked = firmware.ap_start().unwrap();
        assert_eq!(rom[(u64::from(parked) - firmware.address()) as usize..][..2], [0xeb, 0xfe]);
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let kernel = kernel(&[0xf4]);
        assert_eq!(build(&kernel, &manifest()), build(&kernel, &manifest()));
    }

    /// Plain QEMU starts a ROM as SNP does, but for encryption. Needs `qemu-system-x86_64`.
    #[test]
    fn a_rom_enters_the_kernel_with_stack_and_manifest() {
        let length = manifest().encode().len() as u32;
        let mut code = vec![0x68]; //                    push length
        code.extend(length.to_le_bytes());
        code.extend([0x5b]); //                          pop ebx
        code.extend([0x3b, 0x1d]); //                    cmp ebx, [MANIFEST]
        code.extend(MANIFEST.start.to_le_bytes());
        code.extend([0x75, 0x04]); //                    jne stay
        code.extend([0xb0, 0x10]); //                    mov al, 0x10
        code.extend([0xe6, 0xf4]); //                    out 0xf4, al
        code.extend([0xeb, 0xfe]); //               stay: jmp stay
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cloister.rom");
        std::fs::write(&file, build(&kernel(&code), &manifest()).unwrap()).unwrap();
        let status = std::process::Command::new("timeout")
            .args([
                "60",
                "qemu-system-x86_64",
                "-accel",
                "tcg",
                "-machine",
                "q35",
                "-nodefaults",
                "-display",
                "none",
            ])
            .args(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-bios"])
            .arg(&file)
            .status()
            .unwrap();
        assert_eq!(
            status.code(),
            Some(0x10 << 1 | 1),
            "QEMU must be installed (apt install qemu-system-x86)"
        );
    }

    #[test]
    fn a_manifest_or_kernel_that_does_not_fit_is_refused() {
        let mut long = manifest();
        long.template.stop = vec![0; MANIFEST_MAX_BYTES / 4];
        assert!(matches!(build(&kernel(&[0xf4]), &long), Err(RomError::Manifest(_))));
        assert!(matches!(build(b"#!/bin/sh", &manifest()), Err(RomError::Kernel(_))));
    }

    #[test]
    fn e1_no_cut_and_no_flipped_byte_of_the_tables_panics() {
        let rom = build(&kernel(&[0xf4]), &manifest()).unwrap();
        assert_eq!(Firmware::parse(&[]).unwrap_err(), FirmwareError::Length(0));
        assert_eq!(Firmware::parse(&rom[1..]).unwrap_err(), FirmwareError::Length(rom.len() - 1));
        assert_eq!(Firmware::parse(&rom[..PAGE as usize]).unwrap_err(), FirmwareError::NoTable);
        for offset in rom.len() - PAGE as usize..rom.len() {
            for value in [0x00, 0x01, 0x7f, 0xff] {
                let mut bad = rom.clone();
                bad[offset] = value;
                if let Ok(firmware) = Firmware::parse(&bad) {
                    let _ =
                        (firmware.sections(), firmware.copies(), firmware.manifest(), firmware.ap_start());
                }
            }
        }
    }
}
