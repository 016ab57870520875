//! The guest as the service sees it, and the service as the network sees it.

use crate::machine::attestation::GhcbCarrier;
use crate::machine::cpus::Cpus;
use crate::machine::random::GuestRandom;
use crate::machine::{clock, ghcb};
use kernel::fatal::{Fatal, OrFatal};
use kernel::network::server::Handler;
use kernel::snp::message::{Messenger, Report};
use rustls::crypto::SecureRandom;
use service::{AttestError, Attested, ConnectionId, Platform, Service};
use wire::event::Event;
use wire::termination::Termination;

/// The machine below the service.
pub struct Guest {
    carrier: GhcbCarrier,
    messenger: Messenger,
    session_wiped: bool,
}

impl Guest {
    /// Brings the ways to the AMD-SP together.
    pub const fn new(carrier: GhcbCarrier, messenger: Messenger) -> Self {
        Self { carrier, messenger, session_wiped: false }
    }

    /// Asks for a report that no one will see, so that a host without a working AMD-SP shows before the weights are read.
    /// Its data are zeros, which no label's hash is.
    pub fn first_report(&mut self) -> OrFatal<()> {
        match self.messenger.report(&mut self.carrier, &[0; 64]) {
            Ok(_) => Ok(()),
            Err(_) => Err(Fatal::new(Termination::GuestMessage, 1)),
        }
    }

    /// Whether a session was wiped since the last call.
    pub fn session_was_wiped(&mut self) -> bool {
        core::mem::take(&mut self.session_wiped)
    }
}

impl Platform for Guest {
    fn random(&self) -> &'static dyn SecureRandom {
        &GuestRandom
    }

    fn now_ms(&self) -> u64 {
        clock::now_ms()
    }

    fn attest(&mut self, report_data: &[u8; 64]) -> Result<Attested, AttestError> {
        match self.messenger.report(&mut self.carrier, report_data) {
            Ok(Report { report, certificates }) => Ok(Attested { report: report.to_vec(), certificates }),
            Err(_) => Err(AttestError::Failed),
        }
    }

    fn emit(&mut self, event: Event) {
        self.session_wiped |= event == Event::SessionWiped {};
        ghcb::emit(event);
    }
}

/// The service, as what is done with the bytes of connections.
pub struct Connections(pub Service<'static, Guest, Cpus>);

impl Handler for Connections {
    type Id = ConnectionId;

    fn open(&mut self) -> Option<ConnectionId> {
        self.0.open().ok()
    }

    fn receive(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.0.receive(id, bytes);
    }

    fn pending(&self, id: ConnectionId) -> &[u8] {
        self.0.pending(id)
    }

    fn sent(&mut self, id: ConnectionId, count: usize) {
        self.0.sent(id, count);
    }

    fn wants_close(&self, id: ConnectionId) -> bool {
        self.0.wants_close(id)
    }

    fn close(&mut self, id: ConnectionId) {
        self.0.close(id);
    }
}
