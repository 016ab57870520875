//! `cargo xtask mutants`: images and clients without one defence, to show that each promise of [`crate::hostile`] rests on it.
//!
//! No switch for this is in the source of the guest. A mutant is a copy of the checkout in which a few lines read
//! otherwise; it is built with the project's own image builder and then attacked like the real image. If it keeps the
//! promise all the same, the test that watches over the promise proves nothing, and this command fails.

mod list;
mod way;

use crate::hostile::{Attack, Outcome, Promise, Site};
use crate::{build, setup};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
pub use list::{MUTANTS, Mutant};
use snp_model::hostile::Lie;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;
use way::{WAY_MUTANTS, WayMutant};

/// Where the rows' tests are.
const TESTS: &str = include_str!("../tests/whole_system/hostile.rs");

/// What to run.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask mutants\n  cargo xtask mutants --together\n  cargo xtask mutants a6 a13-no-root\n  cargo xtask mutants c1 c2 c3"
)]
pub struct Options {
    /// Names of mutants, or rows; all if none is given.
    names: Vec<String>,
    /// Print the mutants and run none.
    #[arg(long)]
    list: bool,
    /// Attack one image that lacks all defences, which is quicker: each attack touches one of them, and runs for other rows
    /// build nothing anew. Clients, and mutants that would hide what others lack, are still built one by one.
    #[arg(long)]
    together: bool,
}

/// Builds and attacks the mutants.
pub fn run(options: &Options) -> Result<()> {
    let (none, meant) = (options.names.is_empty(), |mutant: &&WayMutant| {
        options.names.iter().any(|name| mutant.is_meant(name))
    });
    let on_the_way: Vec<&WayMutant> = WAY_MUTANTS.iter().filter(|mutant| none || meant(mutant)).collect();
    let chosen: Vec<&Mutant> = MUTANTS
        .iter()
        .filter(|mutant| {
            options.names.is_empty()
                || options.names.iter().any(|name| name == mutant.name || name == mutant.row())
        })
        .collect();
    ensure!(
        !chosen.is_empty() || !on_the_way.is_empty(),
        "no mutant has one of these names; see `cargo xtask mutants --list`"
    );
    if options.list {
        chosen.iter().for_each(|mutant| println!("{:26} {}", mutant.name, mutant.about));
        on_the_way.iter().for_each(|mutant| println!("{:26} {}", mutant.name, mutant.about));
        return Ok(());
    }
    if !on_the_way.is_empty() {
        way::run(&on_the_way, options.together)?;
    }
    if chosen.is_empty() {
        return Ok(());
    }
    setup::for_ci()?;
    build::programs()?;
    let nursery = Nursery::new()?;
    let (crowd, alone): (Vec<&Mutant>, Vec<&Mutant>) =
        chosen.into_iter().partition(|mutant| options.together && mutant.gets_along());
    println!(
        "| mutant | what is taken out | attack | promised | what happened | fails |\n|---|---|---|---|---|---|"
    );
    let mut survivors = Vec::new();
    let mut judge = |mutant: &Mutant, outcome: &Outcome, promise: Promise| {
        let kept = promise.is_kept(outcome);
        println!(
            "| {} | {} | {} | {promise:?} | {outcome:?} | {} |",
            mutant.name,
            mutant.about,
            mutant.attack,
            if kept { "**nothing: the promise was kept**" } else { mutant.test() }
        );
        if kept {
            survivors.push(mutant.name);
        }
    };
    if !crowd.is_empty() {
        let all: Vec<&Mutant> = MUTANTS.iter().filter(|mutant| mutant.gets_along()).collect();
        nursery.with(&all, |site| {
            let honest = site.play(Attack::None)?;
            ensure!(
                honest == Outcome::Served,
                "the image without defences does not serve at all: {honest:?}"
            );
            crowd.iter().try_for_each(|mutant| {
                let attack = mutant.attack()?;
                judge(mutant, &site.play(attack)?, Promise::under(attack));
                Ok(())
            })
        })?;
    }
    for mutant in alone {
        nursery.with(&[mutant], |site| {
            let attack = mutant.attack()?;
            judge(mutant, &site.play(attack)?, Promise::under(attack));
            Ok(())
        })?;
    }
    ensure!(survivors.is_empty(), "these promises are kept without their defence: {survivors:?}");
    Ok(())
}

impl Mutant {
    /// The row whose defence it lacks.
    pub fn row(&self) -> &str {
        self.name.split('-').next().unwrap_or_default()
    }

    /// The test of the row. It plays each attack of the row, so it fails when one of them breaks its promise.
    pub fn test(&self) -> &'static str {
        let name = |line: &'static str| line.strip_prefix("fn ")?.split_once('(').map(|(name, _)| name);
        let row = format!("{}_", self.row());
        TESTS.lines().filter_map(name).find(|name| name.starts_with(&row)).unwrap_or_default()
    }

    /// The attack that it is to fall to.
    pub fn attack(&self) -> Result<Attack> {
        match self.attack {
            "flood" => Ok(Attack::Flood),
            name => Lie::from_name(name).map(Attack::Lie).with_context(|| format!("no lie is called {name}")),
        }
    }

    /// Whether an image may lack this together with all the others: one that serves who does not lie, and whose lack hides
    /// none of theirs.
    fn gets_along(&self) -> bool {
        // An exception handler that returns hides how others end, the model lets nobody off what A7 is about, and what A18's
        // watch for is the same.
        !self.is_client() && !matches!(self.row(), "a2" | "a7" | "a18") && self.name != "a6-validates-again"
    }

    /// Makes its changes to `files`, which are read from `root` where they are not there yet.
    pub fn patch(&self, root: &Path, files: &mut Vec<(PathBuf, String)>) -> Result<()> {
        for (file, from, to) in self.changes {
            let path = PathBuf::from(file);
            let at = match files.iter().position(|(known, _)| *known == path) {
                Some(at) => at,
                None => {
                    let text = fs::read_to_string(root.join(file))
                        .with_context(|| format!("{}: cannot read {file}", self.name))?;
                    files.push((path, text));
                    files.len() - 1
                }
            };
            let text = &mut files[at].1;
            if text.matches(from).count() == 0 && text.contains(to) {
                // Another mutant lacks the same defence.
                continue;
            }
            ensure!(
                text.matches(from).count() == 1,
                "{}: {file} does not have exactly once what is to be changed:\n{from}",
                self.name
            );
            *text = text.replacen(from, to, 1);
        }
        Ok(())
    }
}

/// A copy of the checkout, where one mutant after the other is made.
struct Nursery {
    source: PathBuf,
    target: PathBuf,
    out: PathBuf,
    state: PathBuf,
}

impl Nursery {
    fn new() -> Result<Self> {
        let folder = build::target()?.join("mutants");
        let source = folder.join("source");
        let nursery = Self {
            target: folder.join("target"),
            out: folder.join("image"),
            state: folder.join("state"),
            source,
        };
        for folder in [&nursery.source, &nursery.out, &nursery.state] {
            fs::create_dir_all(folder)?;
        }
        let listed = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(build::root())
            .output()?;
        ensure!(listed.status.success(), "git cannot list the files of this checkout");
        for name in String::from_utf8(listed.stdout)?.lines() {
            let (from, to) = (build::root().join(name), nursery.source.join(name));
            // Files that mutants change are written with each mutant, and only then, so that the same one is built once.
            let theirs = MUTANTS.iter().any(|mutant| mutant.changes.iter().any(|(file, ..)| *file == name));
            if let (true, false, Some(folder)) = (from.is_file(), theirs && to.exists(), to.parent()) {
                fs::create_dir_all(folder)?;
                write_if_other(&to, &fs::read(from)?)?;
            }
        }
        Ok(nursery)
    }

    /// Builds what lacks the defences of `mutants`, and has it attacked.
    fn with(&self, mutants: &[&Mutant], attack: impl FnOnce(&Site<'_>) -> Result<()>) -> Result<()> {
        let start = Instant::now();
        let mut files = Vec::new();
        mutants.iter().try_for_each(|mutant| mutant.patch(&build::root(), &mut files))?;
        // Whatever else an earlier mutant changed is as it was.
        for (file, ..) in MUTANTS.iter().flat_map(|mutant| mutant.changes) {
            let path = Path::new(file);
            if !files.iter().any(|(known, _)| known == path) {
                files.push((path.into(), fs::read_to_string(build::root().join(path))?));
            }
        }
        for (file, text) in &files {
            write_if_other(&self.source.join(file), text.as_bytes())?;
        }
        let built = self.build(mutants.iter().any(|mutant| mutant.is_client()));
        let names: Vec<&str> = mutants.iter().map(|mutant| mutant.name).collect();
        eprintln!("mutants: {} built in {} s", names.join(", "), start.elapsed().as_secs());
        built.and_then(|client| attack(&Site { image: &self.out, state: &self.state, client }))
    }

    /// Builds what is changed; the client to use.
    fn build(&self, client: bool) -> Result<PathBuf> {
        if client {
            self.run("cargo", &["build", "--release", "--locked", "-p", "client"])?;
            build::image(&self.out)?;
            return Ok(self.target.join("release/cloister"));
        }
        let builder = build::program("cloister-image")?;
        let out = self.out.to_str().context("the target folder's path is not UTF-8")?;
        self.run(&builder, &["build", "--out", out])?;
        build::program("cloister")
    }

    fn output(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.source).env_remove("CARGO_MANIFEST_DIR");
        command.env("CARGO_TARGET_DIR", &self.target).stdin(Stdio::null());
        // A mutant may leave things unused.
        Ok(command.env("RUSTFLAGS", "-Awarnings").output()?)
    }

    fn run(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Result<()> {
        let output = self.output(program, arguments)?;
        if !output.status.success() {
            bail!("the mutant cannot be built:\n{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

/// Leaves the file's time alone if nothing changes, so that cargo builds only what is new.
fn write_if_other(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).ok().as_deref() != Some(bytes) {
        fs::write(path, bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_can_be_made_and_attacked() {
        for mutant in MUTANTS {
            let mut files = Vec::new();
            match mutant.attack().unwrap() {
                Attack::Lie(lie) => assert_eq!(lie.name().split('-').next(), Some(mutant.row())),
                other => assert_eq!((other, mutant.row()), (Attack::Flood, "a17")),
            }
            assert!(!mutant.test().is_empty(), "{}", mutant.name);
            mutant.patch(&build::root(), &mut files).unwrap();
            assert!(!files.is_empty(), "{}", mutant.name);
        }
    }

    #[test]
    fn they_can_be_made_together() {
        let mut files = Vec::new();
        MUTANTS.iter().for_each(|mutant| mutant.patch(&build::root(), &mut files).unwrap());
    }

    #[test]
    fn every_row_has_a_mutant() {
        for row in 1..=21 {
            let row = format!("a{row}");
            assert!(MUTANTS.iter().any(|mutant| mutant.row() == row), "{row}");
        }
    }
}
