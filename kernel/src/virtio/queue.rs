//! A split virtqueue whose every descriptor has a fixed owner.
//!
//! Slot `s` of a queue owns descriptors `s * STRIDE ..` and one place in the bounce buffers, for as long as the
//! queue lives. So there is no free list to corrupt, and a used entry is right exactly when it names a slot in flight.
//! Source: VIRTIO 1.2 §2.7 "Split Virtqueues".

use super::DeviceError;
use crate::host::SharedBytes;
use alloc::{vec, vec::Vec};
use core::sync::atomic::{Ordering, fence};

/// Slots of every queue here; a power of two (§2.7) that QEMU's devices all offer.
pub const SLOTS: u16 = 64;
/// Most descriptors a chain has here.
pub const STRIDE: u16 = 4;
const SIZE: u16 = SLOTS * STRIDE;

const DESCRIPTOR_BYTES: usize = 16;
const AVAILABLE_OFFSET: usize = DESCRIPTOR_BYTES * SIZE as usize;
const USED_OFFSET: usize = 0x2000;
/// Bytes of shared memory that the rings of one queue take.
pub const QUEUE_BYTES: usize = 0x3000;
const _: () = assert!(AVAILABLE_OFFSET + 6 + 2 * SIZE as usize <= USED_OFFSET);
const _: () = assert!(USED_OFFSET + 6 + 8 * SIZE as usize <= QUEUE_BYTES);

// §2.7.5, §2.7.6, §2.7.8
const DESC_F_NEXT: u16 = 1;
const DESC_F_WRITE: u16 = 2;
const AVAIL_F_NO_INTERRUPT: u16 = 1;
const USED_F_NO_NOTIFY: u16 = 1;

/// One buffer of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Guest-physical address, in shared memory.
    pub gpa: u64,
    /// Length in bytes.
    pub length: u32,
    /// Whether the device writes it (else it reads it).
    pub device_writes: bool,
}

/// A chain that the device has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The slot that was submitted.
    pub slot: u16,
    /// Bytes that the device says it wrote; at most what it was allowed to.
    pub written: u32,
}

/// A split virtqueue at a fixed offset of a region of shared memory.
pub struct Queue {
    offset: usize,
    next_available: u16,
    last_used: u16,
    /// For each slot in flight, how many bytes the device may write.
    in_flight: Vec<Option<u32>>,
    outstanding: u16,
}

impl Queue {
    /// Number of descriptors, the queue size told to the device.
    pub const SIZE: u16 = SIZE;

    /// Clears the rings at `offset` of `memory`.
    pub fn new(memory: &mut impl SharedBytes, offset: usize) -> Result<Self, DeviceError> {
        memory.write(offset, &vec![0; QUEUE_BYTES])?;
        memory.write(offset + AVAILABLE_OFFSET, &AVAIL_F_NO_INTERRUPT.to_le_bytes())?;
        Ok(Self {
            offset,
            next_available: 0,
            last_used: 0,
            in_flight: vec![None; SLOTS as usize],
            outstanding: 0,
        })
    }

    /// Guest-physical addresses of descriptor table, available ring and used ring.
    pub fn addresses(&self, memory: &impl SharedBytes) -> [u64; 3] {
        let base = memory.gpa() + self.offset as u64;
        [base, base + AVAILABLE_OFFSET as u64, base + USED_OFFSET as u64]
    }

    /// A slot that is not in flight.
    pub fn free_slot(&self) -> Option<u16> {
        self.in_flight.iter().position(Option::is_none).map(|slot| slot as u16)
    }

    /// Hands the chain of `slot` to the device (§2.7.13).
    ///
    /// # Errors
    /// [`DeviceError::Dead`] if the slot is in flight or the chain is empty or too long: a defect of the driver,
    /// answered like a defect of the device.
    pub fn submit(
        &mut self,
        memory: &mut impl SharedBytes,
        slot: u16,
        chain: &[Buffer],
    ) -> Result<(), DeviceError> {
        let state = self.in_flight.get_mut(slot as usize).ok_or(DeviceError::Dead)?;
        if state.is_some() || chain.is_empty() || chain.len() > STRIDE as usize {
            return Err(DeviceError::Dead);
        }
        let head = slot * STRIDE;
        let mut writable = 0u32;
        for (index, buffer) in (head..).zip(chain) {
            let last = usize::from(index - head) + 1 == chain.len();
            let mut flags = 0;
            if buffer.device_writes {
                flags |= DESC_F_WRITE;
                writable = writable.saturating_add(buffer.length);
            }
            if !last {
                flags |= DESC_F_NEXT;
            }
            let mut descriptor = [0; DESCRIPTOR_BYTES];
            descriptor[0..8].copy_from_slice(&buffer.gpa.to_le_bytes());
            descriptor[8..12].copy_from_slice(&buffer.length.to_le_bytes());
            descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
            descriptor[14..16].copy_from_slice(&if last { 0 } else { index + 1 }.to_le_bytes());
            memory.write(self.offset + DESCRIPTOR_BYTES * usize::from(index), &descriptor)?;
        }
        *state = Some(writable);
        self.outstanding += 1;

        let ring = self.offset + AVAILABLE_OFFSET;
        memory.write(ring + 4 + 2 * usize::from(self.next_available % SIZE), &head.to_le_bytes())?;
        self.next_available = self.next_available.wrapping_add(1);
        // §2.7.13.2: the entry must be visible before the index that announces it.
        fence(Ordering::SeqCst);
        memory.write(ring + 2, &self.next_available.to_le_bytes())?;
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// The next chain that the device has returned, if any (§2.7.14).
    ///
    /// # Errors
    /// [`DeviceError::Dead`] if the used index moves past what is in flight, or an entry names a slot that is not
    /// in flight, or more bytes than the device was allowed to write.
    pub fn poll(&mut self, memory: &impl SharedBytes) -> Result<Option<Completion>, DeviceError> {
        let ring = self.offset + USED_OFFSET;
        let (last_used, outstanding) = (self.last_used, self.outstanding);
        let ready = memory
            .read_u16(ring + 2)?
            .check(|index| {
                let ready = index.wrapping_sub(last_used);
                (ready <= outstanding).then_some(ready)
            })
            .ok_or(DeviceError::Dead)?;
        if ready == 0 {
            return Ok(None);
        }
        fence(Ordering::SeqCst);
        let mut entry = [0; 8];
        memory.read(ring + 4 + 8 * usize::from(self.last_used % SIZE), &mut entry)?;
        let [id0, id1, id2, id3, written @ ..] = entry;
        let id = u32::from_le_bytes([id0, id1, id2, id3]);
        let written = u32::from_le_bytes(written);

        let slot = u16::try_from(id / u32::from(STRIDE)).map_err(|_| DeviceError::Dead)?;
        let allowed = match self.in_flight.get_mut(usize::from(slot)) {
            Some(state) if id % u32::from(STRIDE) == 0 => state.take().ok_or(DeviceError::Dead)?,
            _ => return Err(DeviceError::Dead),
        };
        if written > allowed {
            return Err(DeviceError::Dead);
        }
        self.outstanding -= 1;
        self.last_used = self.last_used.wrapping_add(1);
        Ok(Some(Completion { slot, written }))
    }

    /// Whether the device asks to be told of new chains (§2.7.10). Only a hint: a lie costs the host its own traffic.
    pub fn wants_notification(&self, memory: &impl SharedBytes) -> Result<bool, DeviceError> {
        let flags = memory.read_u16(self.offset + USED_OFFSET)?;
        Ok(!flags.check(|flags| Some(flags & USED_F_NO_NOTIFY != 0)).unwrap_or(false))
    }
}
