//! The way to a guest on this machine: issuer, gateway and relay, with their keys in a log, set up and run as operators do.

use crate::build::{program, run};
use crate::guest::free_port;
use crate::log::Log;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The gateway's name in the log.
pub const GATEWAY: &str = "gateway.localhost";
/// The issuer's.
pub const ISSUER: &str = "issuer.localhost";
/// Where each party listens: addresses of this machine that tell them apart in a capture.
pub const RELAY_AT: &str = "127.0.0.3";
/// The gateway's address.
pub const GATEWAY_AT: &str = "127.0.0.4";

/// A service that runs until this value goes.
pub struct Service {
    child: Child,
    address: String,
    output: Arc<Mutex<String>>,
}

impl Service {
    /// Starts a program and waits until it says where it listens.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let output = Arc::<Mutex<String>>::default();
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            let mut stdout = BufReader::new(stdout);
            stdout.read_line(&mut line)?;
            keep(stdout, output.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            keep(stderr, output.clone());
        }
        let mut service = Self { child, address: String::new(), output };
        let Some(address) = line.trim().strip_prefix("listening on ") else {
            // What it says on its way out explains it.
            let _ = service.child.wait();
            std::thread::sleep(Duration::from_millis(100));
            bail!("{command:?} does not listen: {line}{}", service.output());
        };
        service.address = address.to_owned();
        Ok(service)
    }

    /// `ADDRESS:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it has printed since it listens.
    pub fn output(&self) -> String {
        self.output.lock().map(|text| text.clone()).unwrap_or_default()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("cannot reach a service")
    }

    /// Ends it as an operator does; it must end well.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "a service ended with {status}: {}", self.output());
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "a service does not end: {}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn keep(mut stream: impl Read + Send + 'static, output: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if let Ok(mut text) = output.lock() {
                text.push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        }
    });
}

/// Keys of gateway and issuer in a folder, in the log, with their proofs beside them; and one account, whose credential is in the
/// file `credential`.
pub struct Keys {
    /// Of the issuer's key. Its folder is `issuer`.
    pub issuer_proof: PathBuf,
    /// Of the gateway's key, which is in `keys`.
    pub gateway_proof: PathBuf,
}

impl Keys {
    /// Makes and logs them.
    pub fn make(folder: &Path, log: &Log) -> Result<Self> {
        let quiet = |command: &mut Command| run(command.stdout(Stdio::null()));

        let issuer = folder.join("issuer");
        let issue = |words: &[&str]| -> Result<Command> {
            let mut command = Command::new(program("cloister-issuer")?);
            command.args(words).arg("--folder").arg(&issuer);
            Ok(command)
        };
        quiet(&mut issue(&["init", "--name", ISSUER])?)?;
        let entry = printed(&mut issue(&["new-key"])?)?;
        quiet(issue(&["account", "add", "demo"])?.arg("--credential").arg(folder.join("credential")))?;
        let issuer_proof = prove(folder, log, &entry, "issuer-key", ISSUER, "token-issuer")?;

        let keys = folder.join("keys");
        let mut new_key = Command::new(program("cloister-gateway")?);
        new_key.args(["new-key", "--name", GATEWAY, "--keys"]).arg(&keys);
        let entry = printed(&mut new_key)?;
        let gateway_proof = prove(folder, log, &entry, "ohttp-key", GATEWAY, "gateway")?;
        Ok(Self { issuer_proof, gateway_proof })
    }
}

/// Issuer, gateway and relay.
pub struct Privacy {
    folder: PathBuf,
    /// The relay.
    pub relay: Service,
    /// The gateway.
    pub gateway: Service,
    /// The issuer.
    pub issuer: Service,
}

/// Where somebody listens in: the address to be used in place of the one given.
pub type Tap<'t> = &'t dyn Fn(&str) -> Result<String>;

impl Privacy {
    /// Makes keys and accounts in a new folder, logs the keys, and starts the three services in front of the guest at `guest`.
    /// `before_gateway` may put something between relay and gateway.
    pub fn start(folder: &Path, log: &Log, guest: &str, before_gateway: Tap<'_>) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let Keys { issuer_proof, gateway_proof } = Keys::make(folder, log)?;

        let config = folder.join("gateway.toml");
        let trust = trust(log, &[("issuer-key", ISSUER, "token-issuer")], None)?;
        fs::write(
            &config,
            format!(
                "name = \"{GATEWAY}\"\nkeys = \"keys\"\nguests = [\"{guest}\"]\n\n[listen]\naddress = \"{GATEWAY_AT}:0\"\n\n\
                 [tokens]\nissuer = \"{ISSUER}\"\nkey_mirrors = [\"{}\"]\nfloors = \"gateway-floors.json\"\n\
                 spent = \"redb:spent.redb\"\n\n{trust}",
                issuer_proof.display()
            ),
        )?;
        let gateway = Service::start(
            Command::new(program("cloister-gateway")?).arg("serve").arg("--config").arg(&config),
        )?;

        let config = folder.join("relay.toml");
        let through = before_gateway(gateway.address())?;
        fs::write(
            &config,
            format!(
                "[listen]\naddress = \"{RELAY_AT}:0\"\n\n[[gateway]]\npath = \"/gateway\"\nurl = \"http://{through}/\"\n"
            ),
        )?;
        let relay = Service::start(Command::new(program("cloister-relay")?).arg("--config").arg(&config))?;
        let at = format!("127.0.0.1:{}", free_port()?);
        let mut serve = Command::new(program("cloister-issuer")?);
        serve.args(["serve", "--listen", &at, "--folder"]).arg(folder.join("issuer"));
        let issuer = Service::start(&mut serve)?;
        fs::write(folder.join("mirror"), gateway_proof.display().to_string())?;
        Ok(Self { folder: folder.into(), relay, gateway, issuer })
    }

    /// Adds the way to a client's policy: `relay` is the relay's address, or that of somebody in front of it.
    pub fn extend(&self, policy: &Path, relay: &str) -> Result<()> {
        let mut text = fs::read_to_string(policy)?;
        let folder = self.folder.display();
        let mirror = fs::read_to_string(self.folder.join("mirror"))?;
        writeln!(
            text,
            "\n[way]\nrelay = \"http://{relay}/gateway\"\ngateway = \"{GATEWAY}\"\nkey_mirrors = [\"{mirror}\"]\n\
             floors = \"{folder}/client-floors.json\"\n\n[tokens]\nissuer = \"http://{}\"\nissuer_name = \"{ISSUER}\"\n\
             gateway = \"{GATEWAY}\"\ncredential = \"{folder}/credential\"\nwallet = \"{folder}/wallet.json\"\n\
             key_mirrors = [\"{folder}/issuer-key.tlog-proof\"]\nfloors = \"{folder}/client-issuer-floors.json\"",
            self.issuer.address()
        )?;
        fs::write(policy, text)?;
        Ok(())
    }

    /// What a client's policy must accept of a log besides images.
    pub fn accepted() -> [(&'static str, &'static str, &'static str); 2] {
        [("ohttp-key", GATEWAY, "gateway"), ("issuer-key", ISSUER, "token-issuer")]
    }

    /// Ends all three, as operators do.
    pub fn stop(self) -> Result<()> {
        let Self { relay, gateway, issuer, .. } = self;
        [relay, gateway, issuer].into_iter().try_for_each(Service::stop)
    }
}

/// The `[log]` section that accepts these keys, and an image of at least this version.
pub fn trust(log: &Log, keys: &[(&str, &str, &str)], image: Option<&str>) -> Result<String> {
    let image = image.map(|minimum| format!("cloister/guest/{minimum}"));
    let words = image.iter().flat_map(|accept| ["--accept", accept.as_str()]);
    let words: Vec<&str> = ["trust"].into_iter().chain(words).collect();
    let mut text = printed(&mut log.command(&words)?)?;
    for (kind, name, role) in keys {
        write!(text, "\n\n[[log.accept]]\nkind = \"{kind}\"\nname = \"{name}\"\nrole = \"{role}\"\n")?;
    }
    Ok(text)
}

/// Appends the entry of a file and writes its proof.
fn prove(folder: &Path, log: &Log, entry: &str, kind: &str, name: &str, role: &str) -> Result<PathBuf> {
    run(log.command(&["append", "--entry", entry])?.stdout(Stdio::null()))?;
    let proof = folder.join(format!("{kind}.tlog-proof"));
    run(log.command(&["prove", "--kind", kind, "--name", name, "--role", role, "--out"])?.arg(&proof))?;
    Ok(proof)
}

/// Standard output of a command that ends well, without the spaces at its end.
fn printed(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}
