//! The network card: whole Ethernet frames in and out, copied through bounce buffers.
//!
//! Source: VIRTIO 1.2 §5.1 "Network Device". No offloads are negotiated, so the header is all zeros on the way out
//! and is not read on the way in.

use super::queue::{Buffer, QUEUE_BYTES, Queue, SLOTS};
use super::transport::{Doorbell, Kind, Transport};
use super::{DeviceError, DeviceError::Dead};
use crate::host::{HostIo, SharedBytes};
use attestation::manifest::DeviceSlot;

/// Longest Ethernet frame, without its checksum.
pub const FRAME_BYTES: usize = 1514;
/// §5.1.6: `struct virtio_net_hdr` with `num_buffers`, as VIRTIO 1 always has it.
const HEADER_BYTES: usize = 12;
const BUFFER_BYTES: usize = 2048;
const _: () = assert!(HEADER_BYTES + FRAME_BYTES <= BUFFER_BYTES);

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const BUFFERS_OFFSET: usize = 2 * QUEUE_BYTES;
/// Shared memory that a network card needs, in bytes.
pub const MEMORY_BYTES: usize = BUFFERS_OFFSET + 2 * SLOTS as usize * BUFFER_BYTES;

/// §5.1.3: the device has a MAC address.
const F_MAC: u64 = 1 << 5;

/// A virtio network card.
pub struct Network<H, M> {
    transport: Transport<H>,
    memory: M,
    receive: Queue,
    receive_doorbell: Doorbell,
    transmit: Queue,
    transmit_doorbell: Doorbell,
    mac: [u8; 6],
    announce: [bool; 2],
    dead: bool,
}

impl<H: HostIo, M: SharedBytes> Network<H, M> {
    /// Brings up the card at its measured slot; `memory` has [`MEMORY_BYTES`].
    pub fn start(io: H, mut memory: M, slot: DeviceSlot) -> Result<Self, DeviceError> {
        if memory.size() < MEMORY_BYTES {
            return Err(Dead);
        }
        let (mut transport, features) = Transport::start(io, slot, Kind::Network, F_MAC)?;
        if features & F_MAC == 0 {
            transport.fail();
            return Err(DeviceError::Unsupported);
        }
        // The address is the host's choice and means nothing to the guest, but it must be one (IEEE 802: unicast).
        let mac: [u8; 6] = transport.configuration()?;
        if mac[0] & 1 != 0 || mac == [0; 6] {
            transport.fail();
            return Err(DeviceError::Unsupported);
        }
        let (receive, receive_doorbell) = transport.queue(RECEIVE as u16, &mut memory, 0)?;
        let (transmit, transmit_doorbell) = transport.queue(TRANSMIT as u16, &mut memory, QUEUE_BYTES)?;
        let announce = [false; 2];
        let mut network = Self {
            transport,
            memory,
            receive,
            receive_doorbell,
            transmit,
            transmit_doorbell,
            mac,
            announce,
            dead: false,
        };
        for slot in 0..SLOTS {
            network.post(slot)?;
        }
        network.transport.run()?;
        network.flush()?;
        Ok(network)
    }

    /// The card's MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Copies the next received frame into `frame` and returns its length; `None` if there is none.
    ///
    /// # Errors
    /// [`DeviceError::Dead`] once the device has lied; it is then not used again.
    pub fn receive(&mut self, frame: &mut [u8; FRAME_BYTES]) -> Result<Option<usize>, DeviceError> {
        self.guarded(|card| {
            let Some(done) = card.receive.poll(&card.memory)? else { return Ok(None) };
            let written = done.written as usize;
            // Shorter than a header and an Ethernet header, or longer than a frame: not a frame.
            let length =
                written.checked_sub(HEADER_BYTES).filter(|n| (14..=FRAME_BYTES).contains(n)).ok_or(Dead)?;
            let offset = Self::buffer_offset(RECEIVE, done.slot) + HEADER_BYTES;
            card.memory.read(offset, &mut frame[..length])?;
            card.post(done.slot)?;
            Ok(Some(length))
        })
    }

    /// Whether a frame can be sent now.
    pub fn can_transmit(&mut self) -> Result<bool, DeviceError> {
        self.guarded(|card| {
            while card.transmit.poll(&card.memory)?.is_some() {}
            Ok(card.transmit.free_slot().is_some())
        })
    }

    /// Queues a frame of at most [`FRAME_BYTES`]; false if the queue is full or the frame too long.
    /// [`Self::flush`] announces it.
    pub fn transmit(&mut self, frame: &[u8]) -> Result<bool, DeviceError> {
        if frame.len() > FRAME_BYTES || !self.can_transmit()? {
            return Ok(false);
        }
        self.guarded(|card| {
            let slot = card.transmit.free_slot().ok_or(Dead)?;
            let offset = Self::buffer_offset(TRANSMIT, slot);
            card.memory.write(offset, &[0; HEADER_BYTES])?;
            card.memory.write(offset + HEADER_BYTES, frame)?;
            let length = (HEADER_BYTES + frame.len()) as u32;
            let buffer = Buffer { gpa: card.memory.gpa() + offset as u64, length, device_writes: false };
            card.transmit.submit(&mut card.memory, slot, &[buffer])?;
            card.announce[TRANSMIT] = true;
            Ok(true)
        })
    }

    /// Announces what was queued since the last call, if the device wants to know.
    pub fn flush(&mut self) -> Result<(), DeviceError> {
        self.guarded(|card| {
            let [receive, transmit] = core::mem::take(&mut card.announce);
            if receive && card.receive.wants_notification(&card.memory)? {
                card.transport.notify(card.receive_doorbell)?;
            }
            if transmit && card.transmit.wants_notification(&card.memory)? {
                card.transport.notify(card.transmit_doorbell)?;
            }
            Ok(())
        })
    }

    /// Gives a receive buffer to the device.
    fn post(&mut self, slot: u16) -> Result<(), DeviceError> {
        let gpa = self.memory.gpa() + Self::buffer_offset(RECEIVE, slot) as u64;
        let length = (HEADER_BYTES + FRAME_BYTES) as u32;
        self.receive.submit(&mut self.memory, slot, &[Buffer { gpa, length, device_writes: true }])?;
        self.announce[RECEIVE] = true;
        Ok(())
    }

    fn buffer_offset(queue: usize, slot: u16) -> usize {
        BUFFERS_OFFSET + (queue * usize::from(SLOTS) + usize::from(slot)) * BUFFER_BYTES
    }

    fn guarded<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        if self.dead {
            return Err(Dead);
        }
        act(self).inspect_err(|_| {
            self.dead = true;
            self.transport.fail();
        })
    }
}
