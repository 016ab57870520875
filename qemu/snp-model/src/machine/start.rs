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
    strict::Strict,
    trap,
    vcpus::{self, Vcpus},
    vmcb::PermissionMaps,
};
use alloc::{boxed::Box, vec, vec::Vec};
use core::fmt;
use snp_model::{
    PAGE_BYTES,
    amd_sp::{AmdSp, SEED_BYTES},
    apic::Apic,
    bundle::Bundle,
    counts::Counts,
    cpuid_page::{self, CpuidPage},
    hostile::Lie,
    launch::{Image, LaunchDigest, PageKind, Region, launch_digest, page_of},
    layout::{HOST_END, Layout},
    rmp::{Entry, Rmp, Size},
};

const MIB: u64 = 1 << 20;
/// For the AMD-SP's work and the model's own; the RMP needs a byte for each page besides.
const HEAP_BYTES: u64 = 16 * MIB;

/// The first Rust function; `boot.s` calls it with what PVH left in EBX.
///
/// # Safety
/// Called once, with `boot.s`'s page tables and stack.
#[unsafe(no_mangle)]
unsafe extern "C" fn model_main(start_info: u32) -> ! {
    // SAFETY: nothing but boot.s has run, which wrote to the image only.
    let Some(given) = (unsafe { pvh::read(start_info) }) else {
        internal!(
            "QEMU passed no launch bundle; start the model with the launcher, or QEMU with -initrd <bundle>"
        );
    };
    let bundle = Bundle::parse(given.module).unwrap_or_else(|error| internal!("{error}"));
    let ram = Layout::of(u64::from(bundle.memory_mib) * MIB);
    if !ram.fits() {
        internal!(
            "the model runs guests of an even number of MiB that fit into {} GiB twice, not {} MiB; change memory_mib in the manifest",
            HOST_END / MIB / 1024,
            bundle.memory_mib
        );
    }
    if ram.model_base() + ram.model_bytes() > given.ram_end {
        internal!("RAM ends too early; start QEMU with -m {}M", ram.machine_mib());
    }
    let heap_at = ram.model_base() + image::bytes();
    let bundle_bytes = given.module.len() as u64;
    let heap_bytes = (HEAP_BYTES + bundle_bytes + ram.bytes() / PAGE_BYTES as u64).next_multiple_of(MIB);
    // SAFETY: all RAM behind the heap, which nothing uses: QEMU puts what it hands over below 4 GiB.
    let mut pool = unsafe { Pool::new(heap_at + heap_bytes, given.ram_end) };
    // SAFETY: this is the first thing that happens, and the new place is between guest memory and heap. The
    // direct map stays, into which `given.module` points.
    unsafe { image::relocate(ram.model_base(), &mut pool) };
    trap::install();
    // SAFETY: zeroed by QEMU, mapped by the direct map, used by nobody else, and this is the only call.
    unsafe { runtime::start_heap((DIRECT_MAP + heap_at) as usize, heap_bytes as usize) };
    // Where the bundle is, pages of the guest will be.
    let copy = Vec::leak(given.module.to_vec());
    clear_shared_memory(given.module.as_ptr() as u64 - DIRECT_MAP);
    let bundle = Bundle::parse(copy).unwrap_or_else(|error| internal!("{error}"));
    launch(&bundle, ram, pool)
}

/// What the firmware left in the first MiB must not show through shared pages, nor what it and QEMU put at the end of
/// RAM below 4 GiB, from the bundle on.
fn clear_shared_memory(bundle_at: u64) {
    const LOW_END: u64 = 2 << 30;
    let bundle_at = bundle_at & !(PAGE_BYTES as u64 - 1);
    for page in (0..0xA_0000).chain(bundle_at..LOW_END).step_by(PAGE_BYTES) {
        // SAFETY: RAM that is a shared guest page from now on; what was there was read or copied.
        unsafe { HostPage::from_address(page) }.clear();
    }
}

fn launch(bundle: &Bundle<'static>, ram: Layout, mut pool: Pool) -> ! {
    let image = Image::parse(bundle.image).unwrap_or_else(|error| internal!("{error}"));
    if let Err(error) = image.check_memory(bundle.memory_mib) {
        internal!("{error}");
    }
    let lie = Lie::from_name(bundle.scenario);
    if lie.is_none() && !bundle.scenario.is_empty() {
        internal!("the model does not know how to play \"{}\"; see --hostile list", bundle.scenario);
    }
    let digest = launch_digest(&image, bundle.vcpus, bundle.signature);
    log!("launch digest {}", Hex(&digest));

    let rom_bytes = image.rom_bytes();
    // SAFETY: `model_main` put everything else behind the model's base.
    let memory = unsafe { GuestMemory::new(ram, rom_bytes, &mut pool) };
    let entries =
        Box::leak(vec![Entry::default(); Rmp::entries_for(ram.bytes(), rom_bytes)].into_boxed_slice());
    let Some(rmp) = Rmp::new(entries, ram.bytes(), rom_bytes) else {
        internal!("{} MiB of RAM and a ROM of {rom_bytes} bytes do not fit below 4 GiB", bundle.memory_mib);
    };
    let description = cpuid_page::Machine { signature: bundle.signature, vcpus: bundle.vcpus };
    let cpuid = CpuidPage::build(description, cpu::cpuid);
    let bundle = &Bundle { policy: image.policy().unwrap_or(bundle.policy), ..*bundle };
    let amd_sp =
        AmdSp::launch(bundle, digest, cpuid.clone(), seed()).unwrap_or_else(|error| internal!("{error}"));

    let npt = Npt::new(&mut pool);
    let maps = PermissionMaps::new(&mut pool);
    let vcpus = Vcpus::new(bundle.vcpus, image.vmsa(0, bundle.signature));
    let mut machine = Machine {
        memory,
        rmp,
        npt,
        maps,
        vcpus,
        apics: (0..bundle.vcpus).map(Apic::new).collect(),
        strict: Strict::new(bundle.strict),
        counts: Counts::default(),
        launched: cpu::timestamp(),
        event: Vec::new(),
        pool,
        amd_sp,
        cpuid,
        certificates: bundle.certificates,
        msrs: HypervisorMsrs::new(),
        hostile: Hostile::new(lie, image.vmsa(1, bundle.signature)),
    };
    for (region, contents) in image.regions() {
        machine.launch_region(region, contents);
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
                internal!("the image names the page {gpa:#x} twice, or there is no memory");
            }
            let Some(page) = self.memory.private(gpa) else {
                internal!("the image names {gpa:#x}, where there is no memory");
            };
            page.clear();
            if let Some(bytes) = page_of(contents, index) {
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
