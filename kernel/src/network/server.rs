//! Connections: a fixed pool of sockets, and bytes between them and the service.

use alloc::vec;
use alloc::vec::Vec;
use attestation::manifest;
use core::cmp::Reverse;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::Device;
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr};

/// Sockets beyond those of open connections: some listen, some are on their way out.
const SPARE_SOCKETS: usize = 16;
const BUFFER_BYTES: usize = 16 * 1024;
/// A handshake (of TCP) that takes longer gives its socket back.
const HANDSHAKE_MS: u64 = 5_000;
/// A peer that takes nothing and acknowledges nothing for so long is gone.
const PEER_TIMEOUT_MS: u64 = 30_000;
/// Connections that closed keep their socket for so long to see the other end's FIN.
const CLOSING_MS: u64 = 5_000;

/// Frames that are taken in at a time: as many as the card has buffers. Whoever sends faster than the guest reads would
/// otherwise keep it reading (REQUIREMENTS A17).
const FRAMES_PER_TURN: usize = crate::virtio::queue::SLOTS as usize;

/// What is done with the bytes of connections; the service.
pub trait Handler {
    /// Names a connection.
    type Id: Copy;
    /// Takes on a connection, if there is a place.
    fn open(&mut self) -> Option<Self::Id>;
    /// Takes bytes that arrived.
    fn receive(&mut self, id: Self::Id, bytes: &[u8]);
    /// Bytes for the network.
    fn pending(&self, id: Self::Id) -> &[u8];
    /// The first `count` pending bytes are on their way.
    fn sent(&mut self, id: Self::Id, count: usize);
    /// Whether the connection is over.
    fn wants_close(&self, id: Self::Id) -> bool;
    /// Forgets a connection.
    fn close(&mut self, id: Self::Id);
}

/// What a socket of the pool is used for.
enum Use<Id> {
    Listening,
    Handshake { since: u64 },
    Open(Id),
    Closing { since: u64 },
}

struct Slot<Id> {
    socket: SocketHandle,
    used: Use<Id>,
}

/// The guest's network stack and its one listening port.
pub struct Server<Id> {
    interface: Interface,
    sockets: SocketSet<'static>,
    slots: Vec<Slot<Id>>,
    port: u16,
}

impl<Id: Copy> Server<Id> {
    /// Sets up the measured address. `seed` comes from the guest's generator: initial sequence numbers hang on it.
    pub fn new(
        device: &mut impl Device,
        mac: [u8; 6],
        network: &manifest::Network,
        connections: u32,
        seed: u64,
        now_ms: u64,
    ) -> Self {
        let mut config = Config::new(EthernetAddress(mac).into());
        config.random_seed = seed;
        let mut interface = Interface::new(config, device, instant(now_ms));
        let address = Ipv4Address::from(network.address);
        // Both have room for the one entry that they get.
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(address, network.prefix.min(30))));
        });
        let _ = interface.routes_mut().add_default_ipv4_route(Ipv4Address::from(network.gateway));

        let mut sockets = SocketSet::new(vec![]);
        let slots = (0..connections as usize + SPARE_SOCKETS)
            .map(|_| {
                let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER_BYTES]);
                let mut socket = tcp::Socket::new(buffer(), buffer());
                socket.set_nagle_enabled(false);
                socket.set_timeout(Some(Duration::from_millis(PEER_TIMEOUT_MS)));
                Slot { socket: sockets.add(socket), used: Use::Listening }
            })
            .collect();
        let mut server = Self { interface, sockets, slots, port: network.port };
        for slot in &server.slots {
            listen(server.sockets.get_mut(slot.socket), server.port);
        }
        server
    }

    /// Moves frames, then bytes. Returns whether anything moved.
    pub fn poll(
        &mut self,
        device: &mut impl Device,
        handler: &mut impl Handler<Id = Id>,
        now_ms: u64,
    ) -> bool {
        let now = instant(now_ms);
        let received = self.exchange(device, now);
        let mut moved = false;
        for slot in &mut self.slots {
            let socket = self.sockets.get_mut::<tcp::Socket>(slot.socket);
            moved |= serve(slot, socket, handler, now_ms, self.port);
        }
        self.make_room(handler, now_ms);
        if moved {
            self.exchange(device, now);
        }
        received || moved
    }

    /// A bounded number of frames in, then all that can go out; whether any socket may have changed.
    fn exchange(&mut self, device: &mut impl Device, now: Instant) -> bool {
        let mut changed = false;
        self.interface.poll_maintenance(now);
        for _ in 0..FRAMES_PER_TURN {
            match self.interface.poll_ingress_single(now, device, &mut self.sockets) {
                PollIngressSingleResult::None => break,
                PollIngressSingleResult::PacketProcessed => {}
                PollIngressSingleResult::SocketStateChanged => changed = true,
            }
        }
        while self.interface.poll_egress(now, device, &mut self.sockets) != PollResult::None {
            changed = true;
        }
        changed
    }

    /// With nobody listening, new clients would be turned away. So the oldest half-open handshake, or else the oldest socket
    /// on its way out, gives up its place; open connections are the service's to drop (it refuses none for want of a place
    /// as long as one is idle).
    fn make_room(&mut self, handler: &mut impl Handler<Id = Id>, now_ms: u64) {
        if self.slots.iter().any(|slot| matches!(slot.used, Use::Listening)) {
            return;
        }
        let claim = |slot: &&mut Slot<Id>| match slot.used {
            Use::Handshake { since } => (2, Reverse(since)),
            Use::Closing { since } => (1, Reverse(since)),
            Use::Listening | Use::Open(_) => (0, Reverse(0)),
        };
        if let Some(slot) = self.slots.iter_mut().max_by_key(claim)
            && matches!(slot.used, Use::Handshake { .. } | Use::Closing { .. })
        {
            let socket = self.sockets.get_mut::<tcp::Socket>(slot.socket);
            socket.abort();
            serve(slot, socket, handler, now_ms, self.port);
        }
    }

    /// How many sockets wait for a client.
    pub fn listening(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot.used, Use::Listening)).count()
    }
}

/// Brings one slot forward; whether bytes moved or its use changed.
fn serve<Id: Copy>(
    slot: &mut Slot<Id>,
    socket: &mut tcp::Socket<'_>,
    handler: &mut impl Handler<Id = Id>,
    now_ms: u64,
    port: u16,
) -> bool {
    // The peer reset the connection, or a timeout ended it.
    if !socket.is_open() {
        if let Use::Open(id) = slot.used {
            handler.close(id);
        }
        slot.used = Use::Listening;
        listen(socket, port);
        return true;
    }
    match slot.used {
        Use::Listening if socket.is_listening() => false,
        Use::Listening => {
            slot.used = Use::Handshake { since: now_ms };
            true
        }
        Use::Handshake { since } => {
            if socket.may_send() {
                match handler.open() {
                    Some(id) => slot.used = Use::Open(id),
                    None => socket.abort(),
                }
                return true;
            }
            abort_if_older(socket, since, HANDSHAKE_MS, now_ms)
        }
        Use::Closing { since } => abort_if_older(socket, since, CLOSING_MS, now_ms),
        Use::Open(id) => {
            let moved = carry(id, socket, handler);
            let drained = handler.pending(id).is_empty();
            // A client that has sent its FIN may still wait for the rest of an answer.
            if drained && (handler.wants_close(id) || (!socket.may_recv() && !socket.can_recv())) {
                handler.close(id);
                socket.close();
                slot.used = Use::Closing { since: now_ms };
                return true;
            }
            moved
        }
    }
}

fn carry<Id: Copy>(id: Id, socket: &mut tcp::Socket<'_>, handler: &mut impl Handler<Id = Id>) -> bool {
    let mut moved = false;
    while socket.can_recv() {
        let taken = socket.recv(|bytes| {
            handler.receive(id, bytes);
            (bytes.len(), bytes.len())
        });
        match taken {
            Ok(count) if count > 0 => moved = true,
            _ => break,
        }
    }
    while socket.can_send() {
        let count = socket.send_slice(handler.pending(id)).unwrap_or(0);
        if count == 0 {
            break;
        }
        handler.sent(id, count);
        moved = true;
    }
    moved
}

fn abort_if_older(socket: &mut tcp::Socket<'_>, since: u64, limit: u64, now_ms: u64) -> bool {
    let old = now_ms.saturating_sub(since) > limit;
    if old {
        socket.abort();
    }
    old
}

fn listen(socket: &mut tcp::Socket<'_>, port: u16) {
    // Fails for an open socket, which `is_open` excludes, and for port 0: such an image serves nobody.
    let _ = socket.listen(port);
}

fn instant(now_ms: u64) -> Instant {
    Instant::from_millis(i64::try_from(now_ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
