//! `cloister-image sbom` and `cloister-image provenance`.

use crate::args;
use crate::failure::Failure;
use image_builder::checkout::Checkout;
use image_builder::freestanding::Toolchain;
use image_builder::rom;
use image_builder::source::Source;
use image_builder::tcb::{
    self,
    statements::{Artifact, Build, cyclonedx, provenance as slsa},
};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Writes the bill of materials of the checkout's image.
pub fn sbom(options: &args::Sbom) -> Result<(), Failure> {
    let checkout = Checkout::find().map_err(|_| Failure::NoCheckout)?;
    let report = tcb::report(&checkout)?;
    let manifest = Source::load(&checkout.root().join("models/manifest.toml"))?.manifest;
    let rom = rom::build(&report.kernel, &manifest)?;
    write(options.out.as_deref(), &cyclonedx(&report, &manifest, &rom))
}

/// Writes the provenance of files that were built from the checkout's commit. The ROM among them is built once more, so that
/// the statement says nothing that was not seen.
pub fn provenance(options: &args::Provenance) -> Result<(), Failure> {
    let checkout = Checkout::find().map_err(|_| Failure::NoCheckout)?;
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(checkout.root()).args(arguments).output();
        let output = output.map_err(|error| Failure::NotCommitted(error.to_string()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(Failure::NotCommitted(text(&output.stderr)))
        }
    };
    let changes = git(&["status", "--porcelain"])?;
    if !changes.is_empty() {
        return Err(Failure::NotCommitted(changes));
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    let toolchain = Toolchain::of(&checkout)?;
    let report = tcb::report(&checkout)?;
    let manifest = Source::load(&checkout.root().join("models/manifest.toml"))?.manifest;
    let rom = rom::build(&report.kernel, &manifest)?;

    let mut files = Vec::new();
    for path in &options.files {
        let bytes = fs::read(path).map_err(|source| Failure::Read { path: path.clone(), source })?;
        if path.extension().is_some_and(|extension| extension == "rom") && bytes != rom {
            return Err(Failure::NotBuiltHere(path.clone()));
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        files.push((name, bytes));
    }
    let artifacts: Vec<Artifact> = files.iter().map(|(name, bytes)| Artifact { name, bytes }).collect();
    let build = Build {
        repository: options.repository.clone(),
        commit,
        builder: options.builder.clone(),
        rust: toolchain.version,
        rust_commit: toolchain.commit,
    };
    let statement = slsa(&report, &artifacts, &build);
    #[cfg(feature = "publish")]
    if let Some(key) = &options.key {
        use image_builder::{dsse, publish::statement::NotSigned};
        let key = transparency::log::config::read_key(key)?;
        return write(options.out.as_deref(), &dsse::envelope(&statement, &key).map_err(NotSigned::from)?);
    }
    write(options.out.as_deref(), &statement)
}

fn write(out: Option<&Path>, value: &Value) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    match out {
        Some(path) => fs::write(path, text).map_err(|source| Failure::Write { path: path.into(), source }),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}
