//! The PCI and virtio drivers against a host that changes what it says.

use crate::bytes::Bytes;
use crate::device::{SLOT, device};
use kernel::host::{Alleged, HostFault, HostIo, Width};
use kernel::virtio::DeviceError;
use kernel::virtio::block::{self, Block};
use kernel::virtio::network::{self, FRAME_BYTES, Network};
use kernel::virtio::transport::{Kind, Transport};

/// A host whose every answer comes from the input.
struct Noise<'a> {
    script: Bytes<'a>,
    accesses: u32,
}

impl Noise<'_> {
    fn count(&mut self) -> Result<(), HostFault> {
        self.accesses += 1;
        assert!(self.accesses < 10_000, "a device keeps the guest busy");
        if self.script.is_empty() { Err(HostFault) } else { Ok(()) }
    }
}

impl HostIo for Noise<'_> {
    fn port_read(&mut self, _: u16, _: Width) -> Result<Alleged<u32>, HostFault> {
        self.count()?;
        // What the guest wants to see is short to say.
        let value = match self.script.u8() {
            0 => 0x1042_1af4,
            1 => SLOT.bar,
            2 => 0,
            3 => 4,
            4 => 0x38,
            kind @ 5..=12 => u32::from(kind - 4) << 24 | u32::from(self.script.u8() & 0xfc) << 8 | 0x09,
            13 => self.script.u16().into(),
            _ => self.script.u32(),
        };
        Ok(Alleged::new(value))
    }

    fn port_write(&mut self, port: u16, _: Width, value: u32) -> Result<(), HostFault> {
        self.count()?;
        assert!(port == 0xcfc || port == 0xcf8 && value >> 11 & 31 == u32::from(SLOT.device), "another slot");
        Ok(())
    }

    fn mmio_read(&mut self, gpa: u64, width: Width) -> Result<Alleged<u64>, HostFault> {
        self.count()?;
        assert!((SLOT.bar.into()..u64::from(SLOT.bar) + 0x4000).contains(&gpa), "{gpa:#x} is no register");
        let most = u64::MAX >> (64 - 8 * width.bytes());
        Ok(Alleged::new(if self.script.u8() == 0 { 0 } else { self.script.u64() & most }))
    }

    fn mmio_write(&mut self, gpa: u64, _: Width, _: u64) -> Result<(), HostFault> {
        self.count()?;
        assert!((SLOT.bar.into()..u64::from(SLOT.bar) + 0x4000).contains(&gpa), "{gpa:#x} is no register");
        Ok(())
    }
}

/// Configuration space and registers of nothing but noise.
pub fn pci(data: &[u8]) {
    let host = Noise { script: Bytes(data), accesses: 0 };
    if let Ok((mut transport, features)) = Transport::start(host, SLOT, Kind::Block, 1 << 5) {
        assert_eq!(features & !(3 << 32 | 1 << 5), 0, "a feature that nobody asked for");
        let _ = transport.configuration::<8>();
        let _ = transport.run();
    }
}

/// A capability list with all that is needed, then registers.
pub fn pci_seeds() -> Vec<Vec<u8>> {
    let mut seed = vec![0, 15];
    seed.extend(0x40u32.to_le_bytes());
    // Header (type and next), BAR, offset, length; common, notify with multiplier, device.
    seed.extend([5, 0x54, 3, 2, 4]);
    seed.extend([6, 0x68, 3, 13, 0, 0x30, 13, 0, 0x10, 3]);
    seed.extend([8, 0, 3, 13, 0, 0x20, 13, 0, 0x10]);
    seed.extend([1, 2, 0]);
    for word in [0x20u64, 3, 0x0b, 0, 0] {
        seed.push(1);
        seed.extend(word.to_le_bytes());
    }
    seed.extend([0; 12]);
    vec![seed, vec![0, 2], vec![0; 64]]
}

/// The disk: a few reads.
pub fn block(data: &[u8]) {
    let (host, memory) = device(Kind::Block as u16, block::MEMORY_BYTES, data);
    let Ok(mut disk) = Block::start(host, memory, SLOT) else { return };
    let mut dead = false;
    for sector in 0..4 {
        let mut out = [0xaa; 1024];
        let mut patience = 100;
        let done = disk.read(sector, &mut out, || {
            patience -= 1;
            patience > 0
        });
        assert!(done.is_err() || !dead, "a dead device was used again");
        assert!(done.is_ok() || out == [0xaa; 1024], "part of a broken answer was handed on");
        dead = done.is_err();
    }
}

/// The network card: frames in and out.
pub fn network(data: &[u8]) {
    let (host, memory) = device(Kind::Network as u16, network::MEMORY_BYTES, data);
    let Ok(mut card) = Network::start(host, memory, SLOT) else { return };
    assert!(card.mac()[0] & 1 == 0, "a group address");
    let mut dead = false;
    let mut check = |failed: bool, what: Option<DeviceError>| {
        assert!(failed || !dead, "a dead device was used again");
        dead = failed;
        assert!(what.is_none() || what == Some(DeviceError::Dead));
    };
    let mut frame = [0; FRAME_BYTES];
    for _ in 0..8 {
        let received = card.receive(&mut frame);
        if let Ok(Some(length)) = received {
            assert!((14..=FRAME_BYTES).contains(&length), "{length} bytes are no frame");
        }
        check(received.is_err(), received.err());
        let sent = card.transmit(&[0x55; 60]);
        check(sent.is_err(), sent.err());
        let flushed = card.flush();
        check(flushed.is_err(), flushed.err());
    }
}

/// An honest host, and one that changes single reads.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![]];
    for read in [1u16, 5, 20, 40, 60, 80, 100] {
        seeds.push([&read.to_le_bytes()[..], &[3]].concat());
    }
    seeds
}
