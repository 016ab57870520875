//! The checkout that holds the sources of the guest.
//!
//! It is found when a program runs, never remembered from when it was built, so that no host path ends up in a
//! binary and a moved checkout still works.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The root of a Cloister checkout.
#[derive(Clone, Debug)]
pub struct Checkout {
    root: PathBuf,
}

/// No checkout was found.
#[derive(Debug, thiserror::Error)]
#[error(
    "this is not a Cloister checkout: the guest's sources were not found above the current folder or above this \
     program; run it from inside a checkout"
)]
pub struct NotFound;

impl Checkout {
    /// Looks upwards from the package that cargo runs, from the current folder, and from this program's own file.
    pub fn find() -> Result<Self, NotFound> {
        let starts = [
            env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from),
            env::current_dir().ok(),
            env::current_exe().ok(),
        ];
        let root = starts.iter().flatten().find_map(|start| start.ancestors().find(|dir| Self::is_root(dir)));
        Self::at(root.ok_or(NotFound)?)
    }

    /// The checkout whose root is `root`.
    pub fn at(root: &Path) -> Result<Self, NotFound> {
        if !Self::is_root(root) {
            return Err(NotFound);
        }
        // The compiler is told canonical paths by cargo, and only those can be remapped.
        Ok(Self { root: fs::canonicalize(root).map_err(|_| NotFound)? })
    }

    fn is_root(dir: &Path) -> bool {
        ["Cargo.toml", "rust-toolchain.toml", "kernel/Cargo.toml", "qemu/snp-model/Cargo.toml"]
            .iter()
            .all(|file| dir.join(file).is_file())
    }

    /// Its root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder for whatever is built, and may be deleted: cargo's target folder.
    pub fn target(&self) -> PathBuf {
        match env::var_os("CARGO_TARGET_DIR") {
            // As cargo reads it: from the current folder.
            Some(dir) => env::current_dir().unwrap_or_else(|_| self.root.clone()).join(dir),
            None => self.root.join("target"),
        }
    }
}
