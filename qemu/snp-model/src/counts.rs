//! How often a guest needed its host, by reason: what costs time on real hardware, and what only the model pays for.

use crate::ghcb::event;
use core::fmt;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// What a vCPU left its guest for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[doc = $doc])* $name,)* }

        impl Kind {
            const ALL: &[(Self, &str)] = &[$((Self::$name, $text),)*];
        }
    };
}

kinds! {
    /// Port I/O.
    Port = "port",
    /// Device memory.
    Mmio = "mmio",
    /// An MSR of the hypervisor's.
    Msr = "msr",
    /// A page-state change, of one page or a list.
    PageState = "page_state",
    /// A guest message.
    Message = "message",
    /// AP creation.
    Creation = "creation",
    /// HLT.
    Halt = "halt",
    /// A hypercall, above all a wake-up.
    Hypercall = "hypercall",
    /// Another event of the GHCB.
    OtherEvent = "other_event",
    /// Another request by the GHCB MSR.
    MsrProtocol = "msr_protocol",
    /// PVALIDATE, which is no exit on hardware.
    Pvalidate = "pvalidate",
    /// RMPADJUST, which is no exit on hardware.
    Rmpadjust = "rmpadjust",
    /// An exception `#VC`, which is no exit on hardware.
    Vc = "vc",
    /// A nested page fault. Hardware makes them where KVM has not mapped memory yet.
    NestedFault = "nested_fault",
    /// Another vCPU changed translations or wanted something.
    Kick = "kick",
    /// Anything else that TCG leaves the guest for: CR0, EFER, the GHCB MSR.
    Other = "other",
}

impl Kind {
    /// The kind of an event of the GHCB page.
    pub const fn of_event(code: u64) -> Self {
        match code {
            event::IOIO => Self::Port,
            event::MMIO_READ | event::MMIO_WRITE => Self::Mmio,
            event::MSR => Self::Msr,
            event::PAGE_STATE_CHANGE => Self::PageState,
            event::GUEST_REQUEST | event::EXTENDED_GUEST_REQUEST => Self::Message,
            event::AP_CREATION => Self::Creation,
            event::HLT => Self::Halt,
            event::VMMCALL => Self::Hypercall,
            _ => Self::OtherEvent,
        }
    }

    /// Whether hardware leaves the guest for it as well: automatic exits and VMGEXIT (APM §15.35.4).
    const fn on_hardware(self) -> bool {
        (self as usize) < Self::Pvalidate as usize
    }
}

/// Counts since the launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    counts: [u64; Kind::ALL.len()],
    /// Ticks of the time-stamp counter in the guest, of all vCPUs together. Under QEMU's `-icount shift=N` with one vCPU
    /// they are instructions times 2^N.
    pub guest_ticks: u64,
}

impl Counts {
    /// Counts one.
    pub fn add(&mut self, kind: Kind) {
        self.counts[kind as usize] += 1;
    }

    /// Exits that hardware would make, too.
    pub fn exits(&self) -> u64 {
        let all = Kind::ALL.iter().zip(self.counts);
        all.filter(|((kind, _), _)| kind.on_hardware()).map(|(_, count)| count).sum()
    }
}

/// What the model's line with counts begins with.
pub const LINE: &str = "counts ";

/// `name=number`, with a blank between; what is zero is left out.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest_ticks={} exits={}", self.guest_ticks, self.exits())?;
        for ((_, text), count) in Kind::ALL.iter().zip(self.counts).filter(|(_, count)| *count > 0) {
            write!(f, " {text}={count}")?;
        }
        Ok(())
    }
}

/// Reads the rest of a line with counts. A pair that is none ends it.
pub fn parse(line: &str) -> impl Iterator<Item = (&str, u64)> {
    line.split(' ').map_while(|pair| {
        let (name, number) = pair.split_once('=')?;
        Some((name, number.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::ToString, vec::Vec};

    #[test]
    fn exits_are_those_of_hardware() {
        let mut counts = Counts::default();
        for kind in [Kind::of_event(event::IOIO), Kind::Halt, Kind::Pvalidate, Kind::Vc, Kind::Vc] {
            counts.add(kind);
        }
        counts.guest_ticks = 7;
        let line = counts.to_string();
        assert_eq!(line, "guest_ticks=7 exits=2 port=1 halt=1 pvalidate=1 vc=2");
        let pairs: Vec<_> = parse(&line).collect();
        assert_eq!(pairs[..3], [("guest_ticks", 7), ("exits", 2), ("port", 1)]);
        assert_eq!(pairs.len(), 6);
        assert_eq!(parse("no counts=x").count(), 0);
    }
}
