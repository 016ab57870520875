//! Rebuilds an image from its source in a clean folder and compares it, byte for byte, with what was published.
//!
//! The source's own builder makes the image, with the toolchain that the source pins, in a folder that did not exist before
//! and under none of the auditor's cargo settings but those for reaching crates. Building runs code from the source
//! (its builder, build scripts, procedural macros): audit a source that you would not run in a machine you can throw away.

pub mod compare;
#[cfg(feature = "publish")]
pub mod logged;
mod origin;

use crate::checkout::{Checkout, NotFound};
use crate::freestanding::{self, BuildError};
use crate::igvm;
use compare::Comparison;
pub use origin::Origin;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

/// What an auditor chooses.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the source comes from.
    pub origin: Origin,
    /// A folder that `cargo vendor` made; with it, nothing is downloaded. A folder `vendor` in the source is used by itself.
    pub vendor: Option<PathBuf>,
    /// The clean folder, which must not exist; without it a temporary one, deleted at the end.
    pub work: Option<PathBuf>,
    /// The manifest to build with, relative to the source; without it the source's default.
    pub manifest: Option<PathBuf>,
}

/// Why an image could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The folder for the build is in use.
    #[error(
        "{0} exists already; name a folder that does not, so that nothing left in it takes part in the build"
    )]
    NotClean(PathBuf),
    /// The source cannot be had.
    #[error("the source cannot be unpacked: `{command}` failed: {detail}")]
    Unpack {
        /// What was run.
        command: String,
        /// What it said.
        detail: String,
    },
    /// There is no source in what was given.
    #[error("{0} holds no Cloister source; give the root of a checkout, its archive, or a commit")]
    NoSource(PathBuf),
    /// There is nothing to vendor from.
    #[error(
        "{0} is not a folder of vendored crates; make one with `cargo vendor --locked DIR` in the source"
    )]
    NoVendor(PathBuf),
    /// The build failed.
    #[error("the source could not be built: {0}")]
    Build(#[from] BuildError),
    /// The source's builder failed.
    #[error("the source's own builder ended with {0}; its messages stand above")]
    Builder(std::process::ExitStatus),
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// An image that was built from source again.
#[derive(Debug)]
pub struct Rebuilt {
    /// The bytes of `cloister.rom`.
    pub rom: Vec<u8>,
    /// The bytes of `cloister.igvm`.
    pub igvm: Vec<u8>,
    /// The text of `digests.json`.
    pub digests: String,
    /// The kernel's ELF, whose symbols say what lies where.
    pub kernel: Vec<u8>,
}

/// Rebuilds the image that `options` name.
///
/// # Errors
/// [`AuditError`], if the source cannot be unpacked or built.
pub fn rebuild(options: &Options) -> Result<Rebuilt, AuditError> {
    let (work, _deleted_at_the_end) = clean_folder(options.work.as_deref())?;
    let source = options.origin.unpack(&work.join("source"))?;
    let checkout = Checkout::at(&source).map_err(|NotFound| AuditError::NoSource(source.clone()))?;

    let own_vendor = source.join("vendor");
    if let Some(vendor) = options.vendor.clone().or_else(|| own_vendor.is_dir().then_some(own_vendor)) {
        use_vendored(&work, &vendor)?;
    }
    let target = work.join("target");
    let out = work.join("out");
    let mut build = freestanding::tool(&checkout, "cargo");
    build.args(["run", "--release", "--locked", "--package", "image-builder", "--no-default-features"]);
    build.arg("--target-dir").arg(&target);
    build.args(["--", "build", "--out"]).arg(&out);
    if let Some(manifest) = &options.manifest {
        build.arg("--manifest").arg(source.join(manifest));
    }
    // The builder's child processes look for the target folder here.
    build.env("CARGO_TARGET_DIR", &target).stdin(Stdio::null()).stdout(Stdio::null());
    let status = build.status().map_err(|source| BuildError::Tool { tool: "cargo", source })?;
    if !status.success() {
        return Err(AuditError::Builder(status));
    }
    let kernel = target.join("freestanding").join(freestanding::TARGET).join("freestanding/cloister-kernel");
    Ok(Rebuilt {
        rom: read(&out.join("cloister.rom"))?,
        igvm: read(&out.join("cloister.igvm"))?,
        digests: String::from_utf8_lossy(&read(&out.join("digests.json"))?).into_owned(),
        kernel: read(&kernel)?,
    })
}

impl Rebuilt {
    /// Compares the rebuilt image with `published`, a ROM or an IGVM file.
    pub fn compare(&self, published: &[u8]) -> Comparison {
        if igvm::is_igvm(published) {
            return compare::files(&self.igvm, published);
        }
        compare::roms(&self.rom, published, &self.kernel)
    }
}

/// The folder to work in, and what deletes it again if it is a temporary one.
fn clean_folder(wanted: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>), AuditError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| AuditError::File { path, source }
    };
    match wanted {
        Some(path) if path.exists() => Err(AuditError::NotClean(path.into())),
        Some(path) => {
            fs::create_dir_all(path).map_err(failed(path))?;
            Ok((fs::canonicalize(path).map_err(failed(path))?, None))
        }
        None => {
            let folder = tempfile::Builder::new().prefix("cloister-audit-").tempdir();
            let folder = folder.map_err(failed(&env::temp_dir()))?;
            Ok((fs::canonicalize(folder.path()).map_err(failed(folder.path()))?, Some(folder)))
        }
    }
}

/// Tells cargo, in the folder above the source, to take all crates from `vendor` and nothing from the network
/// (The Cargo Book, "Source replacement").
fn use_vendored(work: &Path, vendor: &Path) -> Result<(), AuditError> {
    let folder = fs::canonicalize(vendor).ok().filter(|folder| folder.is_dir());
    let folder = folder.ok_or_else(|| AuditError::NoVendor(vendor.into()))?;
    let settings = work.join(".cargo");
    let text = format!(
        "[source.crates-io]\nreplace-with = \"vendored\"\n\n[source.vendored]\ndirectory = {}\n\n[net]\noffline = true\n",
        toml::Value::from(folder.to_string_lossy().into_owned())
    );
    let path = settings.join("config.toml");
    let written = fs::create_dir_all(&settings).and_then(|()| fs::write(&path, text));
    written.map_err(|source| AuditError::File { path, source })
}

fn read(path: &Path) -> Result<Vec<u8>, AuditError> {
    fs::read(path).map_err(|source| AuditError::File { path: path.into(), source })
}

/// Runs a command to its end.
fn run(mut command: Command) -> Result<(), AuditError> {
    let shown = format!("{command:?}").replace('"', "");
    let failed = |detail: String| AuditError::Unpack { command: shown.clone(), detail };
    let output = command.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
