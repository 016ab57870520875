//! The end of the VM.

use super::ghcb;
use super::instructions::{MSR_GHCB, halt, vmgexit, wrmsr};
use kernel::fatal::Fatal;
use kernel::snp::protocol;
use wire::event::Event;
use wire::termination::Termination;

/// Says why, and asks the host to end the VM. It cannot be made to go on by a host that does not.
pub fn terminate(fatal: Fatal) -> ! {
    ghcb::emit(Event::Terminating { reason: fatal.reason, value: fatal.value });
    last_word(fatal.reason)
}

/// As [`terminate`], without an event: for when nothing in memory can be relied on.
pub fn last_word(reason: Termination) -> ! {
    // SAFETY: the MSR is the guest's to write; the request is the protocol's last.
    unsafe {
        wrmsr(MSR_GHCB, protocol::termination(reason));
        vmgexit();
    }
    halt()
}
