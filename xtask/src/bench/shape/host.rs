//! The guest's service on this host, as a process of its own.

use crate::build;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running service; ended when dropped.
pub struct Host {
    process: Child,
    address: String,
    policy: PathBuf,
}

impl Host {
    /// Builds and starts it, with the default model. Without shape it is built with a feature that no image can have.
    pub fn start(is_shaped: bool) -> Result<Self> {
        let features: &[&str] = if is_shaped { &[] } else { &["--features", "service/unshaped"] };
        let arguments = ["build", "--release", "--locked", "-p", "service", "--example", "host"];
        build::cargo(&[&arguments, features].concat())?;
        let folder = build::target()?.join("shape");
        let mut process = Command::new(build::target()?.join("release/examples/host"))
            .arg("127.0.0.1:0")
            .arg(&folder)
            .arg(build::weights())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the example `host` of service")?;
        let stdout = process.stdout.take().context("the service has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let said = lines.next().context("the service ended at once")??;
        // Its events are not of interest, but it must be able to write them.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let Some((address, _)) = said.strip_prefix("serving on ").and_then(|rest| rest.split_once(';'))
        else {
            bail!("the service said {said:?}");
        };
        Ok(Self { process, address: address.to_owned(), policy: folder.join("policy.toml") })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn policy(&self) -> &Path {
        &self.policy
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
