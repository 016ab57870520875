//! The GHCB on the processor's side: its page, its MSR, and `VMGEXIT`.

use super::instructions::{MSR_GHCB, rdmsr, vmgexit, wrmsr};
use super::shared::SharedRun;
use super::{image, instructions, paging};
use core::cell::RefCell;
use critical_section::Mutex;
use kernel::fatal::{Fatal, OrFatal};
use kernel::host::{Alleged, HostFault, HostIo, Width};
use kernel::once::Once;
use kernel::snp::ghcb::{self, Exit, Ghcb};
use kernel::snp::protocol::{self, Msr};
use wire::event::{self, Event};
use wire::termination::Termination;

/// The GHCB, on its shared page.
pub type Page = Ghcb<SharedRun, Vmgexit>;

static GHCB: Once<Mutex<RefCell<Page>>> = Once::new();

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

/// Shares the page and agrees on the protocol with the host.
pub fn start() -> OrFatal<()> {
    let mut msr = MsrProtocol;
    protocol::negotiate(&mut msr)?;
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
        paging::share_image_page(page);
        SharedRun::new(page, ghcb::BYTES)
    };
    run.clear();
    protocol::register(&mut msr, page)?;
    // SAFETY: the page is registered; the MSR protocol is used once more only, to end the VM.
    unsafe { wrmsr(MSR_GHCB, page) };
    GHCB.set(Mutex::new(RefCell::new(Ghcb::new(run, Vmgexit(())))))
        .map_err(|_| Fatal::new(Termination::GhcbProtocol, page))
        .map(|_| ())
}

/// Calls the host through the page. Fails before [`start`], and inside of another call.
pub fn with<T>(call: impl FnOnce(&mut Page) -> Result<T, HostFault>) -> Result<T, HostFault> {
    let ghcb = GHCB.get().ok_or(HostFault)?;
    critical_section::with(|section| match ghcb.borrow(section).try_borrow_mut() {
        Ok(mut ghcb) => call(&mut ghcb),
        Err(_) => Err(HostFault),
    })
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
    for byte in event.encode() {
        if Host.port_write(event::PORT, Width::Byte, byte.into()).is_err() {
            return;
        }
    }
}
