//! `openssl s_client`, a client that nobody here wrote.
mod support;

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use support::world::World;

/// Runs `openssl s_client` with these arguments against the service and returns all that it printed.
fn s_client(arguments: &[&str]) -> String {
    let mut world = World::new();
    world.service.platform().real_clock = true;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let ended = AtomicBool::new(false);
    let until = Instant::now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut child = Command::new("openssl")
                .args(["s_client", "-connect", &address, "-ign_eof"])
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("this test needs the openssl command; install the package `openssl`");
            let request = b"POST /v1/evidence HTTP/1.1\r\nHost: guest\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
            // Fails when the handshake has, which is for the caller to judge.
            let _ = child.stdin.take().expect("standard input is a pipe").write_all(request);
            let output = child.wait_with_output().expect("openssl ends");
            ended.store(true, Relaxed);
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
        });
        support::tcp::serve(&mut world.service, &listener, || ended.load(Relaxed) || Instant::now() > until);
        client.join().expect("openssl ran")
    })
}

#[test]
fn openssl_completes_a_handshake_and_gets_an_answer() {
    for suite in ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"] {
        let output = s_client(&["-tls1_3", "-ciphersuites", suite]);
        assert!(output.contains(&format!("New, TLSv1.3, Cipher is {suite}")), "{output}");
        // Versions of OpenSSL write its name in capitals or not.
        assert!(output.to_lowercase().contains("peer signature type: ed25519"), "{output}");
        assert!(output.contains("HTTP/1.1 400 Bad Request"), "{output}");
        assert!(output.contains("the body must be a nonce of exactly 32 bytes"), "{output}");
        assert!(!output.contains("Post-Handshake New Session Ticket"), "{output}");
    }
}

#[test]
fn b11_openssl_is_refused_tls_1_2() {
    let output = s_client(&["-tls1_2"]);
    assert!(output.contains("alert protocol version"), "{output}");
}
