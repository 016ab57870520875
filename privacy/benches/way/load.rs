//! Load from stock generators: wrk (HTTP/1.1, another body each time) and h2load (HTTP/2, always the same).

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Requests at a time.
const CONNECTIONS: &str = "8";

/// wrk at work.
pub struct Wrk {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    requests: usize,
}

impl Wrk {
    /// Posts bodies, all of one size, to `url`. There must be some more of them than `requests` where a copy counts as a replay:
    /// wrk sends as many as it has connections before it can be stopped.
    pub fn start(url: &str, media_type: &str, bodies: &[Vec<u8>], requests: usize, folder: &Path) -> Self {
        let size = bodies[0].len();
        assert!(bodies.iter().all(|body| body.len() == size));
        let name = url.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let (file, script) = (folder.join(name), folder.join("load.lua"));
        std::fs::write(&file, bodies.concat()).unwrap();
        std::fs::write(&script, include_str!("load.lua")).unwrap();
        let mut command = Command::new("wrk");
        command.args(["--threads", "1", "--connections", CONNECTIONS, "--duration", "300s", "--script"]);
        command.arg(&script).arg(url).arg("--").arg(&file);
        command.args([&size.to_string(), &requests.to_string(), media_type]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("wrk is installed");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, requests }
    }

    fn line(&mut self, what: &str) -> usize {
        let line = self.lines.by_ref().map_while(Result::ok).find(|line| line.starts_with(what));
        line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("wrk says so")
    }

    /// Waits for the answers, all of which must be good. The time is that from the first one on.
    pub fn finish(mut self) -> Duration {
        self.line("begun");
        let start = Instant::now();
        let good = self.line("good");
        assert_eq!(good, self.requests, "requests were refused");
        start.elapsed()
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Posts one body again and again over HTTP/2.
pub fn h2load(url: &str, media_type: &str, body: &[u8], requests: usize, folder: &Path) {
    let file = folder.join("body");
    std::fs::write(&file, body).unwrap();
    let mut command = Command::new("h2load");
    command.args(["--requests", &requests.to_string(), "--clients", "4", "--max-concurrent-streams", "8"]);
    command.arg("--header").arg(format!("content-type: {media_type}")).arg("--data").arg(&file).arg(url);
    let output = command.stdin(Stdio::null()).output().expect("h2load is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&format!("status codes: {requests} 2xx")), "{said}");
}
