//! The TCB report: what a client trusts when it trusts the image, crate by crate.
//!
//! Nothing in it is written by hand but the reasons (docs/DEPENDENCIES.md): crates and features are those that cargo says it
//! compiled for the kernel, files those that the compiler says it read, bytes those of the symbols in the kernel's ELF.

mod artifacts;
mod budget;
mod bytes;
mod cfg;
mod lines;
pub mod statements;

use crate::checkout::Checkout;
use crate::freestanding::{self, BuildError, Program, TARGET};
use crate::rom::RomError;
use crate::source::{Source, SourceError};
use artifacts::Artifact;
pub use budget::{BUDGET_FILE, Budget, BudgetError};
use cfg::Cfg;
pub use lines::Count;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Crates that come compiled with the toolchain.
const TOOLCHAIN_CRATES: [&str; 3] = ["core", "alloc", "compiler_builtins"];

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum TcbError {
    /// The kernel could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The default manifest or model is unusable.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The image could not be put together.
    #[error(transparent)]
    Rom(#[from] RomError),
    /// cargo said something else than its documentation says.
    #[error(
        "cargo's account of the build cannot be used: {0}; check that rust-toolchain.toml's Rust is used"
    )]
    Cargo(String),
    /// The kernel's ELF cannot be read.
    #[error("the kernel's symbols cannot be read: {0}")]
    Kernel(String),
    /// A source file or list cannot be read.
    #[error("{path} cannot be read: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The report; its JSON form is what `cloister-image tcb --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What is counted against the budget.
    pub totals: Totals,
    /// Every crate whose code is linked into the image, largest first.
    pub crates: Vec<Crate>,
    /// Crates of the toolchain in the image, which come compiled; their lines are not counted.
    pub toolchain: Vec<ToolchainCrate>,
    /// Bytes of the kernel by section.
    pub sections: BTreeMap<String, u64>,
    /// Bytes of the kernel that no symbol names: constants, strings, tables, padding.
    pub unnamed_bytes: u64,
    /// Bytes of the measured manifest.
    pub manifest_bytes: usize,
    /// Packages that run while the image is built (build scripts and procedural macros, with what they use).
    pub build_packages: Vec<BuildPackage>,
    /// The kernel's ELF.
    #[serde(skip)]
    pub kernel: Vec<u8>,
}

/// What the budget limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Bytes of `cloister.rom`.
    pub image_bytes: u64,
    /// Crates linked into the image, the project's own included.
    pub crates: u64,
    /// Lines of code compiled from other people's crates.
    pub dependency_lines: u64,
    /// Lines of code compiled from this project.
    pub own_lines: u64,
    /// Blocks of `unsafe` code in both.
    pub unsafe_blocks: u64,
}

/// One crate in the image.
#[derive(Clone, Debug, Serialize)]
pub struct Crate {
    /// The package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, as an SPDX expression.
    pub licence: String,
    /// Whether it is of this project.
    pub own: bool,
    /// Why it is there.
    pub why: String,
    /// Features that are on.
    pub features: Vec<String>,
    /// Lines of code compiled.
    pub lines: usize,
    /// `unsafe` blocks in them.
    pub unsafe_blocks: usize,
    /// Bytes of the kernel under its symbols.
    pub bytes: u64,
    /// SHA-256 of the package as published, in hexadecimal; none for this project's own.
    pub sha256: Option<String>,
    /// Name and version of each crate in the image that it uses.
    pub uses: Vec<(String, String)>,
}

/// A crate that comes with the compiler.
#[derive(Clone, Debug, Serialize)]
pub struct ToolchainCrate {
    /// Its name.
    pub name: String,
    /// Bytes of the kernel under its symbols.
    pub bytes: u64,
}

/// A package that takes part in the build only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct BuildPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, as an SPDX expression.
    pub licence: String,
    /// SHA-256 of the package as published, in hexadecimal.
    pub sha256: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    description: Option<String>,
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// Builds the image of `checkout` and reports on it.
///
/// # Errors
/// [`TcbError`], if it cannot be built or cargo's account of the build cannot be read.
pub fn report(checkout: &Checkout) -> Result<Report, TcbError> {
    let root = checkout.root();
    let target = checkout.target().join("freestanding");
    let (kernel, messages) = freestanding::build_and_tell(checkout, Program::Kernel, &target)?;
    let artifacts = artifacts::read(&messages, root, TARGET)?;
    let packages = packages(checkout)?;
    let checksums = checksums(root)?;
    let printed = freestanding::answer(
        freestanding::tool(checkout, "rustc")
            .args(["--print", "cfg", "--target", TARGET, "-Cpanic=abort"])
            .args(freestanding::CHOICES),
        "rustc --print cfg",
    )?;
    let reasons = reasons(&read(&root.join("docs/DEPENDENCIES.md"))?);

    let kernel = fs::read(&kernel).map_err(|source| TcbError::Read { path: kernel, source })?;
    let names: BTreeSet<String> = artifacts
        .iter()
        .map(|artifact| artifact.crate_name.clone())
        .chain(TOOLCHAIN_CRATES.map(String::from))
        .collect();
    let bytes = bytes::read(&kernel, &names)?;
    let source = Source::load(&root.join("models/manifest.toml"))?;
    let rom = crate::rom::build(&kernel, &source.manifest)?;

    let linked: BTreeSet<&str> = artifacts
        .iter()
        .filter(|artifact| !artifact.builds)
        .map(|artifact| artifact.package.as_str())
        .collect();
    let mut crates: BTreeMap<&str, Crate> = BTreeMap::new();
    let mut build_packages = BTreeSet::new();
    for artifact in &artifacts {
        let package = packages
            .get(&artifact.package)
            .ok_or_else(|| TcbError::Cargo(format!("`{}` is in no list of packages", artifact.package)))?;
        let licence = package.license.clone().unwrap_or_else(|| "none stated".into());
        let sha256 = checksums.get(&(package.name.clone(), package.version.clone())).cloned();
        if artifact.builds {
            if !linked.contains(artifact.package.as_str()) {
                let (name, version) = (package.name.clone(), package.version.clone());
                build_packages.insert(BuildPackage { name, version, licence, sha256 });
            }
            continue;
        }
        let count = count(artifact, &printed)?;
        let size = bytes.by_crate.get(&artifact.crate_name).copied().unwrap_or(0);
        // A package's library and program are one entry.
        let entry = crates.entry(&artifact.package).or_insert_with(|| Crate {
            name: package.name.clone(),
            version: package.version.clone(),
            licence,
            own: package.source.is_none(),
            why: why(package, &packages, &linked, &reasons),
            features: artifact.features.clone(),
            lines: 0,
            unsafe_blocks: 0,
            bytes: 0,
            sha256,
            uses: uses(package, &packages, &linked),
        });
        entry.lines += count.lines;
        entry.unsafe_blocks += count.unsafe_blocks;
        entry.bytes += size;
    }
    let mut crates: Vec<Crate> = crates.into_values().collect();
    crates.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));

    let sum = |own: Option<bool>, value: fn(&Crate) -> usize| {
        crates.iter().filter(|entry| own.is_none_or(|own| entry.own == own)).map(value).sum::<usize>() as u64
    };
    let totals = Totals {
        image_bytes: rom.len() as u64,
        crates: crates.len() as u64,
        dependency_lines: sum(Some(false), |entry| entry.lines),
        own_lines: sum(Some(true), |entry| entry.lines),
        unsafe_blocks: sum(None, |entry| entry.unsafe_blocks),
    };
    let toolchain = TOOLCHAIN_CRATES.iter().map(|name| ToolchainCrate {
        name: (*name).to_owned(),
        bytes: bytes.by_crate.get(*name).copied().unwrap_or(0),
    });
    Ok(Report {
        totals,
        crates,
        toolchain: toolchain.collect(),
        sections: bytes.sections,
        unnamed_bytes: bytes.unnamed,
        manifest_bytes: source.manifest.encode().len(),
        build_packages: build_packages.into_iter().collect(),
        kernel,
    })
}

impl Report {
    /// As JSON, with a line feed at the end.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

fn count(artifact: &Artifact, printed: &str) -> Result<Count, TcbError> {
    let options = format!("{printed}\n{}", artifact.cfgs.join("\n"));
    let cfg = Cfg::parse(&options, artifact.features.iter().map(String::as_str));
    let mut sum = Count::default();
    for path in &artifact.sources {
        let bytes = fs::read(path).map_err(|source| TcbError::Read { path: path.clone(), source })?;
        sum += lines::count(path, &String::from_utf8_lossy(&bytes), &cfg);
    }
    Ok(sum)
}

/// All packages of the workspace's lock file, by cargo's id.
fn packages(checkout: &Checkout) -> Result<BTreeMap<String, Package>, TcbError> {
    let mut cargo = freestanding::tool(checkout, "cargo");
    cargo.args(["metadata", "--format-version=1"]).args(freestanding::locked(checkout));
    let json = freestanding::answer(&mut cargo, "cargo metadata")?;
    let metadata: Metadata =
        serde_json::from_str(&json).map_err(|error| TcbError::Cargo(error.to_string()))?;
    Ok(metadata.packages.into_iter().map(|package| (package.id.clone(), package)).collect())
}

fn checksums(root: &Path) -> Result<BTreeMap<(String, String), String>, TcbError> {
    let lock: Lock = toml::from_str(&read(&root.join("Cargo.lock"))?)
        .map_err(|error| TcbError::Cargo(format!("Cargo.lock: {error}")))?;
    let named =
        lock.package.into_iter().filter_map(|entry| Some(((entry.name, entry.version), entry.checksum?)));
    Ok(named.collect())
}

/// The reasons in the first table of docs/DEPENDENCIES.md: `| crates | for | why this one |`.
fn reasons(text: &str) -> BTreeMap<String, String> {
    let rows = text.lines().skip_while(|line| !line.starts_with("| crate")).skip(2);
    let mut reasons = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [crates, purpose, why] = cells[..] else { continue };
        for name in crates.split('`').skip(1).step_by(2) {
            reasons.insert(name.to_owned(), format!("{purpose}: {why}"));
        }
    }
    reasons
}

/// Own rooms say themselves what they are for, chosen crates have their reason in the documentation, and the rest is there
/// because those want it.
fn why(
    package: &Package,
    packages: &BTreeMap<String, Package>,
    linked: &BTreeSet<&str>,
    reasons: &BTreeMap<String, String>,
) -> String {
    if package.source.is_none() {
        return package.description.clone().unwrap_or_default();
    }
    if let Some(reason) = reasons.get(&package.name) {
        return reason.clone();
    }
    let wants = |other: &&Package| {
        linked.contains(other.id.as_str())
            && other.dependencies.iter().any(|wanted| wanted.name == package.name && wanted.kind.is_none())
    };
    let users: BTreeSet<&str> = packages.values().filter(wants).map(|other| other.name.as_str()).collect();
    format!("used by {}", users.into_iter().collect::<Vec<_>>().join(", "))
}

/// The crates in the image that `package` names and that are linked.
fn uses(
    package: &Package,
    packages: &BTreeMap<String, Package>,
    linked: &BTreeSet<&str>,
) -> Vec<(String, String)> {
    let wanted: BTreeSet<&str> = package
        .dependencies
        .iter()
        .filter(|wanted| wanted.kind.is_none())
        .map(|wanted| wanted.name.as_str())
        .collect();
    let used = packages.values().filter(|other| {
        linked.contains(other.id.as_str()) && wanted.contains(other.name.as_str()) && other.id != package.id
    });
    used.map(|other| (other.name.clone(), other.version.clone())).collect()
}

fn read(path: &Path) -> Result<String, TcbError> {
    fs::read_to_string(path).map_err(|source| TcbError::Read { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_read_from_the_first_table() {
        let text = "# A\n\n| crate | for | why this one |\n|---|---|---|\n| `a` (off), `b` | x | y |\n\n| crate | why not |\n|---|---|\n| `c` | z |\n";
        let reasons = reasons(text);
        assert_eq!(reasons.get("a").map(String::as_str), Some("x: y"));
        assert_eq!(reasons.len(), 2);
    }

    #[test]
    fn every_crate_that_the_guest_names_has_its_reason() {
        let checkout = Checkout::find().unwrap();
        let reasons = reasons(&fs::read_to_string(checkout.root().join("docs/DEPENDENCIES.md")).unwrap());
        let packages = packages(&checkout).unwrap();
        for room in ["kernel", "service", "inference", "attestation", "wire"] {
            let room =
                packages.values().find(|package| package.name == room && package.source.is_none()).unwrap();
            let manifest: toml::Table = toml::from_str(
                &fs::read_to_string(checkout.root().join(&room.name).join("Cargo.toml")).unwrap(),
            )
            .unwrap();
            let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
            for (name, entry) in dependencies.into_iter().flatten() {
                let own = packages.values().any(|package| package.name == *name && package.source.is_none());
                let optional = entry.get("optional").and_then(toml::Value::as_bool) == Some(true);
                assert!(own || optional || reasons.contains_key(name), "{}: {name} has no reason", room.name);
            }
        }
    }
}
