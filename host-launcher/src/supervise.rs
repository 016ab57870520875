//! Runs QEMU in the foreground until it ends, and makes sure that it ends.

use crate::ending::{Ending, Seen};
use crate::event_stream::EventStream;
use crate::failure::Failure;
use crate::machine::{Arguments, QEMU};
use snp_model::counts;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};
use wire::event::Event;

/// What happens while a guest runs.
#[derive(Debug)]
pub enum Happening {
    /// The guest said something.
    Event(Event),
    /// The SNP model said something.
    ModelLine(String),
    /// The SNP model's counts of what the guest needed its host for, by reason.
    Counts(Vec<(String, u64)>),
    /// QEMU said something.
    QemuLine(String),
    /// The operator wants an end.
    Stop,
    /// One of QEMU's two outputs was closed, which happens when it ends.
    Closed,
}

/// How many of QEMU's last lines are kept to explain its end.
const LINES_KEPT: usize = 20;
/// How long QEMU may live after the guest's last word. Under KVM it would live for ever: it does not know the exit with
/// which a guest's termination request reaches it (`KVM_SYSTEM_EVENT_SEV_TERM`), and stops the machine instead of ending.
const LAST_WORD: Duration = Duration::from_secs(3);
/// How QEMU then begins its complaint (`kvm_arch_handle_exit`): all there is from a guest that ended before its first event.
const UNKNOWN_EXIT: &str = "KVM: unknown exit reason";
/// What the SNP model's lines begin with.
const MODEL_PREFIX: &str = "snp-model: ";

/// Starts QEMU and passes everything that happens to `tell`, until QEMU has ended.
///
/// `sender` and `happenings` are two ends of one channel: the caller's own source of [`Happening::Stop`] has a clone.
pub fn run(
    arguments: &Arguments,
    sender: &Sender<Happening>,
    happenings: &Receiver<Happening>,
    tell: impl FnMut(&Happening),
) -> Result<Ending, Failure> {
    follow(start(arguments)?, sender, happenings, LAST_WORD, tell)
}

fn follow(
    mut qemu: Qemu,
    sender: &Sender<Happening>,
    happenings: &Receiver<Happening>,
    last_word: Duration,
    mut tell: impl FnMut(&Happening),
) -> Result<Ending, Failure> {
    let mut open = 0;
    if let Some(output) = qemu.0.stdout.take() {
        forward(output, sender.clone(), read_events);
        open += 1;
    }
    if let Some(output) = qemu.0.stderr.take() {
        forward(output, sender.clone(), read_lines);
        open += 1;
    }
    let mut seen = Seen::default();
    let mut deadline: Option<Instant> = None;
    while open > 0 {
        let next = match deadline {
            None => happenings.recv().map_err(RecvTimeoutError::from),
            Some(deadline) => happenings.recv_timeout(deadline.saturating_duration_since(Instant::now())),
        };
        let happening = match next {
            Ok(happening) => happening,
            Err(RecvTimeoutError::Timeout) => {
                deadline = None;
                qemu.end();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        match &happening {
            Happening::Event(event) => {
                seen.event(*event);
                if seen.terminating.is_some() {
                    deadline = deadline.or(Some(Instant::now() + last_word));
                }
            }
            Happening::ModelLine(line) => seen.model_line = Some(line.clone()),
            Happening::QemuLine(line) => {
                if line.starts_with(UNKNOWN_EXIT) {
                    deadline = deadline.or(Some(Instant::now() + last_word));
                }
                seen.qemu_lines.push(line.clone());
                let excess = seen.qemu_lines.len().saturating_sub(LINES_KEPT);
                seen.qemu_lines.drain(..excess);
            }
            Happening::Stop => {
                seen.stop = true;
                qemu.end();
            }
            Happening::Counts(_) => {}
            Happening::Closed => open -= 1,
        }
        tell(&happening);
    }
    let status = qemu.0.wait().map_err(|source| Failure::Qemu { program: QEMU.into(), source })?;
    Ok(seen.ending(status.code()))
}

/// QEMU, which never outlives this value.
struct Qemu(Child);

impl Qemu {
    fn end(&mut self) {
        // It has nothing to save, and one that is already gone is what is wanted.
        let _ = self.0.kill();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.end();
        let _ = self.0.wait();
    }
}

/// Starts QEMU in a process group of its own, so that Ctrl-C reaches only the launcher, which then ends it.
///
/// `setpriv` (util-linux) asks the kernel to end QEMU if the launcher is killed and cannot; where there is none, QEMU
/// starts without that.
fn start(arguments: &Arguments) -> Result<Qemu, Failure> {
    let spawn = |command: &mut Command| {
        command.args(&arguments.0).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    let guarded = spawn(Command::new("setpriv").args(["--pdeathsig", "KILL", "--", QEMU]));
    let started = match guarded {
        Err(error) if error.kind() == io::ErrorKind::NotFound => spawn(&mut Command::new(QEMU)),
        other => other,
    };
    started.map(Qemu).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Failure::NoQemu { program: QEMU.into() },
        _ => Failure::Qemu { program: QEMU.into(), source },
    })
}

fn forward<R: Read + Send + 'static>(output: R, sender: Sender<Happening>, read: fn(R, &Sender<Happening>)) {
    thread::spawn(move || {
        read(output, &sender);
        let _ = sender.send(Happening::Closed);
    });
}

/// Reads until QEMU ends or nobody listens any more.
fn read_events(mut output: impl Read, sender: &Sender<Happening>) {
    let mut stream = EventStream::default();
    let mut buffer = [0; 4096];
    loop {
        match output.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                for event in stream.push(&buffer[..length]) {
                    if sender.send(Happening::Event(event)).is_err() {
                        return;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn read_lines(output: impl Read, sender: &Sender<Happening>) {
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        let happening = match line.strip_prefix(MODEL_PREFIX) {
            _ if line.is_empty() => continue,
            Some(rest) => match rest.strip_prefix(counts::LINE) {
                Some(pairs) => Happening::Counts(
                    counts::parse(pairs).map(|(name, count)| (name.to_owned(), count)).collect(),
                ),
                None => Happening::ModelLine(rest.to_owned()),
            },
            None => Happening::QemuLine(line.to_owned()),
        };
        if sender.send(happening).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use wire::termination::Termination;

    /// What comes of a QEMU that says this and then, left alone, ends after a while as if the guest had broken a rule.
    fn after(words: &str) -> Ending {
        let mut patience = Command::new("sleep").arg("20").stdout(Stdio::piped()).spawn().unwrap();
        let qemu = Command::new("sh")
            .args(["-c", &format!("{words}; read line; exit 35")])
            .stdin(patience.stdout.take().unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, happenings) = channel();
        let ending = follow(Qemu(qemu), &sender, &happenings, Duration::from_millis(100), |_| {});
        patience.kill().unwrap();
        patience.wait().unwrap();
        ending.unwrap()
    }

    #[test]
    fn a_qemu_that_outlives_its_guest_is_ended() {
        let last = Event::Terminating { reason: Termination::MemoryLayout, value: 7 };
        let octal: String = last.encode().iter().map(|byte| format!("\\{byte:03o}")).collect();
        let ending = after(&format!("printf '{octal}'"));
        assert!(matches!(ending, Ending::Terminated(Some((Termination::MemoryLayout, 7)))), "{ending:?}");

        let ending = after("echo 'KVM: unknown exit reason 24' >&2");
        assert!(matches!(ending, Ending::QemuDied { status: None, .. }), "{ending:?}");
    }
}
