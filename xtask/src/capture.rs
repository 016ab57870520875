//! An observer of the network: hands on the bytes of one TCP connection after the other and notes each TLS record.

use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Content type of encrypted records (RFC 8446 §5.2).
const APPLICATION_DATA: u8 = 23;

/// One TLS record, as it is seen without any key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// Since the connection was accepted.
    pub at: Duration,
    /// Whether it came from the client.
    pub from_client: bool,
    /// Whether its content is encrypted.
    pub is_encrypted: bool,
    /// Bytes after the header.
    pub length: usize,
}

/// What is seen of one connection, while it lasts.
type Log = Arc<Mutex<Vec<Record>>>;

/// Stands between clients and a server.
pub struct Observer {
    address: String,
    connections: Arc<Mutex<Vec<Log>>>,
}

impl Observer {
    /// Listens on a free port and hands every connection on to `server`, for as long as the process lives.
    pub fn before(server: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port on the loopback interface")?;
        let address = listener.local_addr()?.to_string();
        let connections = Arc::new(Mutex::new(Vec::<Log>::new()));
        let (server, seen) = (server.to_owned(), Arc::clone(&connections));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is gone is the client's to notice.
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let records = Log::default();
                if let Ok(mut all) = seen.lock() {
                    all.push(Arc::clone(&records));
                }
                let _ = hand_on(&client, &server, &records);
            }
        });
        Ok(Self { address, connections })
    }

    /// Where clients connect.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What was seen of the latest connection.
    pub fn latest(&self) -> Vec<Record> {
        let latest = self.connections.lock().ok().and_then(|all| all.last().cloned());
        latest.and_then(|records| Some(records.lock().ok()?.clone())).unwrap_or_default()
    }
}

fn hand_on(client: &TcpStream, server: &TcpStream, records: &Log) -> Result<()> {
    let start = Instant::now();
    for (from, to, from_client) in [(client, server, true), (server, client, false)] {
        from.set_nodelay(true)?;
        let (mut from, mut to, records) = (from.try_clone()?, to.try_clone()?, Arc::clone(records));
        std::thread::spawn(move || {
            let mut records_of = Records::default();
            let mut chunk = [0; 16 * 1024];
            while let Ok(count @ 1..) = from.read(&mut chunk) {
                let bytes = chunk.get(..count).unwrap_or_default();
                let found = records_of.take(bytes).into_iter().map(|(kind, length)| Record {
                    at: start.elapsed(),
                    from_client,
                    is_encrypted: kind == APPLICATION_DATA,
                    length,
                });
                if let Ok(mut records) = records.lock() {
                    records.extend(found);
                }
                if to.write_all(bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}

/// Finds records in a stream of bytes (RFC 8446 §5.1: type, version, length).
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    /// Type and length of the records that these bytes complete.
    fn take(&mut self, bytes: &[u8]) -> Vec<(u8, usize)> {
        self.0.extend_from_slice(bytes);
        let mut found = Vec::new();
        while let [kind, _, _, high, low, rest @ ..] = self.0.as_slice() {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            if rest.len() < length {
                break;
            }
            found.push((*kind, length));
            self.0.drain(..5 + length);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_wherever_the_stream_is_cut() {
        let stream = [&[22, 3, 3, 0, 2, 9, 9][..], &[23, 3, 3, 1, 0], &[7; 256]].concat();
        for cut in 0..stream.len() {
            let mut records = Records::default();
            let mut found = records.take(&stream[..cut]);
            found.extend(records.take(&stream[cut..]));
            assert_eq!(found, [(22, 2), (23, 256)], "{cut}");
        }
    }
}
