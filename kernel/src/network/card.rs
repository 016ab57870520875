//! The virtio card as smoltcp's device.

use crate::host::{HostIo, SharedBytes};
use crate::virtio::network::{FRAME_BYTES, Network};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// A network card, and the frame that is on its way through.
pub struct Card<H, M> {
    network: Network<H, M>,
    inbound: [u8; FRAME_BYTES],
    outbound: [u8; FRAME_BYTES],
    dead: bool,
}

impl<H: HostIo, M: SharedBytes> Card<H, M> {
    /// Wraps a card that was brought up.
    pub const fn new(network: Network<H, M>) -> Self {
        Self { network, inbound: [0; FRAME_BYTES], outbound: [0; FRAME_BYTES], dead: false }
    }

    /// The card's MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.network.mac()
    }

    /// Announces the frames that were queued.
    pub fn flush(&mut self) {
        self.dead |= self.network.flush().is_err();
    }

    /// Whether the card broke its protocol.
    pub const fn is_dead(&self) -> bool {
        self.dead
    }

    fn can_transmit(&mut self) -> bool {
        !self.dead && self.network.can_transmit().unwrap_or_else(|_| self.die())
    }

    fn die(&mut self) -> bool {
        self.dead = true;
        false
    }
}

impl<H: HostIo, M: SharedBytes> Device for Card<H, M> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = ToSend<'a, H, M>
    where
        Self: 'a;

    /// A frame is taken only if there is room for an answer to it.
    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        if !self.can_transmit() {
            return None;
        }
        let length = match self.network.receive(&mut self.inbound) {
            Ok(length) => length?,
            Err(_) => {
                self.die();
                return None;
            }
        };
        let Self { network, inbound, outbound, dead } = self;
        Some((Received(&inbound[..length]), ToSend { network, outbound, dead }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        if !self.can_transmit() {
            return None;
        }
        let Self { network, outbound, dead, .. } = self;
        Some(ToSend { network, outbound, dead })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities
    }
}

/// A frame that was copied in.
pub struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

/// Room for a frame.
pub struct ToSend<'a, H, M> {
    network: &'a mut Network<H, M>,
    outbound: &'a mut [u8; FRAME_BYTES],
    dead: &'a mut bool,
}

impl<H: HostIo, M: SharedBytes> TxToken for ToSend<'_, H, M> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        // smoltcp keeps to the MTU that `capabilities` gives.
        let frame = &mut self.outbound[..length];
        let result = write(frame);
        *self.dead |= self.network.transmit(frame).is_err();
        result
    }
}
