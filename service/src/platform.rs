//! What the service needs from the machine it runs on: the kernel implements this in the guest, tests on a host.

use alloc::vec::Vec;
use rustls::crypto::SecureRandom;
use wire::event::Event;

/// A report of the AMD-SP and what goes with it.
pub struct Attested {
    /// The attestation report as the AMD-SP signed it.
    pub report: Vec<u8>,
    /// The AMD certificate table that the host gave with it; may be empty, and is an allegation until a client
    /// has checked it.
    pub certificates: Vec<u8>,
}

/// Why there is no report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttestError {
    /// The host throttles guest requests; the same request may succeed later.
    Throttled,
    /// The AMD-SP or the host refused, or an answer failed its checks.
    Failed,
}

/// The machine below the service.
pub trait Platform {
    /// The only source of randomness: keys, nonces and serial numbers all come from here.
    fn random(&self) -> &'static dyn SecureRandom;

    /// Milliseconds of the host's clock. Untrusted: it may stop, jump or run backwards, and only timeouts look at it.
    fn now_ms(&self) -> u64;

    /// Asks the AMD-SP for a report over `report_data`.
    fn attest(&mut self, report_data: &[u8; 64]) -> Result<Attested, AttestError>;

    /// Tells the operator a number. Nothing else leaves the guest in the clear.
    fn emit(&mut self, event: Event);
}
