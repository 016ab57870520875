//! Somebody who listens in on TCP connections.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Everything that went through, both ways.
#[derive(Clone, Default)]
pub struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    /// Whether these bytes went through, in one direction and in one piece of any size.
    pub fn holds(&self, bytes: &[u8]) -> bool {
        self.0.lock().unwrap().windows(bytes.len()).any(|window| window == bytes)
    }

    /// How many bytes went through.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Listens on this machine, and hands every connection on to `target` from the address `source`. It lives as long as the
/// process.
pub fn tap(target: &str, source: Ipv4Addr) -> (String, Capture) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let capture = Capture::default();
    let (target, kept): (SocketAddr, _) = (target.parse().unwrap(), capture.clone());
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = connect(target, source) else { continue };
            let (from_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            copy(from_client, server, kept.clone());
            copy(from_server, client, kept.clone());
        }
    });
    (at, capture)
}

fn connect(target: SocketAddr, source: Ipv4Addr) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((source, 0)))?;
    connect(&socket, &target)?;
    Ok(socket.into())
}

/// Each direction is kept in pieces as they come; what lies across two pieces of different directions was never together.
fn copy(mut from: TcpStream, mut to: TcpStream, capture: Capture) {
    std::thread::spawn(move || {
        let (mut all, mut buffer) = (Vec::new(), [0; 16 * 1024]);
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            all.extend_from_slice(&buffer[..length]);
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
        capture.0.lock().unwrap().append(&mut all);
    });
}
