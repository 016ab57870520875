//! The guest image. See the library's documentation for its principles.
#![no_std]
#![no_main]

mod machine;

use kernel::fatal::OrFatal;
use kernel::once::Once;
use kernel::snp::cpuid::CpuidTable;
use machine::{descriptors, ghcb, terminate::terminate};
use wire::event::Event;

/// The processor's checked answers.
static CPUID: Once<CpuidTable> = Once::new();

/// Entered in long mode on the main stack, with the tables of `entry.s`.
extern "C" fn start() -> ! {
    descriptors::load();
    match boot() {
        Ok(never) => match never {},
        Err(fatal) => terminate(fatal),
    }
}

fn boot() -> OrFatal<core::convert::Infallible> {
    machine::processor::start()?;
    ghcb::start()?;
    ghcb::emit(Event::Started {});
    Err(kernel::fatal::Fatal::new(wire::termination::Termination::MemoryLayout, 0))
}
