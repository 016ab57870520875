//! The GHCB on the processor's side: its page, its MSR, and `VMGEXIT`.

use super::descriptors::this_cpu;
use super::instructions::{MSR_GHCB, rdmsr, vmgexit, wrmsr};
use super::shared::SharedRun;
use super::{image, instructions, paging};
use core::cell::RefCell;
use kernel::cpus::MAX;
use kernel::fatal::{Fatal, OrFatal};
use kernel::host::{Alleged, HostFault, HostIo, SharedBytes, Width};
use kernel::snp::ghcb::{self, Exit, Ghcb};
use kernel::snp::protocol::{self, Msr};
use wire::event::{self, Event};
use wire::termination::Termination;

/// The GHCB, on its shared page.
pub type Page = Ghcb<SharedRun, Vmgexit>;

static GHCBS: PerCpu = PerCpu([const { Slot { page: RefCell::new(None) } }; MAX]);

/// The GHCB of each CPU.
struct PerCpu([Slot; MAX]);

struct Slot {
    page: RefCell<Option<Page>>,
}

// SAFETY: a CPU reaches its own slot only (`Slot::of_this_cpu`), and a reference to a slot cannot be handed to another, as a
// slot is not `Sync`. The one exception is `prepare`, for a CPU that does not run yet.
unsafe impl Sync for PerCpu {}

impl Slot {
    fn of_this_cpu() -> Option<&'static Self> {
        GHCBS.0.get(this_cpu())
    }
}

/// The GHCB MSR protocol.
struct MsrProtocol;

impl Msr for MsrProtocol {
    fn exchange(&mut self, request: u64) -> Alleged<u64> {
        // SAFETY: the MSR is the guest's to write and never intercepted; the request is one of the protocol.
        unsafe {
            wrmsr(MSR_GHCB, request);
            vmgexit();
            Alleged::new(rdmsr(MSR_GHCB))
        }
    }
}

/// `VMGEXIT` for a request in the page. Only [`start`] makes one.
pub struct Vmgexit(());

impl Exit for Vmgexit {
    fn exit(&mut self) {
        // SAFETY: this value exists only once the MSR holds the address of the registered, shared page.
        unsafe { vmgexit() };
    }
}

/// Shares the first CPU's page and agrees on the protocol with the host; whether the host creates further CPUs.
pub fn start() -> OrFatal<bool> {
    let mut msr = MsrProtocol;
    let creates_cpus = protocol::negotiate(&mut msr)?;
    let page = image::ghcb();
    // SAFETY: the linker set the page aside for this; no Rust value lies in it. The order is REQUIREMENTS A7:
    // validation is taken back before the host is told.
    let taken_back = unsafe { instructions::pvalidate(page, false, false) };
    if taken_back.code != 0 || taken_back.unchanged {
        return Err(Fatal::new(Termination::Validation, page));
    }
    protocol::share_page(&mut msr, page)?;
    // SAFETY: from here on the page is used by `SharedRun` only.
    let mut run = unsafe {
        paging::share(page)?;
        SharedRun::new(page, ghcb::BYTES)
    };
    run.clear();
    GHCBS.0[0].page.replace(Some(Ghcb::new(run, Vmgexit(()))));
    begin()?;
    Ok(creates_cpus)
}

/// Gives CPU number `number`, which does not run yet, a page of `shared`.
pub fn prepare(number: usize, shared: &mut SharedRun) -> OrFatal<()> {
    let failed = Fatal::new(Termination::CpuStart, number as u64);
    let page = shared.take(ghcb::BYTES).ok_or(failed)?;
    match GHCBS.0.get(number) {
        Some(slot) if number != this_cpu() => slot.page.replace(Some(Ghcb::new(page, Vmgexit(())))),
        _ => return Err(failed),
    };
    Ok(())
}

/// Registers this CPU's page with the host. No call may be made before.
pub fn begin() -> OrFatal<()> {
    let failed = Fatal::new(Termination::GhcbProtocol, this_cpu() as u64);
    let page =
        Slot::of_this_cpu().and_then(|slot| Some(slot.page.borrow().as_ref()?.page().gpa())).ok_or(failed)?;
    if let Err(fatal) = protocol::register(&mut MsrProtocol, page) {
        // What ends the VM then must not try to send an event through it.
        Slot::of_this_cpu().map(|slot| slot.page.replace(None));
        return Err(fatal);
    }
    // SAFETY: the page is registered; the MSR protocol is used once more only, to end the VM.
    unsafe { wrmsr(MSR_GHCB, page) };
    Ok(())
}

/// Calls the host through this CPU's page. Fails before [`start`], and inside of another call.
pub fn with<T>(call: impl FnOnce(&mut Page) -> Result<T, HostFault>) -> Result<T, HostFault> {
    match Slot::of_this_cpu().ok_or(HostFault)?.page.try_borrow_mut() {
        Ok(mut page) => call(page.as_mut().ok_or(HostFault)?),
        Err(_) => Err(HostFault),
    }
}

/// Like [`with`], for calls whose failure ends the VM.
pub fn with_fatal<T>(call: impl FnOnce(&mut Page) -> OrFatal<T>) -> OrFatal<T> {
    with(|ghcb| Ok(call(ghcb))).unwrap_or(Err(Fatal::new(Termination::GhcbProtocol, 0)))
}

/// The host's ports and device memory, for the drivers.
#[derive(Clone, Copy)]
pub struct Host;

impl HostIo for Host {
    fn port_read(&mut self, port: u16, width: Width) -> Result<Alleged<u32>, HostFault> {
        with(|ghcb| ghcb.port_read(port, width))
    }

    fn port_write(&mut self, port: u16, width: Width, value: u32) -> Result<(), HostFault> {
        with(|ghcb| ghcb.port_write(port, width, value))
    }

    fn mmio_read(&mut self, gpa: u64, width: Width) -> Result<Alleged<u64>, HostFault> {
        with(|ghcb| ghcb.mmio_read(gpa, width))
    }

    fn mmio_write(&mut self, gpa: u64, width: Width, value: u64) -> Result<(), HostFault> {
        with(|ghcb| ghcb.mmio_write(gpa, width, value))
    }
}

/// Tells the operator. A host that does not want to know is no reason to stop.
pub fn emit(event: Event) {
    let _ = with(|ghcb| ghcb.port_write_all(event::PORT, &event.encode()));
}
