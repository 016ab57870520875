//! The drivers against an honest device and against every lie of [`super::fake`].

use super::DeviceError;
use super::block::{self, Block};
use super::fake::{self, Host, Lie, Memory, SLOT};
use super::network::{self, FRAME_BYTES, Network};
use super::transport::Kind;
use alloc::{vec, vec::Vec};

fn disk() -> (Host, Memory) {
    let (host, memory) = fake::device(Kind::Block, block::MEMORY_BYTES);
    host.0.borrow_mut().configuration = 1024u64.to_le_bytes().to_vec();
    (host, memory)
}

fn card() -> (Host, Memory) {
    fake::device(Kind::Network, network::MEMORY_BYTES)
}

#[test]
fn an_honest_disk_is_read_in_order() {
    let (host, memory) = disk();
    let mut disk = Block::start(host.clone(), memory, SLOT).unwrap();
    // Only what the driver understands is accepted: VERSION_1, ACCESS_PLATFORM, RO.
    assert_eq!(host.0.borrow().accepted, 1 << 32 | 1 << 33 | 1 << 5);
    for first in [0, 7, 1022] {
        let mut out = [0; 1024];
        disk.read(first, &mut out, || false).unwrap();
        assert!(out[..512].iter().all(|b| *b == first as u8));
        assert!(out[512..].iter().all(|b| *b == (first + 1) as u8));
    }
}

#[test]
fn a12_a_lying_disk_is_dead() {
    for lie in [
        Lie::IndexJump,
        Lie::IdTooLarge,
        Lie::IdInsideChain,
        Lie::IdNotInFlight,
        Lie::TooLong,
        Lie::TooShort,
        Lie::ErrorStatus,
    ] {
        let (host, memory) = disk();
        let mut disk = Block::start(host.clone(), memory, SLOT).unwrap();
        host.0.borrow_mut().lie = lie;
        let mut out = [0; 512];
        assert_eq!(disk.read(0, &mut out, || true), Err(DeviceError::Dead), "{lie:?}");
        assert_eq!(out, [0; 512], "{lie:?}: nothing of a broken answer is handed on");
        host.0.borrow_mut().lie = Lie::None;
        assert_eq!(disk.read(0, &mut out, || true), Err(DeviceError::Dead), "{lie:?}: dead stays dead");
    }
}

#[test]
fn a12_a_configuration_that_changes_while_it_is_read_is_refused() {
    let (host, memory) = card();
    host.0.borrow_mut().restless = true;
    assert_eq!(Network::start(host, memory, SLOT).err(), Some(DeviceError::Dead));
}

#[test]
fn a12_a_device_that_resets_itself_in_flight_is_not_used_again() {
    let (host, memory) = disk();
    let mut disk = Block::start(host.clone(), memory, SLOT).unwrap();
    host.0.borrow_mut().lie = Lie::Reset;
    let mut waited = 0;
    let mut patience = || {
        waited += 1;
        waited < 10
    };
    assert_eq!(disk.read(0, &mut [0; 512], &mut patience), Err(DeviceError::Timeout));
    host.0.borrow_mut().lie = Lie::None;
    assert_eq!(disk.read(0, &mut [0; 512], || true), Err(DeviceError::Dead));
}

#[test]
fn a12_a_read_past_the_end_fails() {
    let (host, memory) = disk();
    let mut disk = Block::start(host, memory, SLOT).unwrap();
    assert_eq!(disk.read(1024, &mut [0; 512], || true), Err(DeviceError::Dead));
}

#[test]
fn a12_a_rewritten_descriptor_changes_nothing() {
    let (host, memory) = disk();
    let mut disk = Block::start(host.clone(), memory, SLOT).unwrap();
    host.0.borrow_mut().lie = Lie::DescriptorRewritten;
    let mut out = [0; 512];
    for sector in 1..4 {
        disk.read(sector, &mut out, || true).unwrap();
        assert_eq!(out, [sector as u8; 512]);
    }
}

#[test]
fn a13_a_silent_disk_times_out_once() {
    let (host, memory) = disk();
    let mut disk = Block::start(host.clone(), memory, SLOT).unwrap();
    host.0.borrow_mut().lie = Lie::Silent;
    let mut asked = 0;
    let result = disk.read(0, &mut [0; 512], || {
        asked += 1;
        asked < 10
    });
    assert_eq!((result, asked), (Err(DeviceError::Timeout), 10));
    assert_eq!(disk.read(0, &mut [0; 512], || true), Err(DeviceError::Dead));
}

#[test]
fn an_honest_card_carries_more_frames_than_it_has_buffers() {
    let (host, memory) = card();
    let mut card = Network::start(host.clone(), memory, SLOT).unwrap();
    assert_eq!(card.mac(), [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    let mut frame = [0; FRAME_BYTES];
    for n in 0..1000u32 {
        let sent: Vec<u8> = (0..60 + n % 1400).map(|i| (i + n) as u8).collect();
        assert!(card.transmit(&sent).unwrap());
        host.0.borrow_mut().inbox.push(sent.clone());
        card.flush().unwrap();
        host.0.borrow_mut().work();
        assert_eq!(host.0.borrow_mut().outbox.pop().unwrap(), sent);
        let length = card.receive(&mut frame).unwrap().unwrap();
        assert_eq!(frame[..length], sent);
    }
    assert_eq!(card.receive(&mut frame), Ok(None));
}

#[test]
fn a_full_transmit_queue_is_no_error() {
    let (host, memory) = card();
    let mut card = Network::start(host.clone(), memory, SLOT).unwrap();
    host.0.borrow_mut().lie = Lie::Silent;
    let accepted = (0..100).take_while(|_| card.transmit(&[0; 60]).unwrap()).count();
    assert_eq!(accepted, usize::from(super::queue::SLOTS));
    assert_eq!(card.transmit(&[0; FRAME_BYTES + 1]), Ok(false));
}

#[test]
fn a12_a_lying_card_is_dead() {
    for lie in [
        Lie::IndexJump,
        Lie::IdTooLarge,
        Lie::IdInsideChain,
        Lie::IdNotInFlight,
        Lie::Twice,
        Lie::TooLong,
        Lie::TooShort,
    ] {
        let (host, memory) = card();
        let mut card = Network::start(host.clone(), memory, SLOT).unwrap();
        // All receive buffers but one stay with the driver's other slots, so `IdNotInFlight` is the transmit queue's.
        host.0.borrow_mut().lie = lie;
        let mut frame = [0; FRAME_BYTES];
        let mut broken = false;
        for _ in 0..3 {
            host.0.borrow_mut().inbox.push(vec![1; 60]);
            let transmitted = card.transmit(&[2; 60]).and_then(|_| card.flush());
            host.0.borrow_mut().work();
            broken |= transmitted == Err(DeviceError::Dead)
                || card.receive(&mut frame) == Err(DeviceError::Dead)
                || card.can_transmit() == Err(DeviceError::Dead);
        }
        assert!(broken, "{lie:?}");
        host.0.borrow_mut().lie = Lie::None;
        assert_eq!(card.receive(&mut frame), Err(DeviceError::Dead), "{lie:?}: dead stays dead");
        assert_eq!(card.transmit(&[0; 60]), Err(DeviceError::Dead), "{lie:?}: dead stays dead");
    }
}

#[test]
fn a12_a_device_that_is_not_the_measured_one_is_refused() {
    let refused = |spoil: &dyn Fn(&mut fake::State)| {
        let (host, memory) = card();
        spoil(&mut host.0.borrow_mut());
        Network::start(host, memory, SLOT).err().expect("the device is refused")
    };
    assert_eq!(refused(&|s| s.id = u32::MAX), DeviceError::Missing);
    assert_eq!(refused(&|s| s.id = 0x1042_1af4), DeviceError::Missing);
    assert_eq!(refused(&|s| s.features &= !(1 << 32)), DeviceError::Unsupported);
    assert_eq!(refused(&|s| s.features &= !(1 << 33)), DeviceError::Unsupported);
    assert_eq!(refused(&|s| s.features &= !(1 << 5)), DeviceError::Unsupported);
    assert_eq!(refused(&|s| s.refuse_features = true), DeviceError::Unsupported);
    assert_eq!(refused(&|s| s.queue_size = 8), DeviceError::Unsupported);
    assert_eq!(refused(&|s| s.registers_outside = true), DeviceError::Unsupported);
    assert_eq!(refused(&|s| s.circular_capabilities = true), DeviceError::Unsupported);
    assert_eq!(refused(&|s| s.configuration = vec![1; 8]), DeviceError::Unsupported);
}
