//! PCI configuration space of the measured slots on bus 0, by configuration mechanism 1.
//!
//! There is no bus walk: the manifest says where a device is, and anything else on the bus is never looked at
//! (REQUIREMENTS A18). Source: PCI Local Bus Specification 3.0, §3.2.2.3.2 and §6.1.

use crate::host::{Alleged, HostFault, HostIo, Width};

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

/// Offset of the vendor (low half) and device (high half) identification.
pub const ID: u8 = 0x00;
/// Offset of the command (low half) and status (high half) registers.
pub const COMMAND: u8 = 0x04;
/// Offset of the first base address register.
pub const BAR0: u8 = 0x10;
/// Offset of the pointer to the capability list.
pub const CAPABILITIES: u8 = 0x34;

/// [`COMMAND`]: the device answers memory accesses.
pub const COMMAND_MEMORY: u32 = 1 << 1;
/// [`COMMAND`]: the device may read and write memory.
pub const COMMAND_BUS_MASTER: u32 = 1 << 2;
/// [`COMMAND`]: the device may not assert INTx.
pub const COMMAND_NO_INTX: u32 = 1 << 10;

/// The configuration space of function 0 of one device on bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    device: u8,
}

impl Function {
    /// The function at a measured slot; `None` if `device` is not 0 to 31.
    pub const fn new(device: u8) -> Option<Self> {
        if device < 32 { Some(Self { device }) } else { None }
    }

    fn address(self, offset: u8) -> u32 {
        ENABLE | u32::from(self.device) << 11 | u32::from(offset & 0xfc)
    }

    /// Reads the 32-bit register that holds `offset`.
    pub fn read(self, io: &mut impl HostIo, offset: u8) -> Result<Alleged<u32>, HostFault> {
        io.port_write(CONFIG_ADDRESS, Width::Long, self.address(offset))?;
        io.port_read(CONFIG_DATA, Width::Long)
    }

    /// Writes the 32-bit register that holds `offset`.
    pub fn write(self, io: &mut impl HostIo, offset: u8, value: u32) -> Result<(), HostFault> {
        io.port_write(CONFIG_ADDRESS, Width::Long, self.address(offset))?;
        io.port_write(CONFIG_DATA, Width::Long, value)
    }
}
