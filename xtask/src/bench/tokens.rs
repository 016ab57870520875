//! Anonymous tokens: issuing, checking, and remembering which are spent.

use super::{Figures, Subject};
use crate::{build, setup};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::process::{Command, Stdio};

/// Tokens issued and redeemed per second, by store, and with two gateways on one store.
pub const SUBJECT: Subject =
    Subject { name: "tokens", about: "anonymous tokens: issuing, checking, stores of spent ones", run };

#[derive(Deserialize)]
struct Line {
    name: String,
    value: f64,
    unit: String,
}

fn run(figures: &mut Figures) -> Result<()> {
    setup::for_stores()?;
    let arguments = "bench -p privacy --bench tokens";
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
        let unit = ["us", "bytes", "tokens/s", "1"]
            .into_iter()
            .find(|known| *known == unit)
            .context("an unknown unit")?;
        figures.add(name, value, unit, format!("cargo {arguments}"));
    }
    Ok(())
}
