//! The transparency log: proofs, and appends against the size of the log.

use super::{Figures, Subject};
use crate::build;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::process::{Command, Stdio};

/// Size and check of proofs, and cost of appends up to ten million entries.
pub const SUBJECT: Subject =
    Subject { name: "log", about: "proofs of the transparency log, and appends to it", run };

#[derive(Deserialize)]
struct Line {
    name: String,
    value: f64,
    unit: String,
}

fn run(figures: &mut Figures) -> Result<()> {
    let arguments = "bench -p transparency --bench log -- --largest 10000000";
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments.split(' '))
        .current_dir(build::root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo {arguments} ended with {}", output.status);
    for line in String::from_utf8(output.stdout)?.lines().filter(|line| line.starts_with('{')) {
        let Line { name, value, unit } = serde_json::from_str(line)?;
        let unit = ["us", "bytes", "entries/s"]
            .into_iter()
            .find(|known| *known == unit)
            .context("an unknown unit")?;
        figures.add(name, value, unit, format!("cargo {arguments}"));
    }
    Ok(())
}
