//! `openssl s_client` as an independent TLS peer, driven by hand.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Completes a handshake and closes; the report of `openssl` is the output.
pub fn handshake(server: &str, arguments: &[&str]) -> Output {
    Command::new("openssl")
        .args(["s_client", "-connect", server])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// An open session whose plaintext the test writes byte by byte.
pub struct RawSession {
    openssl: Child,
    stdin: Option<ChildStdin>,
    received: Arc<Mutex<Vec<u8>>>,
}

impl RawSession {
    /// Connects with TLS 1.3.
    pub fn connect(server: &str) -> Self {
        let mut openssl = Command::new("openssl")
            .args(["s_client", "-quiet", "-tls1_3", "-connect", server])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let mut stdout = openssl.stdout.take().unwrap();
        let copy = received.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n) = stdout.read(&mut buffer) {
                if n == 0 {
                    return;
                }
                copy.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        let stdin = openssl.stdin.take();
        Self { openssl, stdin, received }
    }

    /// Sends plaintext.
    pub fn send(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    /// Waits until what was received contains `text`, and returns all of it.
    pub fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(180);
        loop {
            let received = String::from_utf8_lossy(&self.received.lock().unwrap()).into_owned();
            if received.contains(text) {
                return received;
            }
            assert!(Instant::now() < deadline, "{text:?} did not come, only: {received}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Closes the session.
    pub fn close(mut self) {
        drop(self.stdin.take());
        let _ = self.openssl.kill();
        let _ = self.openssl.wait();
    }
}
