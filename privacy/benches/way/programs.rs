//! Relay and gateway as processes, and what the system says of them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running program; killed when dropped.
pub struct Program {
    child: Child,
    /// Where it listens.
    pub address: String,
}

impl Program {
    /// Starts it with as many files as this machine allows; on one CPU and with one thread of work if `cpu` is given.
    pub fn start(program: &str, arguments: &[&str], folder: &Path, cpu: Option<usize>) -> Self {
        let mut command = with_all_files();
        if let Some(cpu) = cpu {
            command.args(["taskset", "-c", &cpu.to_string()]).env("TOKIO_WORKER_THREADS", "1");
        }
        command.arg(program).args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").expect("the program listens").to_owned();
        Self { child, address }
    }

    /// Seconds of CPU time so far, in the program and in the system for it.
    pub fn cpu(&self) -> f64 {
        cpu_of(self.child.id())
    }

    /// Bytes of memory that it has now.
    pub fn memory(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What runs the program and arguments that follow with as many files as this machine allows.
fn with_all_files() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n $(ulimit -Hn); exec \"$@\"", "sh"]);
    command
}

/// Runs this program once more, with all files; gives its exit code.
pub fn again() -> i32 {
    let mut command = with_all_files();
    command.arg(std::env::current_exe().unwrap()).args(std::env::args().skip(1));
    command.status().unwrap().code().unwrap_or(1)
}

/// Seconds of CPU time of a process (proc(5): utime and stime, in hundredths).
fn cpu_of(process: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, rest) = text.rsplit_once(')').unwrap();
    let ticks: Vec<f64> =
        rest.split_whitespace().skip(11).take(2).map(|tick| tick.parse().unwrap()).collect();
    ticks.iter().sum::<f64>() / 100.0
}

/// The limit that is in force, and that up to which a process may raise it.
#[derive(Clone, Copy)]
pub enum Limit {
    Soft = 3,
    Hard = 4,
}

/// Files that this process may have.
pub fn files(limit: Limit) -> usize {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(limit as usize).and_then(|number| number.parse().ok()).unwrap_or(1 << 20)
}
