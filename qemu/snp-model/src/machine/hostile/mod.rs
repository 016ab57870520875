//! The hostile host: how each lie of [`Lie`] is told.
//!
//! The rest of the model calls in here at one point for each kind of thing that a host can lie about, and knows nothing
//! more. Without a lie, every one of these calls changes nothing.
//!
//! | | |
//! |---|---|
//! | `launch` | what is there from the start: CPUID page, SEV_STATUS, intercepts (A3, A4, A5, A15) |
//! | `vectors` | exceptions and interrupts (A1, A2) |
//! | `pages` | page states and PVALIDATE (A6, A7, A10) |
//! | `watch` | every single access to a page: stale cache lines and double fetches (A8, A9, A11) |
//! | `answers` | answers through the GHCB (A4, A5, A9, A11) |
//! | `vcpus` | the start of other vCPUs (A16) |
//! | `virtio` | devices (A12, A13, A18) |
//! | `sources` | time-stamp counter and random numbers (A13, A14, A15) |
//! | `memory` | shared and private memory (A19, A20) |

mod answers;
mod launch;
mod memory;
mod pages;
mod sources;
mod vcpus;
mod vectors;
mod virtio;
mod watch;

use super::{machine::Machine, vcpu::Vcpu, vmcb::exit};
use alloc::{boxed::Box, collections::BTreeSet, vec::Vec};
use snp_model::{PAGE_BYTES, Page, hostile::Lie};

/// The codes of the guest's events (`wire/src/event.rs`) at which something begins.
mod event {
    pub const LISTENING: u16 = 10;
    pub const CONNECTION_OPENED: u16 = 11;
    pub const REQUEST_STARTED: u16 = 15;
    pub const SESSION_WIPED: u16 = 17;
}

/// The lie, and what has to be remembered to tell it.
pub struct Hostile {
    lie: Option<Lie>,
    /// The bytes of the guest's event so far.
    event: Vec<u8>,
    /// Whether the guest has said that it listens.
    listening: bool,
    /// Whether the guest has asked the disk for anything.
    disk_was_asked: bool,
    /// Whether the moment for a single blow has come.
    due: bool,
    /// How often something was done, for lies that count.
    count: u64,
    /// Frames that the guest's card has taken in, and leaps of time.
    frames: u16,
    leaps: u64,
    /// What the guest has shared.
    shared: Vec<core::ops::Range<u64>>,
    message: Option<Page>,
    watch: watch::Watch,
    bus: virtio::Bus,
    /// Sectors of the disk that were read.
    sectors: BTreeSet<u64>,
    /// The VMSA that the launch gave the second vCPU.
    launch_vmsa: Box<Page>,
    /// A vCPU that the guest has created, and its VMSA at that moment.
    created: Option<(usize, Box<Page>)>,
    noise: u64,
    /// Whether a session was wiped and memory has not been searched since.
    search: bool,
}

impl Hostile {
    /// A host that tells `lie`, or an honest one. `launch_vmsa` is what the launch gave the second vCPU.
    pub fn new(lie: Option<Lie>, launch_vmsa: Box<Page>) -> Self {
        Self {
            lie,
            event: Vec::new(),
            listening: false,
            disk_was_asked: false,
            due: false,
            count: 0,
            frames: 0,
            leaps: 0,
            shared: Vec::new(),
            message: None,
            watch: watch::Watch::default(),
            bus: virtio::Bus::default(),
            sectors: BTreeSet::new(),
            launch_vmsa,
            created: None,
            noise: 0x9E37_79B9_7F4A_7C15,
            search: false,
        }
    }

    fn tells(&self, lie: Lie) -> bool {
        self.lie == Some(lie)
    }
}

impl Machine {
    /// Called before each VMRUN.
    pub fn hostile_entry(&mut self, vcpu: &mut Vcpu) {
        if self.hostile.lie.is_some() && core::mem::take(&mut self.hostile.due) {
            self.strike(vcpu);
        }
    }

    /// Called at each exit; whether the exit was dealt with.
    pub fn hostile_exit(&mut self, vcpu: &mut Vcpu, code: u64) -> bool {
        let Some(lie) = self.hostile.lie else { return false };
        match code {
            exit::NPF => self.watched_access(vcpu),
            exit::DEBUG => self.step_done(vcpu),
            exit::TIME_STAMP => self.time_stamp(vcpu),
            exit::UNDEFINED if lie.needs_random_exits() => self.random_number(vcpu),
            exit::CPUID if lie == Lie::WrongVcCode && self.hostile.count == 0 => {
                self.hostile.count = 1;
                self.deliver_vc(vcpu, exit::IOIO);
                true
            }
            _ => false,
        }
    }

    /// A byte that the guest wrote to the event port.
    fn hostile_event(&mut self, byte: u8, ghcb: u64) {
        const EVENT_BYTES: usize = 16;
        self.hostile.event.push(byte);
        if self.hostile.event.len() < EVENT_BYTES {
            return;
        }
        let code = u16::from_le_bytes([self.hostile.event[2], self.hostile.event[3]]);
        self.hostile.event.clear();
        if code == event::LISTENING {
            self.hostile.listening = true;
            self.hostile.due = true;
        }
        match self.hostile.lie {
            Some(Lie::Scribble) => self.scribble(ghcb & !(PAGE_BYTES as u64 - 1)),
            Some(Lie::Search) => match code {
                event::REQUEST_STARTED => self.search("while a request runs"),
                event::SESSION_WIPED => self.hostile.search = true,
                // Whatever the guest does after it said that a session was wiped has been done by now.
                event::CONNECTION_OPENED if core::mem::take(&mut self.hostile.search) => {
                    self.search("after the session");
                }
                _ => {}
            },
            _ => {}
        }
    }
}
