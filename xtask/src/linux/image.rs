//! A bzImage as an IGVM file: what firmware would have left in memory when it enters a kernel of an SNP guest.
//!
//! Sources: Linux `Documentation/arch/x86/boot.rst` (64-bit boot protocol, zero page), `arch/x86/include/asm/sev.h`
//! (`struct cc_blob_sev_info`), `arch/x86/include/uapi/asm/bootparam.h` (`SETUP_CC_BLOB`).

use super::loader::{self, Places};
use anyhow::{Context, Result, ensure};
use igvm::snp_defs::SevVmsa;
use igvm::{IgvmDirectiveHeader, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader, IgvmRevision};
use igvm_defs::{IGVM_VHS_SUPPORTED_PLATFORM, IgvmPageDataFlags, IgvmPageDataType, IgvmPlatformType};
use image_builder::vmsa::{self, VMSA_ADDRESS};
use zerocopy::FromBytes;

const PAGE: u32 = 4096;
const LOADER: u32 = 0x1_0000;
const BOOT_PARAMS: u32 = 0x1_1000;
/// Command line, then the setup data.
const STRINGS: u32 = 0x1_2000;
const SETUP_DATA: u32 = STRINGS + 0x800;
const CC_BLOB: u32 = STRINGS + 0xc00;
/// Where no ACPI tables begin.
const NO_ACPI: u32 = STRINGS + 0xf00;
const SECRETS: u32 = 0x1_3000;
const CPUID: u32 = 0x1_4000;
const PAGE_TABLES: u32 = 0x1_5000;
/// Behind the root, one table below it, four directories, and the loader's GHCB.
const LAUNCH_END: u32 = PAGE_TABLES + 7 * PAGE;
const _: () = assert!(loader::GHCB == PAGE_TABLES + 6 * PAGE);
const STACK: u32 = 0x9_0000;
/// The VGA window of a PC, which is no memory.
const VGA: std::ops::Range<u32> = 0xa_0000..0xc_0000;
/// Where RAM goes on after the BIOS area.
const HIGH: u32 = 0x10_0000;
/// `LOAD_PHYSICAL_ADDR` of a kernel with the usual configuration.
const KERNEL: u32 = 0x100_0000;
/// The one platform of the file.
const SEV_SNP: u32 = 1;
const C_BIT: u64 = 1 << 51;

/// The IGVM file that starts `kernel` with `command_line` in a guest with so much RAM.
pub fn build(kernel: &[u8], command_line: &str, memory_mib: u32, policy: u64) -> Result<Vec<u8>> {
    let setup_sectors = usize::from(*kernel.get(0x1f1).context("this is no bzImage")?);
    let code = kernel.get((setup_sectors + 1) * 512..).context("the bzImage is cut short")?;
    ensure!(kernel.get(0x202..0x206) == Some(b"HdrS"), "this is no bzImage");
    ensure!(command_line.len() < 0x7ff, "the command line is too long");
    let memory = memory_mib << 20;
    let kernel_end = (KERNEL + code.len() as u32).next_multiple_of(PAGE);

    let mut pages = Pages::default();
    let places = Places {
        at: LOADER,
        page_tables: PAGE_TABLES,
        stack: STACK,
        boot_params: BOOT_PARAMS,
        // The 64-bit entry point is 0x200 bytes behind the 32-bit one.
        kernel: KERNEL + 0x200,
    };
    // The BIOS area too: without EFI, Linux looks for tables of all kinds in it.
    let accepted = [(0, LOADER), (LAUNCH_END, VGA.start), (VGA.end, KERNEL), (kernel_end, memory)];
    pages.data(LOADER, &loader::code(&places, &accepted));
    pages.data(BOOT_PARAMS, &boot_params(kernel, memory));
    pages.data(STRINGS, &strings(command_line));
    pages.special(SECRETS, IgvmPageDataType::SECRETS);
    pages.special(CPUID, IgvmPageDataType::CPUID_DATA);
    pages.data(PAGE_TABLES, &page_tables());
    pages.data(KERNEL, code);
    pages.finish(policy)
}

/// The zero page: the kernel's own header, and what a boot loader adds.
fn boot_params(kernel: &[u8], memory: u32) -> Vec<u8> {
    let mut page = vec![0; PAGE as usize];
    let header_end = 0x202 + usize::from(kernel[0x201]);
    page[0x1f1..header_end].copy_from_slice(&kernel[0x1f1..header_end]);
    let mut put = |offset: usize, bytes: &[u8]| page[offset..offset + bytes.len()].copy_from_slice(bytes);
    // acpi_rsdp_addr: without one, the kernel would look for it in a BIOS area that no firmware has accepted.
    put(0x070, &u64::from(NO_ACPI).to_le_bytes());
    put(0x210, &[0xff]); // type_of_loader
    put(0x211, &[kernel[0x211] | 1]); // LOADED_HIGH
    put(0x214, &KERNEL.to_le_bytes()); // code32_start
    put(0x228, &STRINGS.to_le_bytes()); // cmd_line_ptr
    put(0x250, &u64::from(SETUP_DATA).to_le_bytes()); // setup_data
    // Secrets, CPUID and the blob that names them must stay as they are.
    let map = [(0, LOADER, 1), (LOADER, LAUNCH_END, 2), (LAUNCH_END, VGA.start, 1), (HIGH, memory, 1)];
    put(0x1e8, &[map.len() as u8]);
    for (index, (start, end, kind)) in map.into_iter().enumerate() {
        let at = 0x2d0 + 20 * index;
        put(at, &u64::from(start).to_le_bytes());
        put(at + 8, &u64::from(end - start).to_le_bytes());
        put(at + 16, &u32::to_le_bytes(kind));
    }
    page
}

/// Command line, setup data of type `SETUP_CC_BLOB`, and the blob.
fn strings(command_line: &str) -> Vec<u8> {
    const SETUP_CC_BLOB: u32 = 7;
    let mut page = vec![0; PAGE as usize];
    page[..command_line.len()].copy_from_slice(command_line.as_bytes());
    let setup = (SETUP_DATA - STRINGS) as usize;
    // Next (none), type, length, address of the blob.
    page[setup + 8..][..4].copy_from_slice(&SETUP_CC_BLOB.to_le_bytes());
    page[setup + 12..][..4].copy_from_slice(&4u32.to_le_bytes());
    page[setup + 16..][..4].copy_from_slice(&CC_BLOB.to_le_bytes());
    // Magic, version, then address and length of secrets and CPUID pages.
    let blob = (CC_BLOB - STRINGS) as usize;
    page[blob..][..4].copy_from_slice(b"AMDE");
    page[blob + 4..][..2].copy_from_slice(&1u16.to_le_bytes());
    for (offset, address) in [(8, SECRETS), (24, CPUID)] {
        page[blob + offset..][..8].copy_from_slice(&u64::from(address).to_le_bytes());
        page[blob + offset + 8..][..4].copy_from_slice(&PAGE.to_le_bytes());
    }
    page
}

/// Tables that map the first 4 GiB one to one as private memory, by 2 MiB, but for the alias of the GHCB.
fn page_tables() -> Vec<u8> {
    const TABLE: u64 = 0b11 | C_BIT;
    const LARGE: u64 = 0b1000_0011 | C_BIT;
    let mut entries = vec![0u64; 6 * 512];
    entries[0] = u64::from(PAGE_TABLES + PAGE) | TABLE;
    for gigabyte in 0..4 {
        entries[512 + gigabyte] = u64::from(PAGE_TABLES + PAGE * (2 + gigabyte as u32)) | TABLE;
    }
    for large in 0..4 * 512 {
        entries[1024 + large] = (large as u64) << 21 | LARGE;
    }
    entries[1024 + (loader::SHARED_ALIAS >> 21) as usize] = LARGE & !C_BIT;
    entries.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// The directives so far.
#[derive(Default)]
struct Pages(Vec<IgvmDirectiveHeader>);

impl Pages {
    fn data(&mut self, address: u32, bytes: &[u8]) {
        for (gpa, bytes) in (address..).step_by(PAGE as usize).zip(bytes.chunks(PAGE as usize)) {
            let mut data = bytes.to_vec();
            data.resize(PAGE as usize, 0);
            self.page(gpa, IgvmPageDataType::NORMAL, data);
        }
    }

    fn special(&mut self, address: u32, kind: IgvmPageDataType) {
        self.page(address, kind, Vec::new());
    }

    fn page(&mut self, gpa: u32, data_type: IgvmPageDataType, data: Vec<u8>) {
        self.0.push(IgvmDirectiveHeader::PageData {
            gpa: gpa.into(),
            compatibility_mask: SEV_SNP,
            flags: IgvmPageDataFlags::new(),
            data_type,
            data,
        });
    }

    fn finish(mut self, policy: u64) -> Result<Vec<u8>> {
        let entry = vmsa::at_entry(LOADER, STACK);
        let (vmsa, _) = SevVmsa::read_from_prefix(&entry).ok().context("a page holds a VMSA")?;
        self.0.push(IgvmDirectiveHeader::SnpVpContext {
            gpa: VMSA_ADDRESS,
            compatibility_mask: SEV_SNP,
            vp_index: 0,
            vmsa: Box::new(vmsa),
        });
        let platform = IGVM_VHS_SUPPORTED_PLATFORM {
            compatibility_mask: SEV_SNP,
            highest_vtl: 0,
            platform_type: IgvmPlatformType::SEV_SNP,
            platform_version: igvm_defs::IGVM_SEV_SNP_PLATFORM_VERSION,
            shared_gpa_boundary: 0,
        };
        let file = IgvmFile::new(
            IgvmRevision::V1,
            vec![IgvmPlatformHeader::SupportedPlatform(platform)],
            vec![IgvmInitializationHeader::GuestPolicy { policy, compatibility_mask: SEV_SNP }],
            self.0,
        )?;
        let mut bytes = Vec::new();
        file.serialize(&mut bytes)?;
        Ok(bytes)
    }
}
