use super::*;
use crate::cpu::CpuType;
use crate::digest::Launch;
use crate::samples::{kernel, manifest};
use crate::vmsa::RESET_VECTOR;

fn built() -> Vec<u8> {
    build(&kernel(&[0xf4]), &manifest()).unwrap()
}

fn parsed(file: &[u8]) -> IgvmFile {
    IgvmFile::new_from_binary(file, None).unwrap()
}

/// The file with other directives.
fn with(change: impl FnOnce(&mut Vec<IgvmDirectiveHeader>)) -> Result<Igvm, IgvmError> {
    let file = parsed(&built());
    let mut directives = file.directives().to_vec();
    change(&mut directives);
    let changed = IgvmFile::new(
        IgvmRevision::V1,
        file.platforms().to_vec(),
        file.initializations().to_vec(),
        directives,
    );
    let mut bytes = Vec::new();
    changed.unwrap().serialize(&mut bytes).unwrap();
    Igvm::parse(&bytes)
}

#[test]
fn what_is_built_reads_back_and_is_what_the_rom_prepares() {
    let file = built();
    let igvm = Igvm::parse(&file).unwrap();
    assert_eq!(igvm.manifest().unwrap(), manifest());
    assert_eq!(igvm.policy(), GuestPolicy::CLOISTER.0);

    // The same pages, with the same contents, as after the ROM's copies.
    let rom = crate::rom::build(&kernel(&[0xf4]), &manifest()).unwrap();
    let rom = crate::firmware::Firmware::parse(&rom).unwrap();
    let mut prepared: Vec<u64> = Vec::new();
    for section in rom.sections().unwrap() {
        prepared.extend((section.address..section.address + section.size).step_by(4096).map(u64::from));
    }
    prepared.sort_unstable();
    assert_eq!(igvm.pages().iter().map(|page| page.address).collect::<Vec<_>>(), prepared);
    for (from, to, length) in rom.copies().unwrap() {
        for (offset, byte) in rom.rom()[from..from + length].iter().enumerate() {
            let at = u64::from(to) + offset as u64;
            let page = igvm.pages().iter().find(|page| page.address == at & !0xfff).unwrap();
            let Contents::Data(data) = &page.contents else { panic!("{at:#x} is not data") };
            assert_eq!(data[(at & 0xfff) as usize], *byte, "{at:#x}");
        }
    }
    assert_eq!(built(), file, "the same input gives the same bytes");
}

/// Vectors of sev-snp-measure, see `tests/vectors/README.md`.
#[test]
fn digests_are_those_of_sev_snp_measure() {
    let file = include_bytes!("../../tests/vectors/igvm_image.bin");
    let launch = Launch::of_igvm(&Igvm::parse(file).unwrap());
    let mut lines = 0;
    for line in include_str!("../../tests/vectors/igvm_digests.txt").lines() {
        let [cpu, vcpus, digest] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let ours = launch.digest(vcpus.parse().unwrap(), cpu.parse().unwrap());
        assert_eq!(hex::encode(ours), digest, "{vcpus} {cpu}");
        lines += 1;
    }
    assert_eq!(lines, 15);
}

/// Microsoft's crate measures the file as it stands: its one VMSA, then the others as KVM would add them.
#[test]
fn the_igvm_crate_measures_the_same() {
    let file = parsed(&built());
    let launch = Launch::of_igvm(&Igvm::parse(&built()).unwrap());
    for cpu in CpuType::ALL {
        let mut directives = file.directives().to_vec();
        let mut vcpus = 1;
        for wanted in [1, 2, 4, 8, 64] {
            while vcpus < wanted {
                directives.push(vp_context(vcpus as u16, &vmsa::at_reset(RESET_VECTOR, cpu)));
                vcpus += 1;
            }
            let theirs =
                igvm::measurement::generate_snp_measurement(file.initializations(), &directives, SEV_SNP);
            assert_eq!(launch.digest(wanted, cpu), theirs.unwrap(), "{wanted} {cpu}");
        }
    }
}

#[test]
fn a_file_that_kvm_would_start_otherwise_is_refused() {
    let vmsa = vmsa::at_entry(0x20_0000, 0x10_3000);
    let mut other_cr0 = vmsa;
    other_cr0[0x158] = 0x11;
    let page = |gpa, data: &[u8]| IgvmDirectiveHeader::PageData {
        gpa,
        compatibility_mask: SEV_SNP,
        flags: IgvmPageDataFlags::new(),
        data_type: IgvmPageDataType::NORMAL,
        data: data.to_vec(),
    };
    let moved = |directive: IgvmDirectiveHeader| match directive {
        IgvmDirectiveHeader::SnpVpContext { compatibility_mask, vp_index, vmsa, .. } => {
            IgvmDirectiveHeader::SnpVpContext { gpa: 0x20_0000_0000, compatibility_mask, vp_index, vmsa }
        }
        other => other,
    };
    assert!(with(|_| ()).is_ok());
    // coconut's rules: one VMSA, last, at KVM's address, CR0 as KVM keeps it.
    assert_eq!(with(|d| d.push(vp_context(1, &vmsa))).unwrap_err(), IgvmError::Vcpu);
    assert_eq!(with(|d| d.rotate_right(1)).unwrap_err(), IgvmError::Vcpu);
    assert_eq!(
        with(|d| *d.last_mut().unwrap() = moved(d.last().unwrap().clone())).unwrap_err(),
        IgvmError::Vcpu
    );
    let error = with(|d| *d.last_mut().unwrap() = vp_context(0, &other_cr0)).unwrap_err();
    assert_eq!(error, IgvmError::State(vmsa::NotAsGiven::Cr0(0x11)));
    // No page without data, none twice, none that is not measured; one page of secrets.
    assert_eq!(with(|d| d.insert(0, page(0x70_0000, &[]))).unwrap_err(), IgvmError::Page(0x70_0000));
    let unmeasured = |d: &mut Vec<IgvmDirectiveHeader>| {
        if let IgvmDirectiveHeader::PageData { flags, .. } = &mut d[3] {
            flags.set_unmeasured(true);
        }
    };
    assert_eq!(with(unmeasured).unwrap_err(), IgvmError::Page(0x18_0000));
    assert_eq!(with(|d| drop(d.remove(1))).unwrap_err(), IgvmError::Special);
}

#[test]
fn e1_no_cut_and_no_flipped_byte_panics() {
    let file = built();
    for end in (0..file.len()).step_by(97) {
        assert!(Igvm::parse(&file[..end]).is_err(), "{end}");
    }
    for offset in 0..0x400 {
        let mut bad = file.clone();
        bad[offset] ^= 0xff;
        if let Ok(igvm) = Igvm::parse(&bad) {
            let _ = (igvm.manifest(), Launch::of_igvm(&igvm).digest(2, CpuType::Turin));
        }
    }
}
