//! Outside judges of the image and its launch digest, installed where they can be deleted again.

use crate::checkout::Checkout;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Output};

/// What is installed; another version may measure otherwise.
pub const SEV_SNP_MEASURE: &str = "sev-snp-measure==0.0.13";

/// What is installed of virtfw-igvm-tools.
pub const VIRTFW_IGVM_TOOLS: &str = "0.2.6";

/// Why a tool is not there.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// There is no Python.
    #[error(
        "python3 could not be started ({0}); install it with its venv module (`apt install python3-venv`)"
    )]
    NoPython(io::Error),
    /// There is no cargo.
    #[error("cargo could not be started ({0}); install Rust from https://rustup.rs")]
    NoCargo(io::Error),
    /// A step of the installation failed.
    #[error(
        "`{step}` failed; check that python3-venv is installed and that PyPI and crates.io can be reached:\n{output}"
    )]
    Failed {
        /// What was run.
        step: &'static str,
        /// What it printed.
        output: String,
    },
}

/// The `sev-snp-measure` command, installed from PyPI into the target folder unless it is there already. Beside it lies
/// the `python` that has its modules.
pub fn sev_snp_measure(checkout: &Checkout) -> Result<PathBuf, ToolError> {
    let venv = checkout.target().join("tools/sev-snp-measure");
    let program = venv.join("bin/sev-snp-measure");
    if !program.is_file() {
        let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv).output();
        succeeded("python3 -m venv", made.map_err(ToolError::NoPython)?)?;
        let pip = venv.join("bin/python");
        let installed = Command::new(pip).args(["-m", "pip", "install", "--quiet", SEV_SNP_MEASURE]).output();
        succeeded("pip install sev-snp-measure", installed.map_err(ToolError::NoPython)?)?;
    }
    Ok(program)
}

/// The `igvm-inspect` command of virtfw-igvm-tools, built from crates.io into the target folder unless it is there
/// already. It reads IGVM files as that project's builder writes them for QEMU; it does not measure.
pub fn igvm_inspect(checkout: &Checkout) -> Result<PathBuf, ToolError> {
    let root = checkout.target().join("tools/virtfw-igvm-tools");
    let program = root.join("bin/igvm-inspect");
    if !program.is_file() {
        let installed = Command::new("cargo")
            .args(["install", "--quiet", "--locked", "--no-default-features", "--bin", "igvm-inspect"])
            .args(["virtfw-igvm-tools", "--version", VIRTFW_IGVM_TOOLS, "--root"])
            .arg(&root)
            .arg("--target-dir")
            .arg(root.join("build"))
            .output();
        succeeded("cargo install virtfw-igvm-tools", installed.map_err(ToolError::NoCargo)?)?;
    }
    Ok(program)
}

/// What judges the statements about an image, as pip names it.
const STATEMENT_JUDGES: [&str; 3] = [
    "cyclonedx-python-lib[json-validation]==11.12.0",
    "in-toto-attestation==0.9.3",
    "securesystemslib[crypto]==1.3.1",
];

/// A Python that has CycloneDX's validator, in-toto's statement classes and a verifier of its envelopes, installed from PyPI into the target folder unless
/// it is there already.
pub fn statement_judges(checkout: &Checkout) -> Result<PathBuf, ToolError> {
    let venv = checkout.target().join("tools/statement-judges");
    let (python, done) = (venv.join("bin/python"), venv.join("installed-3"));
    if !done.is_file() {
        let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv).output();
        succeeded("python3 -m venv", made.map_err(ToolError::NoPython)?)?;
        let pip =
            Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(STATEMENT_JUDGES).output();
        succeeded("pip install", pip.map_err(ToolError::NoPython)?)?;
        std::fs::write(&done, "").map_err(ToolError::NoPython)?;
    }
    Ok(python)
}

fn succeeded(step: &'static str, output: Output) -> Result<(), ToolError> {
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(ToolError::Failed { step, output: String::from_utf8_lossy(&text).into_owned() })
}
