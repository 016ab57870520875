//! A virtio device made of memory, which can be told to lie.

use crate::host::{Alleged, HostFault, HostIo, OutOfBounds, SharedBytes, Width};
use alloc::{collections::BTreeMap, rc::Rc, vec, vec::Vec};
use attestation::manifest::DeviceSlot;
use core::cell::RefCell;

pub const SLOT: DeviceSlot = DeviceSlot { device: 4, bar: 0xc000_0000 };
const SHARED_GPA: u64 = 0x4000_0000;
const SIZE: u16 = super::queue::Queue::SIZE;

/// How the device lies when it returns a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lie {
    #[default]
    None,
    /// The used index runs ahead of what was submitted.
    IndexJump,
    /// An entry names a descriptor that does not exist.
    IdTooLarge,
    /// An entry names the middle of a chain.
    IdInsideChain,
    /// An entry names a chain that is not in flight.
    IdNotInFlight,
    /// The same chain is returned twice.
    Twice,
    /// More bytes than the chain has.
    TooLong,
    /// Fewer bytes than were asked for.
    TooShort,
    /// The chain's descriptors are rewritten before it is returned.
    DescriptorRewritten,
    /// The request is answered with an error status.
    ErrorStatus,
    /// Nothing is ever returned.
    Silent,
    /// The device resets itself when it is told of a chain, and returns nothing.
    Reset,
}

/// What the device is and how it behaves.
pub struct State {
    pub id: u32,
    pub features: u64,
    pub queue_size: u16,
    pub configuration: Vec<u8>,
    pub lie: Lie,
    /// Whether the device forgets FEATURES_OK.
    pub refuse_features: bool,
    /// Whether the configuration has changed whenever one looks again.
    pub restless: bool,
    generation: u8,
    /// Whether the registers are said to lie outside the BAR.
    pub registers_outside: bool,
    /// Whether the capability list runs in a circle.
    pub circular_capabilities: bool,
    /// Sectors of the disk; each is filled with its number.
    pub sectors: u64,
    /// Frames that wait to be received.
    pub inbox: Vec<Vec<u8>>,
    /// Frames that were transmitted.
    pub outbox: Vec<Vec<u8>>,
    pub accepted: u64,
    status: u8,
    select: u16,
    feature_half: u64,
    config: BTreeMap<u8, u32>,
    config_address: u32,
    rings: BTreeMap<u16, [u64; 3]>,
    seen: BTreeMap<u16, u16>,
    used: BTreeMap<u16, u16>,
    memory: Rc<RefCell<Vec<u8>>>,
}

/// A handle to the fake, as the guest's access to its host.
#[derive(Clone)]
pub struct Host(pub Rc<RefCell<State>>);

/// The fake's shared memory.
pub struct Memory(Rc<RefCell<Vec<u8>>>);

impl SharedBytes for Memory {
    fn gpa(&self) -> u64 {
        SHARED_GPA
    }
    fn size(&self) -> usize {
        self.0.borrow().len()
    }
    fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfBounds> {
        let memory = self.0.borrow();
        out.copy_from_slice(memory.get(offset..offset + out.len()).ok_or(OutOfBounds)?);
        Ok(())
    }
    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let mut memory = self.0.borrow_mut();
        memory.get_mut(offset..offset + bytes.len()).ok_or(OutOfBounds)?.copy_from_slice(bytes);
        Ok(())
    }
}

/// A fake of the given PCI identification and shared memory for its driver.
pub fn device(kind: super::transport::Kind, memory_bytes: usize) -> (Host, Memory) {
    let memory = Rc::new(RefCell::new(vec![0; memory_bytes]));
    let state = State {
        id: (kind as u32) << 16 | 0x1af4,
        features: 1 << 32 | 1 << 33 | 1 << 5,
        queue_size: 256,
        configuration: vec![0x52, 0x54, 0, 0x12, 0x34, 0x56, 0, 0],
        lie: Lie::None,
        refuse_features: false,
        restless: false,
        generation: 0,
        registers_outside: false,
        circular_capabilities: false,
        sectors: 1024,
        inbox: vec![],
        outbox: vec![],
        accepted: 0,
        status: 0,
        select: 0,
        feature_half: 0,
        config: BTreeMap::new(),
        config_address: 0,
        rings: BTreeMap::new(),
        seen: BTreeMap::new(),
        used: BTreeMap::new(),
        memory: memory.clone(),
    };
    (Host(Rc::new(RefCell::new(state))), Memory(memory))
}

// Register structures within the BAR, as QEMU lays them out.
const COMMON: u64 = 0;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;

impl State {
    fn config_read(&self, offset: u8) -> u32 {
        let outside = if self.registers_outside { 0x4000 } else { 0 };
        let second = if self.circular_capabilities { 0x40 } else { 0x54 };
        match offset {
            0x00 => self.id,
            0x34 => 0x40,
            // Three capabilities: common, device, notify (with its multiplier).
            0x40 => 0x0110_0009 | second << 8,
            0x54 => 0x0410_0009 | 0x68 << 8,
            0x68 => 0x0214_0009,
            0x44 | 0x58 | 0x6c => 4,
            0x48 => COMMON as u32 + outside,
            0x5c => DEVICE as u32,
            0x70 => NOTIFY as u32,
            0x4c => 0x38,
            0x60 | 0x74 => 0x1000,
            0x78 => 4,
            other => self.config.get(&other).copied().unwrap_or(0),
        }
    }

    fn load(&self, gpa: u64, bytes: usize) -> Vec<u8> {
        let offset = (gpa - SHARED_GPA) as usize;
        self.memory.borrow()[offset..offset + bytes].to_vec()
    }

    fn store(&self, gpa: u64, bytes: &[u8]) {
        let offset = (gpa - SHARED_GPA) as usize;
        self.memory.borrow_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn load_u16(&self, gpa: u64) -> u16 {
        u16::from_le_bytes(self.load(gpa, 2).try_into().unwrap())
    }

    fn chain(&self, queue: u16, head: u16) -> Vec<(u64, u32, bool)> {
        let table = self.rings[&queue][0];
        let mut chain = vec![];
        let mut index = head;
        loop {
            let d = self.load(table + 16 * u64::from(index), 16);
            let flags = u16::from_le_bytes([d[12], d[13]]);
            let gpa = u64::from_le_bytes(d[0..8].try_into().unwrap());
            chain.push((gpa, u32::from_le_bytes(d[8..12].try_into().unwrap()), flags & 2 != 0));
            if flags & 1 == 0 {
                return chain;
            }
            index = u16::from_le_bytes([d[14], d[15]]);
        }
    }

    fn give_back(&mut self, queue: u16, head: u16, written: u32) {
        let used = self.rings[&queue][2];
        let allowed: u32 = self.chain(queue, head).iter().filter(|b| b.2).map(|b| b.1).sum();
        if self.lie == Lie::DescriptorRewritten {
            self.store(self.rings[&queue][0] + 16 * u64::from(head), &[0xff; 16]);
        }
        let (id, written) = match self.lie {
            Lie::IdTooLarge => (u32::MAX - 3, written),
            Lie::IdInsideChain => (u32::from(head) + 1, written),
            Lie::IdNotInFlight => (u32::from(SIZE) - 4, written),
            Lie::TooLong => (head.into(), allowed + 1),
            Lie::TooShort => (head.into(), 1),
            _ => (head.into(), written),
        };
        let times = if self.lie == Lie::Twice { 2 } else { 1 };
        for _ in 0..times {
            let index = self.used.entry(queue).or_default();
            let place = used + 4 + 8 * u64::from(*index % SIZE);
            *index = index.wrapping_add(1);
            self.store(place, &[id.to_le_bytes(), written.to_le_bytes()].concat());
        }
        let jump = if self.lie == Lie::IndexJump { 1000 } else { 0 };
        let index = self.used[&queue].wrapping_add(jump);
        self.store(used + 2, &index.to_le_bytes());
    }

    /// Works on everything that is available, as a device does when its doorbell rings.
    pub fn work(&mut self) {
        if self.lie == Lie::Silent {
            return;
        }
        let queues: Vec<u16> = self.rings.keys().copied().collect();
        for queue in queues {
            let available = self.rings[&queue][1];
            let end = self.load_u16(available + 2);
            while self.seen.get(&queue).copied().unwrap_or(0) != end {
                let network = self.id >> 16 == super::transport::Kind::Network as u32;
                if network && queue == 0 && self.inbox.is_empty() {
                    break;
                }
                let at = self.seen.entry(queue).or_default();
                let place = available + 4 + 2 * u64::from(*at % SIZE);
                *at = at.wrapping_add(1);
                let head = self.load_u16(place);
                let chain = self.chain(queue, head);
                let written = match (network, queue) {
                    (true, 0) => {
                        let frame = self.inbox.remove(0);
                        self.store(chain[0].0 + 12, &frame);
                        12 + frame.len() as u32
                    }
                    (true, _) => {
                        let bytes = self.load(chain[0].0, chain[0].1 as usize);
                        self.outbox.push(bytes[12..].to_vec());
                        0
                    }
                    (false, _) => self.disk_request(&chain),
                };
                self.give_back(queue, head, written);
            }
        }
    }

    fn disk_request(&self, chain: &[(u64, u32, bool)]) -> u32 {
        let header = self.load(chain[0].0, 16);
        let first = u64::from_le_bytes(header[8..16].try_into().unwrap());
        let count = u64::from(chain[1].1) / 512;
        let good = first + count <= self.sectors && self.lie != Lie::ErrorStatus;
        if good {
            for sector in 0..count {
                self.store(chain[1].0 + 512 * sector, &[(first + sector) as u8; 512]);
            }
        }
        self.store(chain[2].0, &[u8::from(!good)]);
        if good { chain[1].1 + 1 } else { 1 }
    }
}

impl HostIo for Host {
    fn port_read(&mut self, port: u16, _: Width) -> Result<Alleged<u32>, HostFault> {
        assert_eq!(port, 0xcfc);
        let state = self.0.borrow();
        let selected = state.config_address & 0x00ff_ff00 == u32::from(SLOT.device) << 11;
        Ok(Alleged::new(if selected { state.config_read(state.config_address as u8) } else { u32::MAX }))
    }

    fn port_write(&mut self, port: u16, _: Width, value: u32) -> Result<(), HostFault> {
        let mut state = self.0.borrow_mut();
        if port == 0xcf8 {
            state.config_address = value;
        } else {
            let offset = state.config_address as u8;
            state.config.insert(offset, value);
        }
        Ok(())
    }

    fn mmio_read(&mut self, gpa: u64, _: Width) -> Result<Alleged<u64>, HostFault> {
        let mut state = self.0.borrow_mut();
        let register = gpa - u64::from(SLOT.bar);
        Ok(Alleged::new(match register {
            0x04 => state.features >> (32 * state.feature_half) & 0xffff_ffff,
            0x14 => {
                let hidden = if state.refuse_features { 8 } else { 0 };
                u64::from(state.status & !hidden)
            }
            0x15 => {
                state.generation += u8::from(state.restless);
                state.generation.into()
            }
            0x18 => state.queue_size.into(),
            0x1e => state.select.into(),
            _ if register >= DEVICE => state.configuration[(register - DEVICE) as usize].into(),
            _ => 0,
        }))
    }

    fn mmio_write(&mut self, gpa: u64, width: Width, value: u64) -> Result<(), HostFault> {
        let mut state = self.0.borrow_mut();
        let register = gpa - u64::from(SLOT.bar);
        match register {
            0x00 | 0x08 => state.feature_half = value,
            0x0c => {
                let half = state.feature_half;
                state.accepted |= value << (32 * half);
            }
            0x14 => state.status = value as u8,
            0x16 => state.select = value as u16,
            0x20..0x38 => {
                assert_eq!(width, Width::Long);
                let select = state.select;
                let rings = state.rings.entry(select).or_default();
                let ring = &mut rings[(register as usize - 0x20) / 8];
                *ring |= value << (8 * (register % 8));
            }
            NOTIFY.. if state.lie == Lie::Reset => state.status = 0,
            NOTIFY.. => state.work(),
            _ => {}
        }
        Ok(())
    }
}
