//! The page against a processor that has everything, one that has the least, and the layout of the specification.

use super::*;
use alloc::vec::Vec;

const GENOA: Machine = Machine { signature: CpuSignature::new(25, 17, 0), vcpus: 1 };

/// A processor with every bit set in every feature register, and the XSAVE areas of Zen 4.
fn everything(leaf: u32, subleaf: u32) -> Registers {
    match (leaf, subleaf) {
        (0xD, 0) => [0x2E7, 0x988, 0x988, 0],
        (0xD, 1) => [0xF, 0, 0x1800, 0],
        (0xD, 2) => [0x100, 0x240, 0, 0],
        (0xD, 5) => [0x40, 0x340, 0, 0],
        (0xD, 6) => [0x200, 0x380, 0, 0],
        (0xD, 7) => [0x400, 0x580, 0, 0],
        (0xD, 9) => [0x8, 0x980, 0, 0],
        (0xD, _) => [0; 4],
        _ => [u32::MAX; 4],
    }
}

fn nothing(_: u32, _: u32) -> Registers {
    [0; 4]
}

#[test]
fn identity_and_sev_are_the_hypervisors_choice() {
    for raw in [everything, nothing] {
        let page = CpuidPage::build(GENOA, raw);
        let [eax, ebx, ecx, edx] = page.lookup(0, 0).unwrap();
        assert_eq!(eax, 0xD);
        let vendor: Vec<u8> = [ebx, edx, ecx].iter().flat_map(|r| r.to_le_bytes()).collect();
        assert_eq!(vendor, b"AuthenticAMD");
        assert_eq!(page.lookup(1, 0).unwrap()[0], 0x00A1_0F10);
        assert_eq!(page.lookup(0x8000_0001, 0).unwrap()[0], 0x00A1_0F10);
        assert_ne!(page.lookup(1, 0).unwrap()[2] & 1 << 31, 0, "hypervisor bit");
        // What an SNP guest of QEMU reads: `EAX=0000001a EBX=00000073` with cbitpos=51,reduced-phys-bits=1.
        assert_eq!(page.lookup(0x8000_001F, 0), Some([0x1A, 0x73, 0, 0]));
        let name: Vec<u8> = (0x8000_0002..=0x8000_0004)
            .flat_map(|leaf| page.lookup(leaf, 0).unwrap_or_default())
            .flat_map(u32::to_le_bytes)
            .collect();
        assert!(name.starts_with(b"AMD EPYC-Genoa Processor\0"));
    }
}

#[test]
fn what_an_snp_guest_must_not_see_is_masked() {
    let page = CpuidPage::build(GENOA, everything);
    let one = page.lookup(1, 0).unwrap();
    for (bit, name) in [(3, "MONITOR"), (5, "VMX"), (24, "TSC deadline"), (27, "OSXSAVE")] {
        assert_eq!(one[2] >> bit & 1, 0, "{name}");
    }
    assert_eq!(page.lookup(0x8000_0001, 0).unwrap()[2] >> 2 & 1, 0, "SVM");
    assert_eq!(page.lookup(0x8000_000A, 0), None, "SVM features");
    let seven = page.lookup(7, 0).unwrap();
    assert_eq!(seven[1] >> 1 & 1, 0, "TSC_ADJUST");
    assert_eq!(seven[3] & 0xFC00_0000, 0, "IBRS, STIBP, L1D flush, ARCH_CAPABILITIES, CORE_CAPABILITY, SSBD");
    assert_eq!(page.lookup(0x8000_0008, 0).unwrap()[1] >> 25 & 1, 0, "VIRT_SSBD");
    assert_eq!(page.lookup(0x4000_0001, 0), Some([1 << 7, 0, 0, 0]), "of KVM's services only the wake-up");
    for leaf in [0x2, 0x4, 0x8000_0007] {
        assert_eq!(page.lookup(leaf, 0), None, "{leaf:#x}");
    }
}

#[test]
fn instruction_sets_are_those_of_the_processor() {
    let all = CpuidPage::build(GENOA, everything);
    let none = CpuidPage::build(GENOA, nothing);
    let avx2 = |page: &CpuidPage| page.lookup(7, 0).is_some_and(|r| r[1] >> 5 & 1 == 1);
    assert!(avx2(&all) && !avx2(&none));
    assert_eq!(none.lookup(1, 0).unwrap()[2], 1 << 31 | 1 << 21);
    assert_eq!(none.lookup(0xD, 0), None);
    assert_eq!(none.lookup(0x8000_0000, 0).unwrap()[0], 0x8000_001F);
    assert_eq!(all.lookup(0x8000_0000, 0).unwrap()[0], 0x8000_0021);
}

#[test]
fn xsave_leaves_agree_with_each_other() {
    let page = CpuidPage::build(GENOA, everything);
    assert_eq!(page.lookup(0xD, 0), Some([0x2E7, 0x240, 0x988, 0]));
    assert_eq!(page.lookup(0xD, 1), Some([0xF, 0x240, 0, 0]));
    let (xcr0, states): (Vec<u64>, Vec<u32>) =
        page.entries().iter().filter(|e| e.leaf == 0xD).map(|e| (e.xcr0, e.subleaf)).unzip();
    assert_eq!(states, [0, 1, 2, 5, 6, 7, 9]);
    assert_eq!(xcr0, [1, 1, 0, 0, 0, 0, 0]);

    // No processor with SNP is without XSAVEC.
    let page = CpuidPage::build(GENOA, |leaf, subleaf| match (leaf, subleaf) {
        (0xD, 1) => [0b0101, 0, 0, 0],
        _ => everything(leaf, subleaf),
    });
    assert_eq!(page.lookup(0xD, 1), Some([0b0111, 0x240, 0, 0]));

    // Without AVX-512 its components are not in the area either.
    let page = CpuidPage::build(GENOA, |leaf, subleaf| match leaf {
        7 if subleaf == 0 => [0, 1 << 5, 0, 0],
        7 => [0; 4],
        _ => everything(leaf, subleaf),
    });
    assert_eq!(page.lookup(0xD, 0), Some([0x7, 0x240, 0x340, 0]));
    assert_eq!(page.lookup(0xD, 5), None);
}

#[test]
fn topology_counts_the_vcpus() {
    let one = CpuidPage::build(GENOA, everything);
    assert_eq!(one.lookup(1, 0).unwrap()[1], 0x800);
    assert_eq!(one.lookup(1, 0).unwrap()[3] >> 28 & 1, 0);
    assert_eq!(one.lookup(0x8000_0008, 0).unwrap()[2], 0);

    let five = CpuidPage::build(Machine { vcpus: 5, ..GENOA }, everything);
    assert_eq!(five.lookup(1, 0).unwrap()[1], 5 << 16 | 0x800);
    assert_eq!(five.lookup(1, 0).unwrap()[3] >> 28 & 1, 1);
    assert_eq!(five.lookup(0x8000_0008, 0).unwrap()[2], 3 << 12 | 4);
    assert_eq!(five.lookup(0xB, 0), Some([0, 1, 0x100, 0]));
    assert_eq!(five.lookup(0xB, 1), Some([3, 5, 0x201, 0]));
    assert_eq!(five.lookup(0xB, 2), Some([0, 0, 2, 0]));
    // L1 data, 32 KiB for each core, and L3 for all five.
    assert_eq!(five.lookup(0x8000_001D, 0).unwrap()[0], 1 << 8 | 1 << 5 | 1);
    assert_eq!(five.lookup(0x8000_001D, 3).unwrap()[0] >> 14, 4);
}

#[test]
fn the_page_has_the_layout_of_the_specification() {
    let page = CpuidPage::build(GENOA, everything);
    let bytes = page.to_page();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let count = word(0) as usize;
    assert_eq!(count, page.entries().len());
    assert!((1..=MAX_ENTRIES).contains(&count));
    assert_eq!(bytes[4..16], [0; 12]);
    for (index, entry) in page.entries().iter().enumerate() {
        let at = 16 + 48 * index;
        assert_eq!((word(at), word(at + 4)), (entry.leaf, entry.subleaf));
        assert_eq!(u64::from(word(at + 8)), entry.xcr0);
        assert_eq!(bytes[at + 12..at + 24], [0; 12], "XCR0_IN high, XSS_IN");
        assert_eq!(core::array::from_fn::<u32, 4, _>(|r| word(at + 24 + 4 * r)), entry.out);
        assert_eq!(bytes[at + 40..at + 48], [0; 8]);
    }
    assert!(bytes[16 + 48 * count..].iter().all(|b| *b == 0));
    let mut keys: Vec<_> = page.entries().iter().map(|e| (e.leaf, e.subleaf)).collect();
    keys.dedup();
    assert_eq!(keys.len(), count, "no leaf twice");
}
