//! The three ways in which a run ends. Each writes one line to the log and tells QEMU's debug-exit device.

use super::{
    cpu::{halt, out32},
    serial::log,
};
use core::fmt;

const DEBUG_EXIT: u16 = 0xF4;

/// How a run ended; the number is what QEMU's debug-exit device is given.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// The guest asked for it.
    Terminated = 0x10,
    /// The guest broke a rule of SEV-SNP; hardware would not have let it go on.
    Violation = 0x11,
    /// The model cannot go on, through no fault of the guest.
    Internal = 0x12,
}

/// Ends the run.
pub fn stop(verdict: Verdict, why: fmt::Arguments<'_>) -> ! {
    let kind = match verdict {
        Verdict::Terminated => "guest terminated",
        Verdict::Violation => "violation",
        Verdict::Internal => "internal",
    };
    log!("{kind}: {why}");
    // SAFETY: the device ends QEMU and touches no memory.
    unsafe { out32(DEBUG_EXIT, verdict as u32) };
    halt()
}

/// Ends the run because the guest broke a rule.
macro_rules! violation {
    ($($argument:tt)*) => {
        $crate::machine::stop::stop($crate::machine::stop::Verdict::Violation, format_args!($($argument)*))
    };
}

/// Ends the run because the model cannot go on.
macro_rules! internal {
    ($($argument:tt)*) => {
        $crate::machine::stop::stop($crate::machine::stop::Verdict::Internal, format_args!($($argument)*))
    };
}
pub(crate) use {internal, violation};
