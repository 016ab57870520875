//! virtio 1.x drivers for the two devices that the guest has.
//!
//! Principles (REQUIREMENTS A12):
//! * A device that lies is dead: the first broken promise ends its use, and nothing it says afterwards is read.
//! * What the guest wrote into shared memory it never reads back; descriptors are shadowed in private memory.
//! * Data crosses in bounce buffers at places fixed when the device is set up, one buffer per slot of a queue.
//! * No interrupts: the guest polls, so the host gains no vector into it.
//!
//! Source: OASIS Virtual I/O Device (VIRTIO) 1.2, cited by section.

pub mod block;
#[cfg(test)]
pub(crate) mod fake;
pub mod network;
pub mod queue;
#[cfg(test)]
mod tests;
pub mod transport;

use crate::host::{HostFault, OutOfBounds};

/// The device is not the measured one, or broke the protocol. It is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// No device, or one of another kind, is at the measured slot.
    Missing,
    /// The device does not offer what the driver needs.
    Unsupported,
    /// The device broke the protocol, now or earlier.
    Dead,
    /// The device did not answer in time.
    Timeout,
}

impl From<HostFault> for DeviceError {
    fn from(_: HostFault) -> Self {
        Self::Dead
    }
}

impl From<OutOfBounds> for DeviceError {
    fn from(_: OutOfBounds) -> Self {
        Self::Dead
    }
}
