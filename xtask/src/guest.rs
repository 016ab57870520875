//! A guest in the SNP model, started as an operator starts it, and its end.

use crate::build::program;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a boot may take on a slow machine without KVM.
const BOOT: Duration = Duration::from_secs(240);

/// A running `cloister-launch`; killed when dropped.
pub struct Guest {
    launcher: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    told: usize,
    address: String,
}

/// What a guest is started from.
pub struct Start<'a> {
    /// The image.
    pub image: &'a Path,
    /// The weights.
    pub weights: &'a Path,
    /// Further arguments of `cloister-launch run`.
    pub arguments: Vec<String>,
}

impl Guest {
    /// Starts a guest on a free port of this machine and waits until it listens.
    pub fn boot(start: &Start<'_>) -> Result<Self> {
        let mut guest = Self::start(start)?;
        guest.wait_for("listening", BOOT)?;
        Ok(guest)
    }

    /// Starts a guest without waiting.
    pub fn start(start: &Start<'_>) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        Self::start_at(Command::new(program("cloister-launch")?), address, start)
    }

    /// The same at `ADDRESS:PORT`, which may be another machine's: `launcher` starts `cloister-launch` there.
    pub fn start_at(mut launcher: Command, address: String, start: &Start<'_>) -> Result<Self> {
        let mut launcher = launcher
            .args(["run", "--platform", "model", "--listen", &address])
            .arg("--image")
            .arg(start.image)
            .arg("--weights")
            .arg(start.weights)
            .args(&start.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start cloister-launch")?;
        let (sender, lines) = channel();
        if let Some(stdout) = launcher.stdout.take() {
            let sender = sender.clone();
            std::thread::spawn(move || forward(stdout, &sender));
        }
        if let Some(stderr) = launcher.stderr.take() {
            std::thread::spawn(move || forward(stderr, &sender));
        }
        Ok(Self { launcher, lines, seen: Vec::new(), told: 0, address })
    }

    /// Where the guest listens.
    pub fn server(&self) -> String {
        self.address.clone()
    }

    /// Sends a signal to the machine itself, its QEMU.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let launcher = self.launcher.id();
        let qemu = fs::read_dir("/proc")?.flatten().find_map(|entry| {
            // `pid (name) state parent …`, proc_pid_stat(5); the name may hold anything.
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent: u32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
            (parent == launcher).then(|| entry.file_name().to_str()?.parse().ok())?
        });
        let qemu = qemu.and_then(Pid::from_raw).context("the launcher has no machine")?;
        kill_process(qemu, signal).context("cannot reach the machine")
    }

    /// Everything the launcher has printed so far, standard output and error in the order in which they came.
    pub fn output(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.seen.join("\n")
    }

    /// The lines that came since this was asked last.
    pub fn news(&mut self) -> Vec<String> {
        self.seen.extend(self.lines.try_iter());
        let news = self.seen[self.told..].to_vec();
        self.told = self.seen.len();
        news
    }

    /// Waits for a line that contains `text`, in what was printed already or is printed from now on.
    pub fn wait_for(&mut self, text: &str, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return Ok(line.clone());
        }
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "the guest did not say {text:?} within {} s:\n{}",
                        patience.as_secs(),
                        self.output()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the guest ended before it said {text:?}:\n{}", self.output())
                }
            }
        }
    }

    /// Waits until the launcher ends by itself.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.launcher.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("the launcher did not end within {} s:\n{}", patience.as_secs(), self.output());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether the launcher has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.launcher.try_wait()?.is_some())
    }

    /// Ends the guest as an operator does, with SIGTERM.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        kill_process(Pid::from_child(&self.launcher), Signal::TERM).context("cannot stop the launcher")?;
        self.wait(Duration::from_secs(20))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if matches!(self.launcher.try_wait(), Ok(None)) && self.stop().is_err() {
            let _ = self.launcher.kill();
            let _ = self.launcher.wait();
        }
    }
}

fn forward(stream: impl std::io::Read, sender: &std::sync::mpsc::Sender<String>) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if sender.send(line).is_err() {
            return;
        }
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")
        .context("no free port on the loopback interface")?
        .local_addr()?
        .port())
}

/// The root of the development chain that `cloister-launch run --state` keeps in `state`.
pub fn development_root(state: &Path) -> PathBuf {
    state.join("dev-chain").join("ark.pem")
}

/// Writes a client policy for an image that was built into `folder` and a model root, and returns its path.
pub fn policy(folder: &Path, development_root: Option<&Path>) -> Result<PathBuf> {
    let out =
        folder.join(if development_root.is_some() { "policy.toml" } else { "policy-without-root.toml" });
    let mut command = Command::new(program("cloister")?);
    command.arg("policy").arg("--digests").arg(folder.join("digests.json")).arg("--out").arg(&out);
    if let Some(root) = development_root {
        command.arg("--development-root").arg(root);
    }
    crate::build::run(&mut command)?;
    Ok(out)
}
