//! The guest image. The library's documentation says by which principles it is built; this is the order of its boot.
#![no_std]
#![no_main]
extern crate alloc;

mod guest;
mod machine;

use alloc::boxed::Box;
use attestation::manifest::{MANIFEST_GPA, MANIFEST_MAX_BYTES, Manifest};
use core::convert::Infallible;
use guest::{Connections, Guest};
use inference::Model;
use kernel::fatal::{Fatal, OrFatal};
use kernel::memory::layout::Layout;
use kernel::network::card::Card;
use kernel::network::server::Server;
use kernel::once::Once;
use kernel::snp::cpuid::CpuidTable;
use kernel::snp::status::SevStatus;
use kernel::virtio::DeviceError;
use kernel::virtio::block::{self, Block};
use kernel::virtio::network::{self, Network};
use kernel::weights::{self, PatientDisk};
use machine::attestation::GhcbCarrier;
use machine::cpus::{self, Cpus};
use machine::ghcb::{Host, emit};
use machine::memory::{self, Memory};
use machine::shared::SharedRun;
use machine::{clock, descriptors, ghcb, heap, image, paging, processor, random, stack};
use service::{Service, StartError};
use wire::event::{DeviceKind, Event};
use wire::termination::Termination;

/// The processor's checked answers.
static CPUID: Once<CpuidTable> = Once::new();

/// A disk that needs longer for a request is taken for dead, in milliseconds of the untrusted clock.
const DISK_PATIENCE_MS: u64 = 60_000;
/// Turns of the waiting loop between two looks at the network when nothing is going on.
const REST: u32 = 200;

/// Entered in long mode on the main stack, with the tables of `machine/entry.s`.
extern "C" fn start() -> ! {
    let fatal = match descriptors::load(&image::stacks()).and_then(|()| begin()) {
        Ok((status, creates_cpus, canary)) => {
            // Here, because nobody but this function has been entered, and it never returns.
            stack::set_canary(canary);
            let Err(fatal) = run(status, creates_cpus);
            fatal
        }
        Err(fatal) => fatal,
    };
    machine::terminate::terminate(fatal)
}

/// Brings up the processor, the way to the host, and random numbers; whether the host creates CPUs, and a stack canary.
fn begin() -> OrFatal<(SevStatus, bool, u64)> {
    let status = processor::start()?;
    let creates_cpus = ghcb::start()?;
    emit(Event::Started {});
    clock::start(status);
    random::start()?;
    emit(Event::EntropyReady {});
    Ok((status, creates_cpus, random::word()?))
}

/// Brings everything else up in an order in which each part needs only those before it, then serves for ever.
fn run(status: SevStatus, creates_cpus: bool) -> OrFatal<Infallible> {
    // SAFETY: once, and nothing has been allocated.
    unsafe { heap::start() };
    let manifest = manifest()?;
    let vcpus = manifest.machine.vcpus;
    let layout = Layout::plan(manifest.machine.memory_mib, vcpus, manifest.model.weights_bytes)?;
    let (memory, mut shared) = Memory::begin(&layout)?;
    if vcpus > 1 && !creates_cpus {
        return Err(Fatal::new(Termination::CpuStart, vcpus.into()));
    }
    cpus::start(vcpus, layout.stacks.clone(), &mut shared, status)?;
    let weights = memory.finish()?;
    emit(Event::MemoryValidated { mib: layout.private_mib() });

    let carrier = GhcbCarrier::new(&mut shared)?;
    // SAFETY: once; the CPUID page was copied when the processor was set up.
    let messenger = unsafe { machine::attestation::messenger()? };
    let mut guest = Guest::new(carrier, messenger);
    guest.first_report()?;
    emit(Event::Attested {});

    let (model, weights) = model(&manifest, &mut shared, weights)?;
    emit(Event::ModelReady {});

    let network = take(&mut shared, network::MEMORY_BYTES)?;
    let network = Network::start(Host, network, manifest.machine.network);
    let mut card = Card::new(network.map_err(|error| device_failure(error, DeviceKind::Network))?);
    emit(Event::DeviceReady { device: DeviceKind::Network });

    let (address, connections) = (manifest.network, manifest.limits.connections);
    let rejected = |error| match error {
        StartError::Identity(_) => Fatal::new(Termination::GuestMessage, 2),
        StartError::Limits(_) => Fatal::new(Termination::ModelRejected, 1),
    };
    let service = Service::new(guest, manifest, model, Cpus).map_err(rejected)?;
    let mut clients = Connections(service);
    let (mac, seed) = (card.mac(), random::word()?);
    let mut server = Server::new(&mut card, mac, &address, connections, seed, clock::now_ms());
    paging::check(&layout, weights)?;
    emit(Event::Listening { port: address.port.into() });

    loop {
        let moved = server.poll(&mut card, &mut clients, clock::now_ms());
        card.flush();
        if card.is_dead() {
            return Err(device_failure(DeviceError::Dead, DeviceKind::Network));
        }
        let worked = clients.0.step();
        if clients.0.platform().session_was_wiped() {
            cpus::tidy();
        }
        if !moved && !worked {
            (0..REST).for_each(|_| core::hint::spin_loop());
        }
    }
}

/// The measured manifest.
fn manifest() -> OrFatal<Manifest> {
    let invalid = |value| Fatal::new(Termination::ManifestInvalid, value);
    // SAFETY: the launch put length and bytes there; the region is mapped read-only, private, and nobody writes it.
    let region = unsafe { &*(MANIFEST_GPA as *const [u8; MANIFEST_MAX_BYTES]) };
    let (length, rest) = region.split_first_chunk::<4>().ok_or(invalid(0))?;
    let length = u32::from_le_bytes(*length);
    let bytes = rest.get(..length as usize).ok_or(invalid(length.into()))?;
    Manifest::decode(bytes).map_err(|_| invalid(length.into()))
}

/// Reads the weights and loads the engine: it, and the weights' bytes. The disk is not used after that.
fn model(
    manifest: &Manifest,
    shared: &mut SharedRun,
    arena: &'static mut [u8],
) -> OrFatal<(&'static Model<'static>, &'static [u8])> {
    let block = Block::start(Host, take(shared, block::MEMORY_BYTES)?, manifest.machine.weights)
        .map_err(|error| device_failure(error, DeviceKind::Weights))?;
    emit(Event::DeviceReady { device: DeviceKind::Weights });
    let patience = || {
        let start = clock::now_ms();
        move || {
            core::hint::spin_loop();
            clock::now_ms().saturating_sub(start) < DISK_PATIENCE_MS
        }
    };
    let weights: &'static mut [u8] =
        weights::load(&mut PatientDisk { block, patience }, &manifest.model, arena, &Cpus, emit)?;
    emit(Event::WeightsVerified { bytes: manifest.model.weights_bytes });
    let model = Model::load(weights).map_err(|_| Fatal::new(Termination::ModelRejected, 0))?;
    let model: &'static Model<'static> = Box::leak(Box::new(model));
    memory::freeze(model.weights())?;
    Ok((model, model.weights()))
}

fn take(shared: &mut SharedRun, size: usize) -> OrFatal<SharedRun> {
    shared.take(size).ok_or(Fatal::new(Termination::MemoryLayout, size as u64))
}

fn device_failure(error: DeviceError, device: DeviceKind) -> Fatal {
    let reason = match error {
        DeviceError::Missing | DeviceError::Unsupported => Termination::DeviceMissing,
        DeviceError::Dead | DeviceError::Timeout => {
            emit(Event::DeviceDead { device });
            Termination::DeviceDead
        }
    };
    Fatal::new(reason, device as u64)
}
