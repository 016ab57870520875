//! QEMU's machine protocol, to stop the machine and copy its memory as a host would.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A connection to QEMU.
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket that `cloister-launch run --qmp` made.
    pub fn connect(path: &Path) -> Self {
        let mut qmp = Self { stream: BufReader::new(UnixStream::connect(path).unwrap()) };
        qmp.read();
        qmp.execute("qmp_capabilities", json!({}));
        qmp
    }

    /// Runs a command and returns its result.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{request}").unwrap();
        loop {
            let answer = self.read();
            assert!(answer.get("error").is_none(), "{command}: {answer}");
            if let Some(result) = answer.get("return") {
                return result.clone();
            }
        }
    }

    /// Copies all of the machine's RAM into two files, with the machine stopped meanwhile: what is below 4 GiB and what
    /// is above.
    pub fn dump(&mut self, [low, high]: [&Path; 2]) {
        const LOW_BYTES: u64 = 2 << 30;
        self.execute("stop", json!({}));
        let summary = self.execute("query-memory-size-summary", json!({}));
        let high_bytes = summary["base-memory"].as_u64().unwrap() - LOW_BYTES;
        for (start, size, file) in [(0_u64, LOW_BYTES, low), (4 << 30, high_bytes, high)] {
            self.execute(
                "pmemsave",
                json!({ "val": start, "size": size, "filename": file.to_str().unwrap() }),
            );
        }
        self.execute("cont", json!({}));
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}
