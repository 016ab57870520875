//! A20: after a session, no byte run of its prompt, its answer or its TLS secrets is left in the server's memory.
//!
//! Two claims are tested. Prompt and answer are wiped by the service and the engine themselves, over any allocator. TLS
//! secrets are wiped with the help of the allocator: rustls moves them from one box to the next and frees the old one
//! as it is, so the guest's heap overwrites what is freed, and so does the allocator here in the second run.
//!
//! The server is this program, started again; the test is its client, and reads all of the server's writable memory
//! through `/proc`: live and freed heap, stack, statics. The C library is told never to give memory back, so that
//! nothing disappears that a machine without an operating system would still hold.
mod support;

use rustls::KeyLog;
use std::alloc::{GlobalAlloc, Layout, System};
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::client::{Client, config, post};
use support::model::{self, ANSWER, Ending};
use support::world::World;

const SERVE: &str = "serve";
const SERVE_WIPING: &str = "serve-wiping";

/// Whether freed memory is overwritten, as the guest's heap does it.
static WIPES: AtomicBool = AtomicBool::new(false);

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

struct Allocator;

// SAFETY: everything is handed on to the system's allocator, with the layouts as they came.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if WIPES.load(Relaxed) {
            // SAFETY: the block has the layout's size and is still the caller's.
            unsafe { block.write_bytes(0, layout.size()) };
            std::hint::black_box(block);
        }
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.dealloc(block, layout) }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args().nth(1).as_deref() {
        Some(SERVE) => return serve(),
        Some(SERVE_WIPING) => {
            WIPES.store(true, Relaxed);
            return serve();
        }
        _ => {}
    }
    a20_nothing_of_a_session_is_left_in_memory()?;
    println!("test a20_nothing_of_a_session_is_left_in_memory ... ok");
    Ok(())
}

fn a20_nothing_of_a_session_is_left_in_memory() -> Result<(), Box<dyn Error>> {
    for request in [summarize as fn(&str) -> Vec<u8>, chat] {
        session(request, SERVE)?;
        session(request, SERVE_WIPING)?;
    }
    Ok(())
}

fn serve() -> Result<(), Box<dyn Error>> {
    let mut world = World::with(model::manifest(), Ending::Stops);
    world.service.platform().real_clock = true;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    support::tcp::serve(&mut world.service, &listener, || false);
    Ok(())
}

/// The canary with and without escapes around it: both ways through the JSON reader.
fn summarize(canary: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"messages":[{{"sender":"Amara","text":"{canary}"}},{{"sender":"Ben","text":"so:\n{canary} \u00e9"}}]}}"#
    );
    post("/v1/tasks/summarize", body.as_bytes())
}

fn chat(canary: &str) -> Vec<u8> {
    let body =
        format!(r#"{{"messages":[{{"role":"user","content":"{canary}\t\ud83d\ude00"}}],"stream":false}}"#);
    post("/v1/chat/completions", body.as_bytes())
}

fn session(request: fn(&str) -> Vec<u8>, mode: &str) -> Result<(), Box<dyn Error>> {
    let server = Server::start(mode)?;
    let secrets = Arc::new(Secrets::default());
    let mut config = config();
    config.key_log = secrets.clone();
    let mut connection =
        Connection { stream: TcpStream::connect(&server.address)?, client: Client::new(&Arc::new(config)) };
    connection.stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    assert_eq!(connection.ask(&post("/v1/evidence", &[7; 32]))?.status, 200);

    // Random, so that the server can have it from here only.
    let mut random = [0; 12];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| "no randomness")?;
    let canary = format!("canary-{}", hex::encode(random));
    let request = request(&canary);
    let (most, last) = request.split_at(request.len() - 1);
    connection.send(most)?;

    let prompt = Needle::new("the prompt", canary.as_bytes());
    let exporter = Needle::new("the exporter", &connection.client.exporter());
    let traffic = ["CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"].map(|label| secrets.needle(label));
    let held: Vec<Needle> = [prompt, exporter].into_iter().chain(traffic).collect();
    // What is looked for can be found: while it is in use, it is there.
    for needle in &held {
        server
            .wait(|| needle.count(&server) > 0)
            .map_err(|_| format!("{} is not found while in use", needle.name))?;
    }

    let answer = connection.ask(last)?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    connection.client.tls.send_close_notify();
    connection.send(&[])?;
    drop(connection);

    let tokens =
        |text: &str| text.bytes().flat_map(|byte| u32::from(byte).to_le_bytes()).collect::<Vec<u8>>();
    let mut gone = vec![
        Needle::new("the prompt's tokens", &tokens(&canary)),
        Needle::new("the answer", &ANSWER.as_bytes()[..16]),
        Needle::new("the end of the answer", &ANSWER.as_bytes()[16..]),
        Needle::new("the answer's tokens", &tokens(&ANSWER[..16])),
    ];
    if mode == SERVE_WIPING {
        gone.extend(held);
        for label in ["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET", "EXPORTER_SECRET"]
        {
            gone.push(secrets.needle(label));
        }
    } else {
        gone.extend(held.into_iter().take(1));
    }
    let clean = server.wait(|| gone.iter().all(|needle| needle.count(&server) == 0));
    let left: Vec<String> =
        gone.iter().map(|needle| format!("{}: {}", needle.name, needle.places(&server))).collect();
    clean.map_err(|_| format!("left in memory after the session ({mode}):\n{}", left.join("\n")))?;
    Ok(())
}

/// The server process; ended when dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(mode: &str) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(mode)
            .env("MALLOC_ARENA_MAX", "1")
            .env("MALLOC_MMAP_THRESHOLD_", "1073741824")
            .env("MALLOC_TRIM_THRESHOLD_", "1073741824")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().ok_or("no standard output")?).read_line(&mut address)?;
        Ok(Self { child, address: address.trim().into() })
    }

    /// Calls `visit` with every writable range of the server's memory: its name and its bytes.
    fn memory(&self, mut visit: impl FnMut(&str, &[u8])) -> std::io::Result<()> {
        let process = format!("/proc/{}", self.child.id());
        let memory = File::open(format!("{process}/mem"))?;
        for line in std::fs::read_to_string(format!("{process}/maps"))?.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
            let Some((start, end)) = range.split_once('-') else { continue };
            let number = |digits: &str| u64::from_str_radix(digits, 16).map_err(std::io::Error::other);
            let (start, end) = (number(start)?, number(end)?);
            if rights.starts_with("rw") {
                let mut bytes = vec![0; (end - start) as usize];
                memory.read_exact_at(&mut bytes, start)?;
                visit(fields.nth(3).unwrap_or("anonymous"), &bytes);
            }
        }
        Ok(())
    }

    fn wait(&self, mut condition: impl FnMut() -> bool) -> Result<(), ()> {
        let until = Instant::now() + Duration::from_secs(10);
        while !condition() {
            if Instant::now() > until {
                return Err(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes to look for.
struct Needle {
    name: String,
    bytes: Vec<u8>,
}

impl Needle {
    fn new(name: &str, bytes: &[u8]) -> Self {
        assert!(bytes.len() >= 16, "{name} is too short to be told from chance");
        Self { name: name.into(), bytes: bytes.into() }
    }

    fn count(&self, server: &Server) -> usize {
        self.find(server).len()
    }

    fn places(&self, server: &Server) -> String {
        match self.find(server) {
            found if found.is_empty() => "nowhere".into(),
            found => found.join(", "),
        }
    }

    fn find(&self, server: &Server) -> Vec<String> {
        let mut found = Vec::new();
        let scanned = server.memory(|range, bytes| {
            let (first, rest) = (self.bytes[0], &self.bytes[1..]);
            let mut at = 0;
            while let Some(next) = bytes[at..].iter().position(|byte| *byte == first) {
                at += next + 1;
                if bytes[at..].starts_with(rest) {
                    found.push(format!("{range}+{:#x}", at - 1));
                }
            }
        });
        scanned.expect("the memory of a child can be read");
        found
    }
}

/// The TLS secrets, as the client knows them.
#[derive(Debug, Default)]
struct Secrets(Mutex<Vec<(String, Vec<u8>)>>);

impl Secrets {
    fn needle(&self, label: &str) -> Needle {
        let all = self.0.lock().expect("nobody panicked");
        let (_, secret) = all.iter().find(|(name, _)| name == label).expect("rustls logs it");
        Needle::new(label, secret)
    }
}

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        self.0.lock().expect("nobody panicked").push((label.into(), secret.into()));
    }
}

struct Connection {
    stream: TcpStream,
    client: Client,
}

impl Connection {
    /// Sends bytes and finishes what TLS has to send.
    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.client.write(bytes);
        let outgoing = self.client.outgoing();
        self.stream.write_all(&outgoing)
    }

    fn ask(&mut self, bytes: &[u8]) -> Result<support::client::Response, Box<dyn Error>> {
        self.send(bytes)?;
        let mut chunk = [0; 4096];
        loop {
            if let Some(response) = self.client.response() {
                return Ok(response);
            }
            let count = self.stream.read(&mut chunk)?;
            self.client.take(&chunk[..count]);
            if count == 0 || self.client.error.is_some() {
                return Err(format!("the server ended the connection: {:?}", self.client.error).into());
            }
            self.send(&[])?;
        }
    }
}
