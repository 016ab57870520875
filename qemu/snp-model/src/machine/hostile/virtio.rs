//! A hostile device: QEMU's own, with what it says rewritten on the way to the guest.
//!
//! Registers of PCI configuration space and of virtio's structures (VIRTIO 1.2 §4.1) pass through here, so this knows
//! where the rings are. When the guest rings a doorbell, the host waits until QEMU has done the work and then changes what
//! QEMU wrote, before the guest looks again. The offsets are those of QEMU's modern devices.

use super::{Hostile, memory::page_of};
use crate::machine::{cpu, devices, machine::Machine, memory::HostPage, stop::violation};
use alloc::vec::Vec;
use snp_model::{
    PAGE_BYTES,
    ghcb::PortAccess,
    hostile::{Lie, TRAP_SLOT},
};

const VENDOR: u32 = 0x1AF4;
const NETWORK: u32 = 0x1041;
const DISK: u32 = 0x1042;
const BAR_BYTES: u64 = 0x4000;

const FEATURE_SELECT: u64 = 0x00;
const FEATURES: u64 = 0x04;
const STATUS: u64 = 0x14;
const GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const ADDRESSES: core::ops::Range<u64> = 0x20..0x38;
const CONFIGURATION: u64 = 0x2000;
const DOORBELLS: u64 = 0x3000;

/// From this sector on a truncated disk has nothing: the second half of the default model's weights.
const TRUNCATED_FROM: u64 = 2048;
/// Milliseconds that a device gets for its work.
const PATIENCE_MS: u32 = 5000;

/// What the guest has told the PCI bus.
#[derive(Default)]
pub struct Bus {
    address: u32,
    /// The capability whose header was read last.
    capability: (u8, u8),
    devices: Vec<Device>,
}

struct Device {
    slot: u8,
    kind: u32,
    bar: u64,
    feature_half: u64,
    queue: u64,
    queues: [Queue; 2],
}

#[derive(Clone, Copy, Default)]
struct Queue {
    size: u16,
    /// Descriptor table, available ring, used ring.
    rings: [u64; 3],
}

/// About a millisecond, in which QEMU's devices work.
fn rest() {
    const TICKS: u64 = 2_000_000;
    let start = cpu::timestamp();
    while cpu::timestamp().wrapping_sub(start) < TICKS {
        core::hint::spin_loop();
    }
}

impl Bus {
    fn device(&mut self, gpa: u64) -> Option<&mut Device> {
        self.devices.iter_mut().find(|device| (device.bar..device.bar + BAR_BYTES).contains(&gpa))
    }

    fn selected(&self) -> (u8, u8) {
        ((self.address >> 11 & 31) as u8, self.address as u8)
    }
}

impl Hostile {
    /// What the guest reads from a port where `honest` is.
    pub fn port_read(&mut self, access: PortAccess, honest: u32) -> u32 {
        let Some(lie) = self.lie else { return honest };
        self.watch_ports(access);
        if access.port != 0xCFC {
            return honest;
        }
        let (slot, register) = self.bus.selected();
        if register == 0 && honest & 0xFFFF == VENDOR {
            let kind = honest >> 16;
            if !self.bus.devices.iter().any(|device| device.slot == slot) {
                let queues = [Queue::default(); 2];
                self.bus.devices.push(Device { slot, kind, bar: 0, feature_half: 0, queue: 0, queues });
            }
            if lie == Lie::WrongId && kind == DISK {
                return honest + (1 << 16);
            }
        }
        const VENDOR_CAPABILITY: u32 = 0x09;
        const COMMON: u8 = 1;
        let (header, kind) = self.bus.capability;
        if register >= 0x40 && honest & 0xFF == VENDOR_CAPABILITY && register != header + 8 {
            self.bus.capability = (register, (honest >> 24) as u8);
            if lie == Lie::CapabilityCircle {
                return honest & !0xFF00 | u32::from(register) << 8;
            }
        }
        if lie == Lie::RegistersOutside && kind == COMMON && register == header + 8 {
            return BAR_BYTES as u32;
        }
        honest
    }

    fn port_write(&mut self, access: PortAccess, value: u32) {
        const BAR_4: u8 = 0x20;
        self.watch_ports(access);
        match access.port {
            0xCF8 => {
                self.bus.address = value;
                let (slot, _) = self.bus.selected();
                if self.tells(Lie::ExtraDevices) && slot >= TRAP_SLOT {
                    violation!("the guest looks at PCI slot {slot:#x}, where no device of its manifest is");
                }
            }
            0xCFC if self.bus.selected().1 == BAR_4 => {
                let (slot, _) = self.bus.selected();
                if let Some(device) = self.bus.devices.iter_mut().find(|device| device.slot == slot) {
                    device.bar = u64::from(value & !0xF);
                }
            }
            _ => {}
        }
    }

    fn watch_ports(&self, access: PortAccess) {
        let known = matches!(access.port, 0xE9 | 0xCF8..=0xCFF);
        if self.tells(Lie::ExtraDevices) && !known {
            violation!("the guest uses port {:#x}, where no device of its manifest is", access.port);
        }
    }

    /// What the guest reads from device memory where `honest` is.
    pub fn mmio_read(&mut self, gpa: u64, honest: u64) -> u64 {
        let Some(lie) = self.lie else { return honest };
        let Some(device) = self.bus.device(gpa) else {
            if lie == Lie::ExtraDevices {
                violation!("the guest reads device memory at {gpa:#x}, where no device of its manifest is");
            }
            return honest;
        };
        match (lie, device.kind, gpa - device.bar) {
            // VIRTIO_F_ACCESS_PLATFORM is bit 33.
            (Lie::NoPlatform, DISK, FEATURES) if device.feature_half == 1 => honest & !0b10,
            (Lie::Generation, NETWORK, GENERATION) => {
                self.count += 1;
                self.count & 0xFF
            }
            (Lie::CardMac, NETWORK, CONFIGURATION) => honest | 1,
            _ => honest,
        }
    }

    fn learn(&mut self, gpa: u64, value: u64) {
        let Some(device) = self.bus.device(gpa) else { return };
        let register = gpa - device.bar;
        let queue = device.queues.get_mut(device.queue as usize);
        match (register, queue) {
            (FEATURE_SELECT, _) => device.feature_half = value,
            (QUEUE_SELECT, _) => device.queue = value,
            (QUEUE_SIZE, Some(queue)) => queue.size = value as u16,
            (at, Some(queue)) if ADDRESSES.contains(&at) => {
                let ring = &mut queue.rings[((at - ADDRESSES.start) / 8) as usize];
                let shift = 8 * (at % 8);
                *ring = *ring & !(0xFFFF_FFFF << shift) | value << shift;
            }
            _ => {}
        }
    }
}

impl Machine {
    /// The guest wrote to a port, through the GHCB at `ghcb`.
    pub fn hostile_port_write(&mut self, access: PortAccess, value: u32, ghcb: u64) {
        const EVENTS: u16 = 0xE9;
        if self.hostile.lie.is_some() {
            self.hostile.port_write(access, value);
            if access.port == EVENTS {
                self.hostile_event(value as u8, ghcb);
            }
        }
    }

    /// The guest writes device memory.
    pub fn hostile_mmio_write(&mut self, gpa: u64, bytes: usize, value: u64) {
        let Some(lie) = self.hostile.lie else { return devices::mmio_write(gpa, bytes, value) };
        self.hostile.learn(gpa, value);
        let rung = self.hostile.bus.device(gpa).and_then(|device| {
            let queue = *device.queues.get(value as usize)?;
            (gpa - device.bar >= DOORBELLS && queue.size > 0).then_some((
                device.kind,
                device.bar,
                value,
                queue,
            ))
        });
        match rung {
            Some((DISK, bar, 0, queue)) => self.disk_request(lie, (gpa, bytes, value), bar, queue),
            Some((NETWORK, _, 1, queue)) if lie == Lie::CardIndexJump => {
                let before = self.used_index(queue);
                devices::mmio_write(gpa, bytes, value);
                self.wait(queue, before);
                self.jump(queue);
            }
            _ => devices::mmio_write(gpa, bytes, value),
        }
    }

    fn disk_request(&mut self, lie: Lie, (gpa, bytes, value): (u64, usize, u64), bar: u64, queue: Queue) {
        self.hostile.disk_was_asked = true;
        match lie {
            Lie::Silent => return,
            // The request is in the ring, but the device has forgotten the ring.
            Lie::ResetInFlight => return devices::mmio_write(bar + STATUS, 1, 0),
            _ => {}
        }
        let before = self.used_index(queue);
        devices::mmio_write(gpa, bytes, value);
        let Some(entry) = self.wait(queue, before) else { return };
        let (page, at) = entry;
        let id: u32 = page.read(at);
        let Some([header, data, status]) = self.chain(queue, id) else { return };
        let Some(sector) = self.shared_u64(header + 8) else { return };
        match lie {
            Lie::IndexJump => self.jump(queue),
            Lie::IdTooLarge => page.write(at, 0xFFFF_FFF0u32),
            Lie::IdInside => page.write(at, id + 1),
            Lie::TooLong => page.write(at + 4, page.read::<u32>(at + 4) + 1),
            Lie::Rewritten => {
                for byte in 0..48 {
                    self.poke(queue.rings[0] + u64::from(id) * 16 + byte, |_| 0xFF);
                }
            }
            Lie::BitFlip if sector == 512 => self.poke(data + 1000, |byte| byte ^ 0x10),
            Lie::Truncated if sector >= TRUNCATED_FROM => self.poke(status, |_| 1),
            Lie::Slow => (0..100).for_each(|_| rest()),
            Lie::SecondRead if !self.hostile.sectors.insert(sector) => self.poke(data, |byte| !byte),
            _ => {}
        }
    }

    /// Waits for the next used entry: its page and where it is in it.
    fn wait(&self, queue: Queue, before: u16) -> Option<(HostPage, usize)> {
        let mut tries = 0;
        while self.used_index(queue) == before {
            tries += 1;
            if tries > PATIENCE_MS {
                return None;
            }
            rest();
        }
        let gpa = queue.rings[2] + 4 + 8 * u64::from(before % queue.size);
        Some((self.shared_page(gpa)?, gpa as usize % PAGE_BYTES))
    }

    fn used_index(&self, queue: Queue) -> u16 {
        let gpa = queue.rings[2] + 2;
        self.shared_page(gpa).map_or(0, |page| page.read(gpa as usize % PAGE_BYTES))
    }

    /// How many frames the network card has put into the guest's memory, modulo 2^16.
    pub(super) fn frames_received(&self) -> u16 {
        let card = self.hostile.bus.devices.iter().find(|device| device.kind == NETWORK);
        card.map(|card| card.queues[0])
            .filter(|queue| queue.size > 0)
            .map_or(0, |queue| self.used_index(queue))
    }

    fn jump(&self, queue: Queue) {
        let gpa = queue.rings[2] + 2;
        if let Some(page) = self.shared_page(gpa) {
            let at = gpa as usize % PAGE_BYTES;
            page.write(at, page.read::<u16>(at).wrapping_add(1000));
        }
    }

    /// The addresses of a chain of three.
    fn chain(&self, queue: Queue, head: u32) -> Option<[u64; 3]> {
        let table = queue.rings[0] + u64::from(head) * 16;
        Some([self.shared_u64(table)?, self.shared_u64(table + 16)?, self.shared_u64(table + 32)?])
    }

    fn shared_u64(&self, gpa: u64) -> Option<u64> {
        Some(self.shared_page(gpa)?.read(gpa as usize % PAGE_BYTES))
    }

    fn poke(&self, gpa: u64, change: impl FnOnce(u8) -> u8) {
        if let Some(page) = self.shared_page(gpa) {
            let at = gpa as usize % PAGE_BYTES;
            page.write(at, change(page.read(at)));
        }
    }

    /// Pages of every ring, and those that descriptors name.
    pub(super) fn device_pages(&self) -> Vec<u64> {
        let mut pages = Vec::new();
        for queue in self.hostile.bus.devices.iter().flat_map(|device| device.queues).filter(|q| q.size > 0) {
            // Each ring takes at most a page, as the queues have 256 entries.
            pages.extend(queue.rings.iter().flat_map(|ring| [page_of(*ring), page_of(*ring + 0xFFF)]));
            for index in 0..u64::from(queue.size) {
                let at = queue.rings[0] + index * 16;
                let (Some(gpa), Some(rest)) = (self.shared_u64(at), self.shared_u64(at + 8)) else {
                    continue;
                };
                let length = rest & 0xFFFF_FFFF;
                pages.extend((page_of(gpa)..gpa + length).step_by(PAGE_BYTES));
            }
        }
        pages
    }
}
