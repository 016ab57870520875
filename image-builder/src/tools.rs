//! Outside judges of the launch digest, installed where they can be deleted again.

use crate::checkout::Checkout;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Output};

/// What is installed; another version may measure otherwise.
pub const SEV_SNP_MEASURE: &str = "sev-snp-measure==0.0.13";

/// Why a tool is not there.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// There is no Python.
    #[error(
        "python3 could not be started ({0}); install it with its venv module (`apt install python3-venv`)"
    )]
    NoPython(io::Error),
    /// A step of the installation failed.
    #[error("`{step}` failed; check that python3-venv is installed and that PyPI can be reached:\n{output}")]
    Failed {
        /// What was run.
        step: &'static str,
        /// What it printed.
        output: String,
    },
}

/// The `sev-snp-measure` command, installed from PyPI into the target folder unless it is there already.
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

fn succeeded(step: &'static str, output: Output) -> Result<(), ToolError> {
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(ToolError::Failed { step, output: String::from_utf8_lossy(&text).into_owned() })
}
