//! The launch against `sev-snp-measure`, and the ways in which an image can be malformed.

use sha2::{Digest, Sha384};
use snp_model::{
    PAGE_BYTES,
    cpu_type::CpuSignature,
    launch::{
        Firmware, FirmwareError, Igvm, IgvmError, Image, PageKind, Region, initial_vmsa, launch_digest,
    },
};

const ROM: &[u8] = include_bytes!("vectors/three_pages.bin");
const DIGESTS: &str = include_str!("vectors/digests.txt");
const VMSAS: &str = include_str!("vectors/vmsa.txt");

/// The footer's trailer ends 32 bytes before the end; the metadata is 1 KiB before it.
const FOOTER_LENGTH: usize = ROM.len() - 32 - 18;
const METADATA: usize = ROM.len() - 0x400;

fn with(change: impl FnOnce(&mut Vec<u8>)) -> Result<(), FirmwareError> {
    let mut rom = ROM.to_vec();
    change(&mut rom);
    Firmware::parse(&rom).map(|_| ())
}

fn put(rom: &mut [u8], at: usize, value: u32) {
    rom[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn digests_are_those_of_sev_snp_measure() {
    let firmware = Firmware::parse(ROM).unwrap();
    let mut lines = 0;
    for line in DIGESTS.lines() {
        let [cpu_type, vcpus, digest] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let signature = CpuSignature::of_qemu_type(cpu_type).unwrap();
        assert_eq!(
            hex::encode(launch_digest(&Image::Rom(firmware.clone()), vcpus.parse().unwrap(), signature)),
            digest,
            "{line}"
        );
        lines += 1;
    }
    assert_eq!(lines, 9);
}

#[test]
fn vmsas_are_those_of_sev_snp_measure() {
    let firmware = Firmware::parse(ROM).unwrap();
    let genoa = CpuSignature::of_qemu_type("EPYC-Genoa").unwrap();
    let expected: Vec<&str> = VMSAS.lines().collect();
    for (vcpu, expected) in [(0, expected[0]), (1, expected[1]), (2, expected[1])] {
        let vmsa = initial_vmsa(&firmware, vcpu, genoa);
        assert_eq!(hex::encode(Sha384::digest(&vmsa[..])), expected, "vCPU {vcpu}");
    }
}

#[test]
fn regions_are_in_launch_order() {
    let firmware = Firmware::parse(ROM).unwrap();
    let region = |gpa, bytes, kind| Region { gpa, bytes, kind };
    assert_eq!(
        firmware.regions(),
        [
            region(0xFFFF_D000, 0x3000, PageKind::Normal),
            region(0x80_0000, 0x3000, PageKind::Zero),
            region(0x80_A000, 0x1000, PageKind::Secrets),
            region(0x80_B000, 0x1000, PageKind::Cpuid),
            region(0x80_C000, 0x1000, PageKind::Zero),
            region(0x81_0000, 0x1_0000, PageKind::Zero),
            region(0x82_0000, 0x1000, PageKind::Zero),
        ]
    );
    assert_eq!(firmware.entry(0), 0xFFFF_FFF0);
    assert_eq!(firmware.entry(1), 0xFFFF_D120);
    assert_eq!(firmware.check_memory(9), Ok(()));
    assert_eq!(firmware.check_memory(8), Err(FirmwareError::OutsideMemory { gpa: 0x80_0000 }));
}

#[test]
fn every_bit_of_the_rom_is_in_the_digest() {
    let genoa = CpuSignature::of_qemu_type("EPYC-Genoa").unwrap();
    let original = launch_digest(&Image::parse(ROM).unwrap(), 1, genoa);
    for at in [0, PAGE_BYTES, 2 * PAGE_BYTES - 1, ROM.len() - 1] {
        let mut rom = ROM.to_vec();
        rom[at] ^= 1;
        assert_ne!(launch_digest(&Image::parse(&rom).unwrap(), 1, genoa), original, "{at:#x}");
    }
    assert_ne!(launch_digest(&Image::parse(ROM).unwrap(), 2, genoa), original);
}

#[test]
fn a_rom_without_tables_is_refused() {
    assert_eq!(Firmware::parse(&[]).unwrap_err(), FirmwareError::Size);
    assert_eq!(Firmware::parse(&ROM[1..]).unwrap_err(), FirmwareError::Size);
    assert_eq!(Firmware::parse(&[0; PAGE_BYTES]).unwrap_err(), FirmwareError::NoTable);
    assert_eq!(with(|rom| rom[FOOTER_LENGTH + 2] ^= 1), Err(FirmwareError::NoTable));
    // A footer alone; one shorter than itself; one longer than the ROM.
    for (length, error) in [
        (18_u16, FirmwareError::NoResetBlock),
        (17, FirmwareError::BrokenTable),
        (0xFFFF, FirmwareError::BrokenTable),
    ] {
        let cut = |rom: &mut Vec<u8>| rom[FOOTER_LENGTH..][..2].copy_from_slice(&length.to_le_bytes());
        assert_eq!(with(cut), Err(error), "{length}");
    }
}

#[test]
fn an_entry_of_impossible_length_is_refused() {
    // The reset block is the last entry: 4 bytes of data, length, GUID.
    let length = FOOTER_LENGTH - 18;
    assert_eq!(u16::from_le_bytes([ROM[length], ROM[length + 1]]), 22);
    for (bad, error) in
        [(0, FirmwareError::BrokenTable), (17, FirmwareError::BrokenTable), (200, FirmwareError::BrokenTable)]
    {
        assert_eq!(with(|rom| rom[length] = bad), Err(error), "{bad}");
    }
    // A zero address, as QEMU refuses it.
    assert_eq!(with(|rom| put(rom, length - 4, 0)), Err(FirmwareError::NoResetBlock));
    // The metadata entry is before it; without it there is nothing to launch.
    assert_eq!(with(|rom| rom[length - 5] ^= 1), Err(FirmwareError::NoMetadata));
}

#[test]
fn malformed_metadata_is_refused() {
    let broken = Err(FirmwareError::BrokenMetadata);
    assert_eq!(with(|rom| rom[METADATA] = b'B'), broken);
    for (field, value) in
        [(4, 0), (4, 15), (4, 16 + 12 * 6 - 1), (8, 2), (12, 7), (12, 0x1000_0000), (12, u32::MAX)]
    {
        assert_eq!(with(|rom| put(rom, METADATA + field, value)), broken, "{field} {value:#x}");
    }
    let distance = FOOTER_LENGTH - 18 - 4 - 18 - 4;
    assert_eq!(ROM[distance..distance + 4], 0x400_u32.to_le_bytes());
    for value in [0, 15, ROM.len() as u32 + 1, u32::MAX] {
        assert_eq!(with(|rom| put(rom, distance, value)), broken, "{value:#x}");
    }
}

#[test]
fn misplaced_sections_are_refused() {
    let section = METADATA + 16;
    for (field, value, error) in [
        (0, 0x80_0800, FirmwareError::Placement { gpa: 0x80_0800 }),
        (4, 0, FirmwareError::Placement { gpa: 0x80_0000 }),
        (4, 0x800, FirmwareError::Placement { gpa: 0x80_0000 }),
        (8, 9, FirmwareError::SectionType { kind: 9 }),
        // Into the secrets page, and into the ROM itself.
        (4, 0xB000, FirmwareError::Placement { gpa: 0x80_A000 }),
        (0, 0xFFFF_F000, FirmwareError::Placement { gpa: 0xFFFF_F000 }),
        (0, 0xFFFF_C000, FirmwareError::Placement { gpa: 0xFFFF_C000 }),
    ] {
        assert_eq!(with(|rom| put(rom, section + field, value)), Err(error), "{field} {value:#x}");
    }
    // Secrets and CPUID are one page each.
    assert_eq!(
        with(|rom| {
            put(rom, section + 12, 0x90_0000);
            put(rom, section + 16, 0x2000);
        }),
        Err(FirmwareError::Placement { gpa: 0x90_0000 })
    );
}

proptest::proptest! {
    #[test]
    fn no_rom_panics(changes in proptest::collection::vec((0x2B00_usize..0x3000, 0_u8..), 1..40)) {
        let _ = with(|rom| for (at, byte) in changes { rom[at] = byte });
    }
}

/// The builder's vectors, which no code of this project made; see `image-builder/tests/vectors/README.md`.
const IGVM: &[u8] = include_bytes!("../../../image-builder/tests/vectors/igvm_image.bin");
const IGVM_DIGESTS: &str = include_str!("../../../image-builder/tests/vectors/igvm_digests.txt");

#[test]
fn digests_of_an_igvm_file_are_those_of_sev_snp_measure() {
    let image = Image::parse(IGVM).unwrap();
    assert_eq!((image.rom_bytes(), image.policy()), (0, Some(0x3_0000)));
    let mut lines = 0;
    for line in IGVM_DIGESTS.lines() {
        let [cpu_type, vcpus, digest] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let signature = CpuSignature::of_qemu_type(cpu_type).unwrap();
        assert_eq!(hex::encode(launch_digest(&image, vcpus.parse().unwrap(), signature)), digest, "{line}");
        lines += 1;
    }
    assert_eq!(lines, 15);
    assert_eq!(Igvm::parse(IGVM).unwrap().check_memory(0), Err(IgvmError::OutsideMemory { gpa: 0x5000 }));
}

/// A file with a change, and the checksum that goes with it.
fn igvm_with(change: impl FnOnce(&mut Vec<u8>)) -> Result<(), IgvmError> {
    let mut file = IGVM.to_vec();
    change(&mut file);
    let end = file.len().min(24 + word(&file, 12));
    file[20..24].fill(0);
    let checksum = crc32fast::hash(&file[..end]);
    put(&mut file, 20, checksum);
    Igvm::parse(&file).map(|_| ())
}

fn word(file: &[u8], at: usize) -> usize {
    u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize
}

#[test]
fn malformed_igvm_files_are_refused() {
    // Headers, each with 8 bytes before it: platform (16 bytes), policy (16), four pages (24), context (24, 4 of padding).
    const PLATFORM: usize = 24 + 8;
    const POLICY: usize = PLATFORM + 24;
    const PAGES: usize = POLICY + 24;
    const CONTEXT: usize = PAGES + 4 * 32;
    let vmsa = word(IGVM, CONTEXT + 12);
    assert_eq!(igvm_with(|_| ()), Ok(()));
    let mut unsigned = IGVM.to_vec();
    unsigned[PAGES] ^= 1;
    assert_eq!(Igvm::parse(&unsigned).unwrap_err(), IgvmError::Header);
    assert_eq!(Igvm::parse(&IGVM[..IGVM.len() - 1]).unwrap_err(), IgvmError::Header);
    for (at, value, error) in [
        (4, 2, IgvmError::Header),
        (8, 8, IgvmError::Header),
        (PLATFORM + 4, 3 << 8, IgvmError::Platform),
        (PLATFORM, 2, IgvmError::Platform),
        (POLICY + 8, 2, IgvmError::Policy),
        (POLICY - 8, 0x303, IgvmError::Directive { kind: 0x303 }),
        (POLICY - 4, 0x1000, IgvmError::Broken),
        (PAGES, 0x5004, IgvmError::Page { gpa: 0x5004 }),
        (PAGES, 0x8000, IgvmError::Page { gpa: 0x8000 }),
        (PAGES + 16, 1, IgvmError::Page { gpa: 0x5000 }),
        (PAGES + 20, 3, IgvmError::Page { gpa: 0x5000 }),
        (PAGES + 32 + 12, 0, IgvmError::Page { gpa: 0x8000 }),
        (PAGES + 32 + 12, IGVM.len() as u32 - 4095, IgvmError::Page { gpa: 0x8000 }),
        (CONTEXT, 0x1000, IgvmError::Context),
        (CONTEXT + 16, 1, IgvmError::Context),
        (CONTEXT - 8, 0x101, IgvmError::Policy),
        (vmsa + 0xC8, 1 << 16, IgvmError::Field { at: 0xCA }),
        (vmsa + 0x3B0, 0x21, IgvmError::Field { at: 0x3B0 }),
        (vmsa + 0xFFC, 1, IgvmError::Field { at: 0xFFC }),
    ] {
        assert_eq!(igvm_with(|file| put(file, at, value)), Err(error), "{at:#x} {value:#x}");
    }
}

proptest::proptest! {
    #[test]
    fn no_igvm_file_panics(changes in proptest::collection::vec((0_usize..0x200, 0_u8..), 1..40)) {
        let _ = igvm_with(|file| for (at, byte) in changes { file[at] = byte });
    }
}
