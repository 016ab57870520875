//! The rules for dependencies: no known vulnerabilities, known licences, one source (`deny.toml`).

use crate::{advisories, build, setup};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Holds all dependencies to `deny.toml`.
pub fn run() -> Result<()> {
    let folder = build::target()?.join("tools/advisories");
    let date = advisories::lay_out(&folder, &[])?;
    let output = check(&folder, |rules| rules)?;
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "dependencies break the rules of deny.toml");
    println!(
        "dependencies are within the rules; advisories of {date} (`cargo xtask advisories` fetches newer ones)"
    );
    Ok(())
}

/// Runs cargo-deny with the advisories in `folder`; `change` may alter the text of the rules, for a test.
pub fn check(folder: &Path, change: impl FnOnce(String) -> String) -> Result<Output> {
    let program = setup::cargo_deny()?;
    let rules = fs::read_to_string(build::root().join("deny.toml")).context("deny.toml")?;
    let place = format!("[advisories]\ndb-path = {:?}\n", folder.display().to_string());
    ensure!(rules.contains("[advisories]\n"), "deny.toml has no rules for advisories");
    let path = folder.join("deny.toml");
    fs::write(&path, change(rules.replacen("[advisories]\n", &place, 1)))?;
    // All crates of the lock file, also those that nothing built so far needed; from here on nothing needs the network.
    build::cargo(&["fetch", "--locked", "--quiet"])?;
    let mut deny = Command::new(program);
    deny.args(["--locked", "--offline", "--all-features", "--config"]).arg(path);
    deny.args(["check", "--hide-inclusion-graph"]);
    deny.current_dir(build::root()).output().context("cannot start cargo-deny")
}
