//! `cargo ci`: every check and test, in the order in which they are cheap.

use crate::{build, chroot, deny, setup};
use anyhow::{Context, Result, ensure};
use indicatif::HumanDuration;
use std::process::{Command, Stdio};
use std::time::Instant;

/// With the engine's command line, which is off by default because the guest must not have it.
const ENGINE_TOOL: [&str; 2] = ["--features", "inference/cli"];

/// Runs everything; the first failure ends it.
pub fn run() -> Result<()> {
    let start = Instant::now();
    setup::for_ci()?;
    let clippy = ["-Dwarnings"];
    let freestanding = |package| {
        [
            &[
                "clippy",
                "--profile",
                "freestanding",
                "--locked",
                "-p",
                package,
                "--features",
                "freestanding",
                "--bins",
                "--",
            ],
            &clippy[..],
        ]
        .concat()
    };
    step("format", || build::cargo(&["fmt", "--all", "--check"]))?;
    step("files that do not belong in git", repository_is_clean)?;
    step("dependencies: advisories, licences, sources", deny::run)?;
    step("lints: host", || {
        build::cargo(
            &[
                &["clippy", "--release", "--locked", "--workspace", "--all-targets"],
                &ENGINE_TOOL[..],
                &["--"],
                &clippy[..],
            ]
            .concat(),
        )
    })?;
    step("lints: kernel", || build::cargo(&freestanding("kernel")))?;
    step("lints: SNP model", || build::cargo(&freestanding("snp-model")))?;
    step("documentation", || {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["doc", "--release", "--locked", "--workspace", "--no-deps", "--quiet"]);
        build::run(command.env("RUSTDOCFLAGS", "-Dwarnings").current_dir(build::root()))
    })?;
    // Installed if this user may: without them, the tests of shared stores say that they did not run.
    let stores = setup::for_stores();
    if let Err(error) = &stores {
        eprintln!("NOT RUN: the tests with Redis and PostgreSQL; {error:#}");
    }
    let peers = setup::for_peers();
    if let Err(error) = &peers {
        eprintln!("NOT RUN: the tests with Go's implementation of logs; {error:#}");
    }
    step("tests of every room", || {
        let required = [("CLOISTER_STORES", stores.is_ok()), ("CLOISTER_PEERS", peers.is_ok())];
        let required: Vec<_> =
            required.into_iter().filter(|(_, there)| *there).map(|(name, _)| (name, "required")).collect();
        test(&[&["--workspace", "--exclude", "xtask"], &ENGINE_TOOL[..]].concat(), &required)
    })?;
    step("programs", build::programs)?;
    step("image: rebuilt in a minimal chroot", || {
        let why = match chroot::can_make_one().then(chroot::audit) {
            Some(Err(error)) if error.is::<chroot::NoSystem>() => format!("{error:#}"),
            Some(result) => return result,
            None => "this user may not make chroots here".into(),
        };
        eprintln!("NOT RUN: {why}; `cargo xtask audit-in-chroot` as root runs it elsewhere");
        Ok(())
    })?;
    step("tests of the whole system", || {
        // One guest at a time: each runs on the CPUs of this machine without KVM.
        test(&["-p", "xtask", "--", "--test-threads=1"], &[])
    })?;
    println!("ci: ok, in {}", HumanDuration(start.elapsed()));
    Ok(())
}

/// `cargo test`. Property tests draw the same cases in every run, so that a change is judged by what it changed;
/// without the variable, as in a plain `cargo test`, they draw new ones each time.
fn test(arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--release", "--locked"]).args(arguments).current_dir(build::root());
    command.envs(variables.iter().copied());
    build::run(command.env("PROPTEST_RNG_SEED", "20261120").stdin(Stdio::null()))
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("ci: {name}");
    let start = Instant::now();
    work().with_context(|| format!("step \"{name}\" failed"))?;
    eprintln!("ci: {name}: ok, in {}", HumanDuration(start.elapsed()));
    Ok(())
}

/// No keys, downloads or built images are in git.
fn repository_is_clean() -> Result<()> {
    let listed = Command::new("git").args(["ls-files"]).current_dir(build::root()).output()?;
    ensure!(listed.status.success(), "git cannot list the files of this checkout");
    let names = String::from_utf8_lossy(&listed.stdout);
    let unwanted: Vec<&str> = names
        .lines()
        .filter(|name| {
            let test_data = name.contains("tests/data/");
            let key = name.ends_with(".key")
                || name.ends_with(".pem") && !test_data && !name.starts_with("attestation/");
            let built = name.ends_with(".rom") || name.ends_with(".igvm") || name.ends_with(".elf");
            let weights = name.ends_with(".gguf") && !name.starts_with("models/") && !test_data;
            key || built || weights
        })
        .collect();
    ensure!(unwanted.is_empty(), "these files do not belong in git: {unwanted:?}");
    Ok(())
}
