//! Why the VM must end.

use wire::termination::Termination;

/// A condition under which the guest does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// What happened.
    pub reason: Termination,
    /// A number that belongs to the reason: an address, a leaf, a vector.
    pub value: u64,
}

impl Fatal {
    /// A reason with its number.
    pub const fn new(reason: Termination, value: u64) -> Self {
        Self { reason, value }
    }
}

/// A result whose failure ends the VM.
pub type OrFatal<T> = Result<T, Fatal>;
