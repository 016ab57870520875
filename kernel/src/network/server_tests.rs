//! The server against clients on the other end of a cable in memory.

use super::*;
use smoltcp::phy::{DeviceCapabilities, Loopback, Medium, RxToken, TxToken};

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
