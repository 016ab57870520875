//! A transparency log with a witness on this machine, made and used as operators do.

use crate::build::{program, root, run};
use crate::guest::free_port;
use crate::manifest;
use crate::privacy::Privacy;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The log's origin.
const ORIGIN: &str = "cloister.localhost/log";

/// A new log in a folder, and its witnesses, which end with this value.
pub struct Log {
    folder: PathBuf,
    witnesses: Vec<Child>,
}

impl Log {
    /// Makes a log and starts its witness. What was in the folder is removed: a log's keys are new each time, so that no
    /// proof of an earlier run is good for this one.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::with_witnesses(folder, 1)
    }

    /// The same with several witnesses, all of which must cosign.
    pub fn with_witnesses(folder: &Path, count: usize) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let quiet = |command: &mut Command| run(command.stdout(Stdio::null()));
        let mut init = Command::new(program("cloister-log")?);
        init.args(["init", "--origin", ORIGIN, "--threshold", &count.to_string()]);
        let mut witnesses = Vec::new();
        for number in 1..=count {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let (home, address) =
                (folder.join(format!("witness{suffix}")), format!("127.0.0.1:{}", free_port()?));
            let (name, url) = (format!("cloister.localhost/witness{suffix}"), format!("http://{address}"));
            let mut make = Command::new(program("cloister-witness")?);
            quiet(make.args(["init", "--name", &name, "--url", &url, "--folder"]).arg(&home))?;
            init.arg("--witness").arg(home.join("public.toml"));
            witnesses.push((home, address));
        }
        quiet(init.arg("--folder").arg(folder.join("log")))?;
        let mut log = Self { folder: folder.into(), witnesses: Vec::new() };
        for (home, address) in witnesses {
            let config = home.join("witness.toml");
            let mut add = Command::new(program("cloister-witness")?);
            add.arg("add-log").arg("--config").arg(&config);
            quiet(add.arg("--log").arg(folder.join("log/public.toml")))?;
            let mut child = Command::new(program("cloister-witness")?)
                .args(["serve", "--listen", &address, "--config"])
                .arg(config)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot start cloister-witness")?;
            let mut line = String::new();
            if let Some(stdout) = child.stdout.take() {
                BufReader::new(stdout).read_line(&mut line)?;
            }
            log.witnesses.push(child);
            ensure!(line.starts_with("listening on"), "the witness does not listen on {address}");
        }
        Ok(log)
    }

    /// `log.toml`.
    pub fn config(&self) -> PathBuf {
        self.folder.join("log/log.toml")
    }

    /// Runs `cloister-log` on this log to its end.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(program("cloister-log")?);
        let (name, rest) = words.split_first().context("a subcommand")?;
        command.arg(name).arg("--config").arg(self.config()).args(rest);
        Ok(command)
    }

    /// Publishes the image that was built into `image`, and gives the file of its proof. Its two builders are keys of this
    /// machine, which shows how it is done; that they agree says no more than what one of them says.
    pub fn publish(&self, image: &Path) -> Result<PathBuf> {
        let commit = commit()?;
        let mut builders = "threshold = 2\n".to_owned();
        let mut publish = Command::new(program("cloister-image")?);
        publish.arg("publish");
        for number in [1, 2] {
            let (key, statement) = (
                self.folder.join(format!("builder-{number}.key")),
                self.folder.join(format!("builder-{number}.statement")),
            );
            if key.exists() {
                fs::remove_file(&key)?;
            }
            let name = format!("cloister.localhost/builder-{number}");
            let mut make = Command::new(program("cloister-image")?);
            let made = make.args(["key", "--name", &name, "--out"]).arg(&key).output()?;
            ensure!(made.status.success(), "cloister-image made no key: {made:?}");
            builders += &format!("[[builder]]\nkey = {:?}\n", String::from_utf8_lossy(&made.stdout).trim());
            let mut vouch = Command::new(program("cloister-image")?);
            vouch
                .args(["vouch", "--vcpus", &manifest::vcpus()?.to_string(), "--commit", &commit, "--key"])
                .arg(key)
                .arg("--built")
                .arg(image);
            run(vouch.arg("--out").arg(&statement).stderr(Stdio::null()))?;
            publish.arg(statement);
        }
        let who = self.folder.join("builders.toml");
        fs::write(&who, builders)?;
        publish.arg("--builders").arg(who).arg("--config").arg(self.config());
        run(publish.arg("--file").arg(image.join("cloister.rom")).stdout(Stdio::null()))?;
        let proof = self.folder.join("cloister.tlog-proof");
        let words = ["prove", "--name", "cloister", "--out"];
        run(self.command(&words)?.arg(&proof))?;
        Ok(proof)
    }

    /// Writes a client's policy that accepts what this log proves, with versions from `minimum` on.
    pub fn policy(&self, minimum: &str, development_root: &Path) -> Result<PathBuf> {
        let (trust, out) = (self.folder.join("trust.toml"), self.folder.join("policy.toml"));
        fs::write(&trust, crate::privacy::trust(self, &Privacy::accepted(), Some(minimum))?)?;
        let mut command = Command::new(program("cloister")?);
        command.arg("policy").arg("--log").arg(trust).arg("--development-root").arg(development_root);
        run(command.arg("--out").arg(&out))?;
        Ok(out)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        for witness in &mut self.witnesses {
            let _ = witness.kill();
            let _ = witness.wait();
        }
    }
}

/// The commit of the checkout; zeros where there is none, as in a source archive.
fn commit() -> Result<String> {
    let output = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root()).output();
    Ok(match output {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout)?.trim().into(),
        _ => "0".repeat(40),
    })
}
