//! A virtio device that does its work, seen through a host that lies: every answer passes a script of corruptions.
//!
//! The script says which reads come back changed and how. An empty one is an honest host, so mutations of it reach every
//! depth of the drivers.

use crate::bytes::Bytes;
use attestation::manifest::DeviceSlot;
use kernel::host::{Alleged, HostFault, HostIo, OutOfBounds, SharedBytes, Width};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Where the device is.
pub const SLOT: DeviceSlot = DeviceSlot { device: 4, bar: 0xc000_0000 };
const SHARED_GPA: u64 = 0x4000_0000;
const RINGS: u64 = 256;

/// The host and its device.
pub struct State {
    id: u32,
    config: Vec<u8>,
    address: u32,
    registers: BTreeMap<u8, u32>,
    status: u64,
    half: u64,
    select: u16,
    queues: [[u64; 3]; 2],
    seen: [u16; 2],
    memory: Vec<u8>,
    /// Which reads come back changed: the number of the read, and what is flipped in it.
    corrupt: BTreeMap<u32, u64>,
    reads: u32,
}

/// The guest's side of the host.
#[derive(Clone)]
pub struct Host(Rc<RefCell<State>>);

/// Memory that both sides see.
pub struct Memory(Rc<RefCell<State>>);

/// A device of this kind (0x1041 or 0x1042), and `bytes` of memory. The script: pairs of a read's number (distance from
/// the one before) and a 64-bit mask.
pub fn device(kind: u16, bytes: usize, data: &[u8]) -> (Host, Memory) {
    let mut script = Bytes(data);
    let mut corrupt = BTreeMap::new();
    let mut at = 0u32;
    while !script.is_empty() && corrupt.len() < 200 {
        at = at.saturating_add(script.u16().into());
        // Small masks are as likely as large ones.
        let mask = match script.u8() {
            kind @ 0..=63 => 1 << kind,
            64..=127 => u64::from(script.u8()),
            128..=191 => script.u16().into(),
            _ => script.u64(),
        };
        corrupt.insert(at, mask);
    }
    let config = match kind {
        0x1041 => vec![0x52, 0x54, 0, 0x12, 0x34, 0x56, 0, 0],
        _ => 1024u64.to_le_bytes().to_vec(),
    };
    let state = Rc::new(RefCell::new(State {
        id: u32::from(kind) << 16 | 0x1af4,
        config,
        address: 0,
        registers: BTreeMap::new(),
        status: 0,
        half: 0,
        select: 0,
        queues: [[0; 3]; 2],
        seen: [0; 2],
        memory: vec![0; bytes],
        corrupt,
        reads: 0,
    }));
    (Host(state.clone()), Memory(state))
}

impl State {
    fn lie(&mut self, honest: u64) -> u64 {
        self.reads += 1;
        honest ^ self.corrupt.get(&self.reads).copied().unwrap_or(0)
    }

    fn config_read(&self, register: u8) -> u32 {
        match register {
            0 => self.id,
            0x34 => 0x40,
            // Common, device and notify structures; BAR 4.
            0x40 => 0x0110_5409,
            0x54 => 0x0410_6809,
            0x68 => 0x0214_0009,
            0x44 | 0x58 | 0x6c => 4,
            0x48 => 0,
            0x5c => 0x2000,
            0x70 => 0x3000,
            0x4c => 0x38,
            0x60 | 0x74 => 0x1000,
            0x78 => 4,
            other => self.registers.get(&other).copied().unwrap_or(0),
        }
    }

    fn at(&self, gpa: u64, bytes: usize) -> Option<std::ops::Range<usize>> {
        let start = usize::try_from(gpa.checked_sub(SHARED_GPA)?).ok()?;
        let end = start.checked_add(bytes)?;
        (end <= self.memory.len()).then_some(start..end)
    }

    fn number(&self, gpa: u64, bytes: usize) -> u64 {
        let mut out = [0; 8];
        if let Some(range) = self.at(gpa, bytes) {
            out[..bytes].copy_from_slice(&self.memory[range]);
        }
        u64::from_le_bytes(out)
    }

    fn store(&mut self, gpa: u64, bytes: &[u8]) {
        if let Some(range) = self.at(gpa, bytes.len()) {
            self.memory[range].copy_from_slice(bytes);
        }
    }

    /// Takes every chain that waits, and returns it as done. A network card receives a frame of noise into it.
    fn work(&mut self, queue: usize) {
        let [table, available, used] = self.queues[queue];
        let end = self.number(available + 2, 2) as u16;
        while self.seen[queue] != end {
            let place = u64::from(self.seen[queue]) % RINGS;
            self.seen[queue] = self.seen[queue].wrapping_add(1);
            let head = self.number(available + 4 + 2 * place, 2);
            let (mut at, mut written) = (head, 0u32);
            for _ in 0..4 {
                let descriptor = table + 16 * at;
                let [gpa, length, flags] =
                    [(0, 8), (8, 4), (12, 2)].map(|(o, n)| self.number(descriptor + o, n));
                if flags & 2 != 0 {
                    let length = (length as usize).min(1 << 20);
                    self.store(gpa, &vec![0; length]);
                    written = written.saturating_add(length as u32);
                }
                if flags & 1 == 0 {
                    break;
                }
                at = self.number(descriptor + 14, 2);
            }
            let written = if self.id >> 16 == 0x1041 { written.min(12 + 60) } else { written };
            self.store(used + 4 + 8 * place, &[(head as u32).to_le_bytes(), written.to_le_bytes()].concat());
            let index = self.seen[queue];
            self.store(used + 2, &index.to_le_bytes());
        }
    }
}

impl HostIo for Host {
    fn port_read(&mut self, _: u16, _: Width) -> Result<Alleged<u32>, HostFault> {
        let mut state = self.0.borrow_mut();
        let honest = state.config_read(state.address as u8);
        Ok(Alleged::new(state.lie(honest.into()) as u32))
    }

    fn port_write(&mut self, port: u16, _: Width, value: u32) -> Result<(), HostFault> {
        let mut state = self.0.borrow_mut();
        if port == 0xcf8 {
            assert_eq!(value >> 11 & 0x1f, u32::from(SLOT.device), "another slot is looked at");
            state.address = value;
        } else {
            let register = state.address as u8;
            state.registers.insert(register, value);
        }
        Ok(())
    }

    fn mmio_read(&mut self, gpa: u64, width: Width) -> Result<Alleged<u64>, HostFault> {
        let mut state = self.0.borrow_mut();
        let register = within_bar(gpa);
        let honest = match register {
            0x04 => 0x3_0000_0020 >> (32 * state.half.min(1)) & 0xffff_ffff,
            0x14 => state.status,
            0x18 => RINGS,
            0x1e => state.select.into(),
            0x2000.. => state.config.get(register as usize - 0x2000).copied().unwrap_or(0).into(),
            _ => 0,
        };
        let most = u64::MAX >> (64 - 8 * width.bytes());
        Ok(Alleged::new(state.lie(honest) & most))
    }

    fn mmio_write(&mut self, gpa: u64, _: Width, value: u64) -> Result<(), HostFault> {
        let mut state = self.0.borrow_mut();
        let select = usize::from(state.select).min(1);
        match within_bar(gpa) {
            0x00 => state.half = value,
            0x14 => state.status = value,
            0x16 => state.select = value as u16,
            register @ 0x20..0x38 => {
                let ring = &mut state.queues[select][(register as usize - 0x20) / 8];
                *ring |= value << (8 * (register % 8));
            }
            0x3000.. => state.work(value.min(1) as usize),
            _ => {}
        }
        Ok(())
    }
}

/// The drivers reach into the measured BAR and nowhere else, whatever the device says of itself.
fn within_bar(gpa: u64) -> u64 {
    let register = gpa.wrapping_sub(SLOT.bar.into());
    assert!(register < 0x4000, "{gpa:#x} is outside of the device");
    register
}

impl SharedBytes for Memory {
    fn gpa(&self) -> u64 {
        SHARED_GPA
    }

    fn size(&self) -> usize {
        self.0.borrow().memory.len()
    }

    fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfBounds> {
        let mut state = self.0.borrow_mut();
        out.copy_from_slice(state.memory.get(offset..offset + out.len()).ok_or(OutOfBounds)?);
        for chunk in out.chunks_mut(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let word = state.lie(u64::from_le_bytes(word)).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let mut state = self.0.borrow_mut();
        state.memory.get_mut(offset..offset + bytes.len()).ok_or(OutOfBounds)?.copy_from_slice(bytes);
        Ok(())
    }
}
