//! The server against clients on the other end of a cable in memory.

use super::*;
use proptest::prelude::*;
use smoltcp::phy::{ChecksumCapabilities, DeviceCapabilities, Loopback, Medium, RxToken, TxToken};
use std::collections::VecDeque;

/// Gives back what it gets, in capitals; takes so many connections.
struct Shout {
    places: usize,
    next: u32,
    open: Vec<(u32, Vec<u8>)>,
}

impl Shout {
    fn of(&self, id: u32) -> Option<&(u32, Vec<u8>)> {
        self.open.iter().find(|(open, _)| *open == id)
    }
}

impl Handler for Shout {
    type Id = u32;

    fn open(&mut self) -> Option<u32> {
        if self.open.len() >= self.places {
            return None;
        }
        self.next += 1;
        self.open.push((self.next, Vec::new()));
        Some(self.next)
    }

    fn receive(&mut self, id: u32, bytes: &[u8]) {
        if let Some((_, pending)) = self.open.iter_mut().find(|(open, _)| *open == id) {
            pending.extend(bytes.to_ascii_uppercase());
        }
    }

    fn pending(&self, id: u32) -> &[u8] {
        self.of(id).map_or(&[], |(_, pending)| pending)
    }

    fn sent(&mut self, id: u32, count: usize) {
        if let Some((_, pending)) = self.open.iter_mut().find(|(open, _)| *open == id) {
            pending.drain(..count);
        }
    }

    fn wants_close(&self, id: u32) -> bool {
        self.of(id).is_none()
    }

    fn close(&mut self, id: u32) {
        self.open.retain(|(open, _)| *open != id);
    }
}

const NETWORK: manifest::Network =
    manifest::Network { address: [10, 0, 2, 15], prefix: 24, gateway: [10, 0, 2, 2], port: 443 };
const PLACES: u32 = 2;

/// The server's stack, and sockets of its own machine as the clients.
struct World {
    device: Loopback,
    server: Server<u32>,
    handler: Shout,
    now: u64,
}

impl World {
    fn new() -> Self {
        let mut device = Loopback::new(Medium::Ethernet);
        let server = Server::new(&mut device, [2, 0, 0, 0, 0, 1], &NETWORK, PLACES, 7, 0);
        let handler = Shout { places: PLACES as usize, next: 0, open: Vec::new() };
        Self { device, server, handler, now: 0 }
    }

    fn client(&mut self, port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        let to = (Ipv4Address::from(NETWORK.address), NETWORK.port);
        socket.connect(self.server.interface.context(), to, port).unwrap();
        self.server.sockets.add(socket)
    }

    fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.now += 1;
            self.server.poll(&mut self.device, &mut self.handler, self.now);
        }
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.server.sockets.get_mut(handle)
    }
}

#[test]
fn bytes_go_both_ways_and_the_end_is_seen() {
    let mut world = World::new();
    let client = world.client(50_000);
    world.run(20);
    world.socket(client).send_slice(b"hello").unwrap();
    world.run(20);
    let mut answer = [0; 16];
    let count = world.socket(client).recv_slice(&mut answer).unwrap();
    assert_eq!(&answer[..count], b"HELLO");
    world.socket(client).close();
    world.run(50);
    assert!(world.handler.open.is_empty());
    assert_eq!(world.server.listening(), PLACES as usize + SPARE_SOCKETS);
}

#[test]
fn a_connection_that_the_service_drops_is_ended() {
    let mut world = World::new();
    let client = world.client(50_000);
    world.run(20);
    world.handler.open.clear();
    world.run(20);
    assert!(!world.socket(client).may_recv());
}

#[test]
fn a17_more_clients_than_places_take_no_memory() {
    let mut world = World::new();
    let clients: Vec<_> = (0..100).map(|i| world.client(50_000 + i)).collect();
    world.run(200);
    assert_eq!(world.handler.open.len(), PLACES as usize);
    assert!(world.server.listening() > 0);
    assert_eq!(world.server.slots.len(), PLACES as usize + SPARE_SOCKETS);
    let served = clients.into_iter().find(|client| world.socket(*client).may_recv()).unwrap();
    world.socket(served).send_slice(b"still here").unwrap();
    world.run(20);
    assert!(world.socket(served).can_recv());
}

#[test]
fn a17_half_open_handshakes_give_their_places_back() {
    let mut world = World::new();
    for i in 0..50 {
        let client = world.client(50_000 + i);
        // The SYN leaves; then this client forgets all about it.
        world.run(1);
        world.server.sockets.remove(client);
    }
    let late = world.client(60_000);
    world.run(3_000);
    assert!(world.socket(late).may_send());
    world.run(HANDSHAKE_MS + PEER_TIMEOUT_MS);
    assert!(world.server.listening() >= SPARE_SOCKETS);
}

/// A cable on which the next frame has always arrived already.
struct Flood(usize);

struct Frame;

impl Device for Flood {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Frame;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Frame)> {
        self.0 += 1;
        assert!(self.0 <= 10 * FRAMES_PER_TURN, "the guest does nothing but read");
        Some((Frame, Frame))
    }

    fn transmit(&mut self, _: Instant) -> Option<Frame> {
        Some(Frame)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&[0; 60])
    }
}

impl TxToken for Frame {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        write(&mut vec![0; length])
    }
}

#[test]
fn a17_a_flood_of_frames_does_not_keep_the_guest_from_its_clients() {
    let mut world = World::new();
    world.server.poll(&mut Flood(0), &mut world.handler, 1);
}

/// A cable whose other end sends any bytes it likes. Checksums are not looked at: a hostile peer gets them right.
#[derive(Default)]
struct Wire {
    to_guest: VecDeque<Vec<u8>>,
    from_guest: Vec<Vec<u8>>,
}

struct Arrived(Vec<u8>);

struct Leaving<'a>(&'a mut Vec<Vec<u8>>);

impl Device for Wire {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Leaving<'_>)> {
        Some((Arrived(self.to_guest.pop_front()?), Leaving(&mut self.from_guest)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.from_guest))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.push(frame);
        result
    }
}

const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn ethernet(kind: u16, body: &[u8]) -> Vec<u8> {
    [&GUEST_MAC[..], &PEER_MAC, &kind.to_be_bytes(), body].concat()
}

/// The peer says which MAC address is its.
fn arp(peer: [u8; 4]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    ethernet(0x0806, &[&head[..], &PEER_MAC, &peer, &[0; 6], &NETWORK.address].concat())
}

#[derive(Clone, Debug)]
struct Segment {
    port: u16,
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
    payload: usize,
}

fn tcp(peer: [u8; 4], segment: &Segment) -> Vec<u8> {
    let mut options = segment.options.clone();
    options.resize(options.len().next_multiple_of(4), 0);
    let length = (40 + options.len() + segment.payload) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend(length.to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    ip.extend([peer, NETWORK.address].as_flattened());
    ip.extend([segment.port, NETWORK.port].map(u16::to_be_bytes).as_flattened());
    ip.extend([segment.sequence, segment.acknowledged].map(u32::to_be_bytes).as_flattened());
    ip.extend([((20 + options.len()) as u8) << 2, segment.flags]);
    ip.extend(segment.window.to_be_bytes());
    ip.extend([0; 4]);
    ip.extend(options);
    ip.resize(length.into(), b'a');
    ethernet(0x0800, &ip)
}

/// Near zero, near the edges of a window, or anywhere.
fn distance() -> impl Strategy<Value = u32> {
    let near = |centre: u32| (0..8u32).prop_map(move |i| centre.wrapping_add(i).wrapping_sub(4));
    prop_oneof![6 => near(1), 2 => near(1460), 2 => near(16 * 1024), 1 => near(1 << 31), 1 => any::<u32>()]
}

/// Options that are well-formed or anything.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let mss = any::<u16>().prop_map(|mss| [&[2, 4], &mss.to_be_bytes()[..]].concat());
    let scale = any::<u8>().prop_map(|shift| vec![3, 3, shift, 1]);
    let garbage = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![4 => Just(vec![]), 2 => mss, 2 => scale, 1 => Just(vec![4, 2]), 2 => garbage]
}

fn segment() -> impl Strategy<Value = Segment> {
    // FIN 1, SYN 2, RST 4, PSH 8, ACK 16
    let flags = prop_oneof![6 => Just(16), 3 => Just(24), 2 => Just(17), 2 => Just(2), 1 => Just(4), 1 => any::<u8>()];
    let window = prop_oneof![2 => Just(0), 2 => Just(u16::MAX), 1 => any::<u16>()];
    let payload = prop_oneof![3 => Just(0), 2 => 1usize..1400];
    (50_000u16..50_003, distance(), distance(), flags, window, options(), payload).prop_map(
        |(port, sequence, acknowledged, flags, window, options, payload)| Segment {
            port,
            sequence,
            acknowledged,
            flags,
            window,
            options,
            payload,
        },
    )
}

proptest! {
    #[test]
    fn a17_no_segments_make_the_guest_panic(
        segments in prop::collection::vec((segment(), 0u64..40_000), 1..60),
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..4),
    ) {
        let peer = [NETWORK.address[0], NETWORK.address[1], NETWORK.address[2], 77];
        let mut wire = Wire::default();
        let mut server = Server::new(&mut wire, GUEST_MAC, &NETWORK, PLACES, 7, 0);
        let mut handler = Shout { places: PLACES as usize, next: 0, open: Vec::new() };
        let syn = |port| Segment {
            port, sequence: 0, acknowledged: 0, flags: 2, window: 1000, options: vec![2, 4, 5, 180], payload: 0,
        };
        wire.to_guest.push_back(arp(peer));
        wire.to_guest.extend((50_000..50_003).map(|port| tcp(peer, &syn(port))));
        wire.to_guest.extend(frames.iter().map(|body| ethernet(0x0800, body)));
        let mut now = 1;
        server.poll(&mut wire, &mut handler, now);
        // What the guest sends next to each port, as its SYN|ACK says.
        let start = |wire: &Wire, port: u16| {
            let to = |frame: &&Vec<u8>| frame.len() >= 54 && frame[36..38] == port.to_be_bytes() && frame[47] & 2 != 0;
            let found = wire.from_guest.iter().find(to).map(|frame| frame[38..42].try_into().unwrap());
            found.map_or(0, u32::from_be_bytes)
        };
        let starts: Vec<u32> = (50_000..50_003).map(|port| start(&wire, port)).collect();
        prop_assert!(starts.iter().all(|start| *start != 0), "the guest answers");
        for (segment, pause) in segments {
            let acknowledged = starts[usize::from(segment.port - 50_000)].wrapping_add(segment.acknowledged);
            wire.to_guest.push_back(tcp(peer, &Segment { acknowledged, ..segment }));
            now += if pause > 30_000 { pause } else { pause / 1000 };
            server.poll(&mut wire, &mut handler, now);
        }
        prop_assert!(handler.open.len() <= PLACES as usize);
    }
}
