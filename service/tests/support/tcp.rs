//! The service over TCP on the host, one thread, no blocking calls but the rest between rounds.

use super::world::TestService;
use service::ConnectionId;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Serves until `until` says so.
pub fn serve(service: &mut TestService, listener: &TcpListener, mut until: impl FnMut() -> bool) {
    listener.set_nonblocking(true).expect("sockets can be polled");
    let mut streams: BTreeMap<ConnectionId, TcpStream> = BTreeMap::new();
    let mut chunk = [0; 16 * 1024];
    while !until() {
        let mut worked = service.step();
        if let Ok((stream, _)) = listener.accept() {
            worked = true;
            stream.set_nonblocking(true).expect("sockets can be polled");
            if let Ok(id) = service.open() {
                streams.insert(id, stream);
            }
        }
        streams.retain(|id, stream| {
            let gone = match stream.read(&mut chunk) {
                Ok(0) => true,
                Ok(count) => {
                    worked = true;
                    service.receive(*id, &chunk[..count]);
                    false
                }
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
            let sent = stream.write(service.pending(*id)).unwrap_or_default();
            worked |= sent > 0;
            service.sent(*id, sent);
            let over = gone || service.wants_close(*id);
            if over {
                service.close(*id);
            }
            !over
        });
        if !worked {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
