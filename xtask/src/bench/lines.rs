//! Benchmarks of other rooms, which print a line of JSON for each figure.

use super::Figures;
use crate::build;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::process::{Command, Stdio};

#[derive(Deserialize)]
struct Line {
    name: String,
    value: f64,
    unit: String,
}

/// Units that such a line may have.
const UNITS: [&str; 5] = ["us", "bytes", "tokens/s", "requests/s", "1"];

/// Runs `cargo bench` with these arguments and adds what it prints.
pub fn add(figures: &mut Figures<'_>, arguments: &str) -> Result<()> {
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
        let unit = UNITS.into_iter().find(|known| *known == unit).context("an unknown unit")?;
        figures.add(name, value, unit, format!("cargo {arguments}"));
    }
    Ok(())
}
