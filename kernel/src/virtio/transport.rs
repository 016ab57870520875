//! virtio over PCI: finding the registers of a measured device and bringing it up.
//!
//! Source: VIRTIO 1.2 §4.1 "Virtio Over PCI Bus" and §3.1 "Device Initialization".

use super::{DeviceError, queue::Queue};
use crate::host::{Alleged, HostIo, SharedBytes, Width};
use crate::pci::{self, Function};
use attestation::manifest::DeviceSlot;

/// The kinds of device the guest knows, by PCI device identification (§4.1.2.1: 0x1040 + device type).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// Network card (§5.1).
    Network = 0x1041,
    /// Block device (§5.2).
    Block = 0x1042,
}

const VENDOR: u32 = 0x1af4;
/// Size of the memory BAR of QEMU's modern devices (`virtio_pci_modern_mem_init`); registers must lie within it.
const BAR_BYTES: u32 = 0x4000;
const BAR_INDEX: u32 = 4;

// Capability list: PCI 3.0 §6.7; a list cannot have more than (256 - 64) / 4 entries.
const CAPABILITY_VENDOR: u32 = 0x09;
const CAPABILITY_LIMIT: usize = 48;
// §4.1.4: structure types.
const TYPE_COMMON: u8 = 1;
const TYPE_NOTIFY: u8 = 2;
const TYPE_DEVICE: u8 = 4;

// §4.1.4.3: common configuration structure.
const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const DEVICE_STATUS: u64 = 0x14;
const CONFIG_GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFF: u64 = 0x1e;
const QUEUE_ADDRESSES: [u64; 3] = [0x20, 0x28, 0x30];
const COMMON_BYTES: u32 = 0x38;

// §2.1: device status.
const STATUS_ACKNOWLEDGE: u8 = 1;
const STATUS_DRIVER: u8 = 2;
const STATUS_DRIVER_OK: u8 = 4;
const STATUS_FEATURES_OK: u8 = 8;
const STATUS_FAILED: u8 = 128;
const STATUS_RUNNING: u8 = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK | STATUS_FEATURES_OK;
/// Reads of the status until a reset must be seen (§2.4); QEMU's devices reset at once.
const RESET_READS: usize = 1000;

/// §6: the device complies with VIRTIO 1.
const F_VERSION_1: u64 = 1 << 32;
/// §6: the device reaches memory only as the platform lets it; without it, QEMU would bypass the sharing of pages.
const F_ACCESS_PLATFORM: u64 = 1 << 33;

#[derive(Clone, Copy)]
struct Registers {
    offset: u32,
    length: u32,
}

impl Registers {
    /// The structure that a capability describes, if it lies within the BAR.
    fn new(offset: u32, length: u32, minimum: u32) -> Option<Self> {
        let end = offset.checked_add(length)?;
        (end <= BAR_BYTES && length >= minimum && offset.is_multiple_of(4)).then_some(Self { offset, length })
    }
}

/// A virtio device at its measured slot.
pub struct Transport<H> {
    io: H,
    bar: u64,
    common: Registers,
    notify: Registers,
    notify_multiplier: u32,
    device: Option<Registers>,
}

impl<H: HostIo> Transport<H> {
    /// Checks what is at `slot`, gives it its measured address and negotiates `wanted` features beside the two
    /// that every device here must have. Returns the transport and the features both sides have.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] for no device or one of another kind, [`DeviceError::Unsupported`] for one that
    /// lacks a required feature or register, [`DeviceError::Dead`] for one that breaks the protocol.
    pub fn start(mut io: H, slot: DeviceSlot, kind: Kind, wanted: u64) -> Result<(Self, u64), DeviceError> {
        let function = Function::new(slot.device).ok_or(DeviceError::Missing)?;
        if !function.read(&mut io, pci::ID)?.is((kind as u32) << 16 | VENDOR) {
            return Err(DeviceError::Missing);
        }
        let mut transport = Self::locate(io, function, u64::from(slot.bar))?;

        // The BAR moves only while the device decodes nothing (PCI 3.0 §6.2.5.1).
        let io = &mut transport.io;
        function.write(io, pci::COMMAND, pci::COMMAND_NO_INTX)?;
        let bar_offset = pci::BAR0 + 4 * BAR_INDEX as u8;
        function.write(io, bar_offset, slot.bar)?;
        function.write(io, bar_offset + 4, 0)?;
        let low_matches = function.read(io, bar_offset)?.when(|bar| bar & !0xf == slot.bar).is_some();
        if !low_matches || !function.read(io, bar_offset + 4)?.is(0) {
            return Err(DeviceError::Unsupported);
        }
        let command = pci::COMMAND_MEMORY | pci::COMMAND_BUS_MASTER | pci::COMMAND_NO_INTX;
        function.write(io, pci::COMMAND, command)?;

        let features = transport.negotiate(wanted)?;
        Ok((transport, features))
    }

    /// Walks the capability list for the register structures (§4.1.4).
    fn locate(mut io: H, function: Function, bar: u64) -> Result<Self, DeviceError> {
        let (mut common, mut notify, mut device) = (None, None, None);
        let entry = |pointer: u32| {
            let pointer = pointer & 0xfc;
            u8::try_from(pointer).ok().filter(|pointer| *pointer == 0 || (0x40..=0xec).contains(pointer))
        };
        let mut next =
            function.read(&mut io, pci::CAPABILITIES)?.check(|p| entry(p & 0xff)).ok_or(DeviceError::Dead)?;
        for _ in 0..CAPABILITY_LIMIT {
            if next == 0 {
                break;
            }
            let at = next;
            let (header, following) = function
                .read(&mut io, at)?
                .check(|header| Some((header, entry(header >> 8 & 0xff)?)))
                .ok_or(DeviceError::Dead)?;
            next = following;
            if header & 0xff != CAPABILITY_VENDOR {
                continue;
            }
            let kind = (header >> 24) as u8;
            let minimum = match kind {
                TYPE_COMMON => COMMON_BYTES,
                TYPE_NOTIFY => 2,
                TYPE_DEVICE => 0,
                _ => continue,
            };
            if function.read(&mut io, at + 4)?.when(|word| word & 0xff == BAR_INDEX).is_none() {
                continue;
            }
            let offset = function.read(&mut io, at + 8)?;
            let length = function.read(&mut io, at + 12)?;
            let registers = offset
                .check(|offset| length.check(|length| Registers::new(offset, length, minimum)))
                .ok_or(DeviceError::Unsupported)?;
            // "The driver MUST use the first instance" (§4.1.4.1).
            match kind {
                TYPE_COMMON => common = common.or(Some(registers)),
                TYPE_NOTIFY if notify.is_none() => {
                    let multiplier = function
                        .read(&mut io, at + 16)?
                        .when(|multiplier| multiplier.is_multiple_of(2) && multiplier <= BAR_BYTES)
                        .ok_or(DeviceError::Unsupported)?;
                    notify = Some((registers, multiplier));
                }
                TYPE_DEVICE => device = device.or(Some(registers)),
                _ => {}
            }
        }
        let (Some(common), Some((notify, notify_multiplier))) = (common, notify) else {
            return Err(DeviceError::Unsupported);
        };
        Ok(Self { io, bar, common, notify, notify_multiplier, device })
    }

    /// §3.1.1, steps 1 to 6.
    fn negotiate(&mut self, wanted: u64) -> Result<u64, DeviceError> {
        self.set_status(0)?;
        let mut reset = false;
        for _ in 0..RESET_READS {
            if self.status()?.is(0) {
                reset = true;
                break;
            }
        }
        if !reset {
            return Err(DeviceError::Dead);
        }
        self.set_status(STATUS_ACKNOWLEDGE)?;
        self.set_status(STATUS_ACKNOWLEDGE | STATUS_DRIVER)?;

        let mut offered = 0;
        for half in 0..2u64 {
            self.write(DEVICE_FEATURE_SELECT, Width::Long, half)?;
            let bits = self.read(DEVICE_FEATURE, Width::Long)?.at_most(u64::from(u32::MAX));
            offered |= bits.ok_or(DeviceError::Dead)? << (32 * half);
        }
        let required = F_VERSION_1 | F_ACCESS_PLATFORM;
        if offered & required != required {
            self.fail();
            return Err(DeviceError::Unsupported);
        }
        let features = offered & (required | wanted);
        for half in 0..2u64 {
            self.write(DRIVER_FEATURE_SELECT, Width::Long, half)?;
            self.write(DRIVER_FEATURE, Width::Long, features >> (32 * half) & u64::from(u32::MAX))?;
        }
        let status: u8 = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;
        self.set_status(status)?;
        if !self.status()?.is(status.into()) {
            self.fail();
            return Err(DeviceError::Unsupported);
        }
        Ok(features)
    }

    /// Makes queue `index` of the device the one at `offset` of `memory` (§4.1.5.1.3); returns the queue and where
    /// to announce new chains.
    pub fn queue(
        &mut self,
        index: u16,
        memory: &mut impl SharedBytes,
        offset: usize,
    ) -> Result<(Queue, Doorbell), DeviceError> {
        self.write(QUEUE_SELECT, Width::Word, index.into())?;
        let largest = self.read(QUEUE_SIZE, Width::Word)?;
        if largest.when(|size| size >= u64::from(Queue::SIZE)).is_none() {
            self.fail();
            return Err(DeviceError::Unsupported);
        }
        let queue = Queue::new(memory, offset)?;
        self.write(QUEUE_SIZE, Width::Word, Queue::SIZE.into())?;
        for (register, gpa) in QUEUE_ADDRESSES.into_iter().zip(queue.addresses(memory)) {
            self.write(register, Width::Long, gpa & u64::from(u32::MAX))?;
            self.write(register + 4, Width::Long, gpa >> 32)?;
        }
        let multiplier = u64::from(self.notify_multiplier);
        let room = u64::from(self.notify.length) - 2;
        // §4.1.4.4: notify address = offset + queue_notify_off * multiplier, within the structure.
        let place = self
            .read(QUEUE_NOTIFY_OFF, Width::Word)?
            .check(|off| off.checked_mul(multiplier).filter(|place| *place <= room))
            .ok_or(DeviceError::Unsupported)?;
        self.write(QUEUE_ENABLE, Width::Word, 1)?;
        Ok((queue, Doorbell { gpa: self.bar + u64::from(self.notify.offset) + place, index }))
    }

    /// §3.1.1, step 8: the device may run.
    pub fn run(&mut self) -> Result<(), DeviceError> {
        self.set_status(STATUS_RUNNING)
    }

    /// Tells the device that new chains are in a queue.
    pub fn notify(&mut self, doorbell: Doorbell) -> Result<(), DeviceError> {
        Ok(self.io.mmio_write(doorbell.gpa, Width::Word, doorbell.index.into())?)
    }

    /// Gives the device up. What the host makes of it does not matter any more.
    pub fn fail(&mut self) {
        let _ = self.set_status(STATUS_FAILED);
    }

    /// Copies device-specific configuration, all of it from one generation (§2.5.1).
    pub fn configuration<const N: usize>(&mut self) -> Result<[u8; N], DeviceError> {
        let registers =
            self.device.filter(|registers| registers.length as usize >= N).ok_or(DeviceError::Unsupported)?;
        let before = self.generation()?;
        let mut bytes = [0; N];
        for (offset, byte) in (0u64..).zip(&mut bytes) {
            let gpa = self.bar + u64::from(registers.offset) + offset;
            let value = self.io.mmio_read(gpa, Width::Byte)?;
            *byte = value.check(|value| u8::try_from(value).ok()).ok_or(DeviceError::Dead)?;
        }
        if self.generation()? != before {
            return Err(DeviceError::Dead);
        }
        Ok(bytes)
    }

    fn generation(&mut self) -> Result<u8, DeviceError> {
        let generation = self.read(CONFIG_GENERATION, Width::Byte)?;
        generation.check(|value| u8::try_from(value).ok()).ok_or(DeviceError::Dead)
    }

    fn status(&mut self) -> Result<Alleged<u64>, DeviceError> {
        self.read(DEVICE_STATUS, Width::Byte)
    }

    fn set_status(&mut self, status: u8) -> Result<(), DeviceError> {
        self.write(DEVICE_STATUS, Width::Byte, status.into())
    }

    fn read(&mut self, register: u64, width: Width) -> Result<Alleged<u64>, DeviceError> {
        Ok(self.io.mmio_read(self.bar + u64::from(self.common.offset) + register, width)?)
    }

    fn write(&mut self, register: u64, width: Width, value: u64) -> Result<(), DeviceError> {
        Ok(self.io.mmio_write(self.bar + u64::from(self.common.offset) + register, width, value)?)
    }
}

/// Where a queue is announced to its device.
#[derive(Clone, Copy, Debug)]
pub struct Doorbell {
    gpa: u64,
    index: u16,
}
