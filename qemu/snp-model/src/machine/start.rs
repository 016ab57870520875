//! From the first Rust instruction to the first VMRUN: the launch of the guest, as QEMU, KVM and the AMD-SP
//! do it.

use super::{
    cpu, cpus,
    devices::HypervisorMsrs,
    hostile::Hostile,
    image,
    lock::Lock,
    machine::Machine,
    memory::{DIRECT_MAP, GuestMemory, HostPage, Pool},
    npt::Npt,
    pvh, runtime,
    serial::log,
    stop::internal,
    trap,
    vcpus::{self, Vcpus},
    vmcb::PermissionMaps,
};
use alloc::{boxed::Box, vec};
use core::fmt;
use snp_model::{
    PAGE_BYTES,
    amd_sp::{AmdSp, SEED_BYTES},
    bundle::Bundle,
    cpuid_page::{self, CpuidPage},
    hostile::Lie,
    launch::{Firmware, LaunchDigest, PageKind, Region, initial_vmsa, launch_digest},
    rmp::{Entry, Rmp, Size},
};

const MIB: u64 = 1 << 20;
/// Enough for the RMP of the largest guest below 4 GiB, and for the AMD-SP's work.
const HEAP_BYTES: u64 = 16 * MIB;
/// From this size on QEMU's q35 splits RAM and puts a part above 4 GiB (`pc_q35_init`).
const RAM_LIMIT: u64 = 0xB000_0000;
/// What the launcher gives the model beside twice the guest's RAM.
const MODEL_BYTES: u64 = 256 * MIB;
/// Largest guest.
const GUEST_LIMIT: u64 = (RAM_LIMIT - MODEL_BYTES) / 2 - Size::Large.bytes();

/// The first Rust function; `boot.s` calls it with what PVH left in EBX.
///
/// # Safety
/// Called once, with `boot.s`'s page tables and stack.
#[unsafe(no_mangle)]
unsafe extern "C" fn model_main(start_info: u32) -> ! {
    // SAFETY: nothing but boot.s has run, which wrote to the image only.
    let module = unsafe { pvh::first_module(start_info) };
    let Some(module) = module else {
        internal!(
            "QEMU passed no launch bundle; start the model with the launcher, or QEMU with -initrd <bundle>"
        );
    };
    let bundle = Bundle::parse(module).unwrap_or_else(|error| internal!("{error}"));
    let ram = u64::from(bundle.memory_mib) * MIB;
    let bundle_at = module.as_ptr() as u64 - DIRECT_MAP;
    if !ram.is_multiple_of(Size::Large.bytes()) || ram > GUEST_LIMIT {
        internal!(
            "the model runs guests of an even number of MiB up to {}, not {}; change memory_mib in the manifest",
            GUEST_LIMIT / MIB,
            bundle.memory_mib
        );
    }
    let model_at = 2 * ram;
    let heap_at = model_at + image::bytes();
    let pool_at = heap_at + HEAP_BYTES;
    if pool_at + bundle.rom.len() as u64 >= bundle_at {
        internal!("RAM ends too early; start QEMU with -m {}M", (2 * ram + MODEL_BYTES) / MIB);
    }
    // SAFETY: `pvh` put the bundle behind the model's part of RAM; from the image to the bundle nothing is in
    // use.
    let mut pool = unsafe { Pool::new(pool_at, bundle_at & !(PAGE_BYTES as u64 - 1)) };
    // SAFETY: this is the first thing that happens, and the new place is between guest memory and heap. The
    // bundle stays where it is, and so does the direct map that `module` points into.
    unsafe { image::relocate(model_at, &mut pool) };
    trap::install();
    // SAFETY: zeroed by QEMU, mapped by the direct map, used by nobody else, and this is the only call.
    unsafe { runtime::start_heap((DIRECT_MAP + heap_at) as usize, HEAP_BYTES as usize) };
    clear_low_memory();
    launch(&bundle, ram, pool)
}

/// What the firmware left in the first MiB must not show through shared pages.
fn clear_low_memory() {
    for page in (0..0xA_0000).step_by(PAGE_BYTES) {
        // SAFETY: low RAM that is a shared guest page from now on; what PVH left there was read.
        unsafe { HostPage::from_address(page) }.clear();
    }
}

fn launch(bundle: &Bundle<'static>, ram: u64, mut pool: Pool) -> ! {
    let firmware = Firmware::parse(bundle.rom).unwrap_or_else(|error| internal!("{error}"));
    if let Err(error) = firmware.check_memory(bundle.memory_mib) {
        internal!("{error}");
    }
    let lie = Lie::from_name(bundle.scenario);
    if lie.is_none() && !bundle.scenario.is_empty() {
        internal!("the model does not know how to play \"{}\"; see --hostile list", bundle.scenario);
    }
    let digest = launch_digest(&firmware, bundle.vcpus, bundle.signature);
    log!("launch digest {}", Hex(&digest));

    let rom_bytes = bundle.rom.len() as u64;
    // SAFETY: `model_main` put everything else behind 2 * ram.
    let memory = unsafe { GuestMemory::new(ram, rom_bytes, &mut pool) };
    let entries = Box::leak(vec![Entry::default(); Rmp::entries_for(ram, rom_bytes)].into_boxed_slice());
    let Some(rmp) = Rmp::new(entries, ram, rom_bytes) else {
        internal!("{} MiB of RAM and a ROM of {rom_bytes} bytes do not fit below 4 GiB", bundle.memory_mib);
    };
    let description = cpuid_page::Machine { signature: bundle.signature, vcpus: bundle.vcpus };
    let cpuid = CpuidPage::build(description, cpu::cpuid);
    let amd_sp =
        AmdSp::launch(bundle, digest, cpuid.clone(), seed()).unwrap_or_else(|error| internal!("{error}"));

    let npt = Npt::new(&mut pool);
    let maps = PermissionMaps::new(&mut pool);
    let vcpus = Vcpus::new(bundle.vcpus, initial_vmsa(&firmware, 0, bundle.signature));
    let mut machine = Machine {
        memory,
        rmp,
        npt,
        maps,
        vcpus,
        pool,
        amd_sp,
        cpuid,
        certificates: bundle.certificates,
        msrs: HypervisorMsrs::new(),
        hostile: Hostile::new(lie),
    };
    for region in firmware.regions() {
        // Only the ROM comes with contents.
        machine.launch_region(*region, if region.kind == PageKind::Normal { bundle.rom } else { &[] });
    }
    let machine = Box::leak(Box::new(Lock::new(machine)));
    cpus::start(bundle.vcpus, machine);
    vcpus::run(machine, 0)
}

impl Machine {
    /// `SNP_LAUNCH_UPDATE` (SNP ABI §8.17) of a run of pages: private, validated, and with their contents.
    fn launch_region(&mut self, region: Region, contents: &[u8]) {
        let secrets = (region.kind == PageKind::Secrets).then(|| self.amd_sp.secrets_page());
        let cpuid = (region.kind == PageKind::Cpuid).then(|| {
            let mut page = self.cpuid.to_page();
            self.hostile.cpuid_page(&mut page);
            page
        });
        for (index, gpa) in (region.gpa..region.end()).step_by(PAGE_BYTES).enumerate() {
            if self.rmp.launch(gpa).is_err() {
                internal!("the ROM's metadata names the page {gpa:#x} twice, or there is no memory");
            }
            let Some(page) = self.memory.private(gpa) else {
                internal!("the ROM's metadata names {gpa:#x}, where there is no memory");
            };
            page.clear();
            if let Some(bytes) = contents.chunks(PAGE_BYTES).nth(index) {
                page.write_bytes(0, bytes);
            } else if let Some(bytes) = secrets.as_ref().or(cpuid.as_ref()) {
                page.write_bytes(0, &bytes[..]);
            }
            self.map(gpa, Size::Small);
        }
    }
}

/// Randomness for the guest's keys.
fn seed() -> [u8; SEED_BYTES] {
    let mut seed = [0; SEED_BYTES];
    for word in seed.chunks_exact_mut(8) {
        word.copy_from_slice(&cpu::random().to_le_bytes());
    }
    seed
}

/// Bytes as lower-case hexadecimal digits.
struct Hex<'a>(&'a LaunchDigest);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
