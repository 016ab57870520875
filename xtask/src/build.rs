//! Building the project's own programs and the image.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The checkout.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Cargo's target folder, from where this program or test lies in it.
pub fn target() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("cannot find out where this program is")?;
    // `release/xtask`, or `release/deps/test-…`.
    exe.ancestors()
        .find(|folder| folder.ends_with("release") || folder.ends_with("debug"))
        .and_then(Path::parent)
        .map(Path::to_path_buf)
        .context("this program does not lie in a target folder; run it through cargo")
}

/// Where a program of the project lies after [`programs`].
pub fn program(name: &str) -> Result<PathBuf> {
    Ok(target()?.join("release").join(name))
}

/// `cargo` with these arguments, in the checkout.
pub fn cargo(arguments: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    run(&mut command)
}

/// Builds the programs that operators, auditors and clients use.
pub fn programs() -> Result<()> {
    let target = target()?;
    let target = target.to_str().context("the target folder's path is not UTF-8")?;
    let packages =
        ["-p", "image-builder", "-p", "host-launcher", "-p", "client", "-p", "transparency", "-p", "privacy"];
    cargo(&[&["build", "--release", "--locked", "--target-dir", target], packages.as_slice()].concat())
}

/// Builds the image into `out`: `cloister.rom`, `cloister.igvm` and `digests.json`.
pub fn image(out: &Path) -> Result<()> {
    image_of(&crate::manifest::path(), out)
}

/// As [`image`], with another manifest.
pub fn image_of(manifest: &Path, out: &Path) -> Result<()> {
    let mut command = Command::new(program("cloister-image")?);
    command.arg("build").arg("--manifest").arg(manifest).arg("--out").arg(out);
    run(command.current_dir(root()))
}

/// The weights of the default model.
pub fn weights() -> PathBuf {
    root().join("models/cloister-mini.gguf")
}

/// Runs a command to its end; an exit code other than 0 is an error that names it.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    ensure!(status.success(), "{shown} ended with {status}");
    Ok(())
}
