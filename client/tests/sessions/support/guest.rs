//! The guest's service with the default model, over TCP on this host.

use super::amd_sp::SOURCE;
use inference::{Model, SingleThread};
use rustls::crypto::SecureRandom;
use service::{AttestError, Attested, ConnectionId, Platform, Service};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wire::event::Event;

/// The AMD-SP as the host lets the guest reach it.
type Attest = Box<dyn FnMut(&[u8; 64]) -> Result<Attested, AttestError> + Send>;

static MODEL: LazyLock<Model<'static>> = LazyLock::new(|| {
    let weights = std::fs::read(&SOURCE.weights).expect("the default model");
    Model::load(Vec::leak(weights)).expect("the default model loads")
});

struct Machine {
    attest: Attest,
    events: Arc<Mutex<Vec<Event>>>,
    started: Instant,
}

impl Platform for Machine {
    fn random(&self) -> &'static dyn SecureRandom {
        rustls::crypto::aws_lc_rs::default_provider().secure_random
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn attest(&mut self, report_data: &[u8; 64]) -> Result<Attested, AttestError> {
        (self.attest)(report_data)
    }

    fn emit(&mut self, event: Event) {
        self.events.lock().expect("no test failed").push(event);
    }
}

/// A guest that runs until it is dropped.
pub struct Guest {
    pub address: SocketAddr,
    events: Arc<Mutex<Vec<Event>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Guest {
    /// Starts one whose reports come from `attest`.
    pub fn start(attest: impl FnMut(&[u8; 64]) -> Result<Attested, AttestError> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("sockets can be polled");
        let address = listener.local_addr().expect("an address");
        let (events, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let machine =
            Machine { attest: Box::new(attest), events: Arc::clone(&events), started: Instant::now() };
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let service = Service::new(machine, SOURCE.manifest.clone(), &MODEL, SingleThread);
            serve(service.expect("the service starts"), &listener, &stopped);
        });
        Self { address, events, stop, thread: Some(thread) }
    }

    /// What the guest told its operator.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().expect("the guest runs").clone()
    }

    /// Whether the guest ever took up a request for a task.
    pub fn was_asked(&self) -> bool {
        let asked =
            |event: &Event| matches!(event, Event::RequestStarted { .. } | Event::RequestEnded { .. });
        self.events().iter().any(asked)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the guest panicked");
        }
    }
}

fn serve(mut service: Service<'_, Machine, SingleThread>, listener: &TcpListener, stop: &AtomicBool) {
    let mut open: BTreeMap<ConnectionId, TcpStream> = BTreeMap::new();
    // As in the guest, an ended connection stays half-open until the client has seen its end.
    let mut closing: Vec<TcpStream> = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while !stop.load(Ordering::Relaxed) {
        let mut worked = service.step();
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).expect("sockets can be polled");
            open.insert(service.open().expect("there is room"), stream);
            worked = true;
        }
        for (id, mut stream) in std::mem::take(&mut open) {
            let gone = match read(&mut stream, &mut chunk) {
                Some(bytes) => {
                    service.receive(id, bytes);
                    worked |= !bytes.is_empty();
                    false
                }
                None => true,
            };
            let sent = stream.write(service.pending(id)).unwrap_or(0);
            service.sent(id, sent);
            worked |= sent > 0;
            if gone || service.wants_close(id) {
                service.close(id);
                if stream.shutdown(Shutdown::Write).is_ok() {
                    closing.push(stream);
                }
            } else {
                open.insert(id, stream);
            }
        }
        closing.retain_mut(|stream| read(stream, &mut chunk).is_some());
        if !worked {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The bytes that have arrived; `None` once the other end has closed.
fn read<'c>(stream: &mut TcpStream, chunk: &'c mut [u8]) -> Option<&'c [u8]> {
    match stream.read(chunk) {
        Ok(0) => None,
        Ok(count) => Some(&chunk[..count]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(&[]),
        Err(_) => None,
    }
}
