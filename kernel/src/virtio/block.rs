//! The weights disk: a read-only block device, read front to back.
//!
//! Source: VIRTIO 1.2 §5.2 "Block Device".

use super::queue::{Buffer, QUEUE_BYTES, Queue};
use super::transport::{Doorbell, Kind, Transport};
use super::{DeviceError, DeviceError::Dead};
use crate::host::{HostIo, SharedBytes};
use attestation::manifest::DeviceSlot;

/// Bytes of a sector, the unit of addresses (§5.2.4).
pub const SECTOR_BYTES: usize = 512;
/// Most bytes of one request.
pub const REQUEST_BYTES: usize = 256 * 1024;

const HEADER_OFFSET: usize = QUEUE_BYTES;
const HEADER_BYTES: usize = 16;
const STATUS_OFFSET: usize = HEADER_OFFSET + HEADER_BYTES;
const DATA_OFFSET: usize = QUEUE_BYTES + 0x1000;
/// Shared memory that the disk needs, in bytes.
pub const MEMORY_BYTES: usize = DATA_OFFSET + REQUEST_BYTES;

/// §5.2.3: the device is read-only; taken when offered, though the driver has no way to write.
const F_READ_ONLY: u64 = 1 << 5;
/// §5.2.6: type of a read request.
const TYPE_IN: u32 = 0;
/// §5.2.6: the request succeeded.
const STATUS_OK: u8 = 0;
const SLOT: u16 = 0;

/// A virtio block device.
pub struct Block<H, M> {
    transport: Transport<H>,
    memory: M,
    queue: Queue,
    doorbell: Doorbell,
    dead: bool,
}

impl<H: HostIo, M: SharedBytes> Block<H, M> {
    /// Brings up the disk at its measured slot; `memory` has [`MEMORY_BYTES`]. It is not asked for its capacity, which would
    /// be an allegation: a read past the end fails.
    pub fn start(io: H, mut memory: M, slot: DeviceSlot) -> Result<Self, DeviceError> {
        if memory.size() < MEMORY_BYTES {
            return Err(Dead);
        }
        let (mut transport, _) = Transport::start(io, slot, Kind::Block, F_READ_ONLY)?;
        let (queue, doorbell) = transport.queue(0, &mut memory, 0)?;
        transport.run()?;
        Ok(Self { transport, memory, queue, doorbell, dead: false })
    }

    /// Fills `out`, a whole number of sectors and at most [`REQUEST_BYTES`], from `sector` on. While the device
    /// works, `patience` is asked again and again whether to wait on.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`] when `patience` ends, [`DeviceError::Dead`] for a failed or broken answer. Either
    /// way the device is not used again, as a late answer would write into buffers that have gone on.
    pub fn read(
        &mut self,
        sector: u64,
        out: &mut [u8],
        mut patience: impl FnMut() -> bool,
    ) -> Result<(), DeviceError> {
        if self.dead || out.is_empty() || out.len() > REQUEST_BYTES || !out.len().is_multiple_of(SECTOR_BYTES)
        {
            return Err(Dead);
        }
        self.request(sector, out, &mut patience).inspect_err(|_| {
            self.dead = true;
            self.transport.fail();
        })
    }

    fn request(
        &mut self,
        sector: u64,
        out: &mut [u8],
        patience: &mut dyn FnMut() -> bool,
    ) -> Result<(), DeviceError> {
        let mut header = [0; HEADER_BYTES];
        header[0..4].copy_from_slice(&TYPE_IN.to_le_bytes());
        header[8..16].copy_from_slice(&sector.to_le_bytes());
        self.memory.write(HEADER_OFFSET, &header)?;
        // Not a status of §5.2.6, so an answer that leaves it alone is no success.
        self.memory.write(STATUS_OFFSET, &[0xff])?;

        let length = u32::try_from(out.len()).map_err(|_| Dead)?;
        let gpa = |offset: usize| self.memory.gpa() + offset as u64;
        let chain = [
            Buffer { gpa: gpa(HEADER_OFFSET), length: HEADER_BYTES as u32, device_writes: false },
            Buffer { gpa: gpa(DATA_OFFSET), length, device_writes: true },
            Buffer { gpa: gpa(STATUS_OFFSET), length: 1, device_writes: true },
        ];
        self.queue.submit(&mut self.memory, SLOT, &chain)?;
        self.transport.notify(self.doorbell)?;
        let done = loop {
            if let Some(done) = self.queue.poll(&self.memory)? {
                break done;
            }
            if !patience() {
                return Err(DeviceError::Timeout);
            }
            core::hint::spin_loop();
        };
        let mut status = [0];
        self.memory.read(STATUS_OFFSET, &mut status)?;
        if done.written != length + 1 || status != [STATUS_OK] {
            return Err(Dead);
        }
        self.memory.read(DATA_OFFSET, out)?;
        Ok(())
    }
}
