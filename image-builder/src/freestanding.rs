//! Builds the two freestanding programs, with the same bytes in any folder and for any user.
//!
//! The compiler and linker flags are set here and not in a cargo configuration file, because only here can the
//! paths of this machine be mapped away: the checkout, the folders of the dependencies' sources, the target folder and
//! an installed `rust-src` component.

use crate::checkout::{Checkout, NotFound};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{env, fs, io, thread};

/// Its precompiled `core` and `alloc` are used as they are: `x86_64-unknown-none` is a soft-float target, on which the
/// engine's AVX2 code would silently become calls into soft-float routines.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "freestanding";
/// Choices among implementations that the crates offer: of each algorithm, what the processors with SEV-SNP are fast with and as
/// little as possible beside it. They all have AES instructions, and AVX2, with which SHA-384 is computed; SHA-256 without
/// instructions of its own (in the model) and one signature a connection need not be fast.
pub(crate) const CHOICES: [&str; 3] = [
    "-Ctarget-feature=+aes",
    "--cfg=sha2_backend_soft=\"compact\"",
    "--cfg=curve25519_dalek_backend=\"serial\"",
];

/// A program that runs without an operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The guest image's ELF.
    Kernel,
    /// The hypervisor that imitates SEV-SNP.
    SnpModel,
}

impl Program {
    /// Its package.
    pub const fn package(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::SnpModel => "snp-model",
        }
    }

    /// Its binary.
    pub const fn binary(self) -> &'static str {
        match self {
            Self::Kernel => "cloister-kernel",
            Self::SnpModel => "snp-model",
        }
    }

    /// What the compiler is told for this program alone.
    ///
    /// The guest has stack canaries in every function that keeps an array or lends out a local variable, as with Clang's
    /// `-fstack-protector-strong`. Stable Rust has no option of its own for LLVM's attribute, but passes on LLVM's.
    const fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Kernel => &["-Cllvm-args=-force-attribute=sspstrong"],
            Self::SnpModel => &[],
        }
    }
}

/// Why a freestanding program could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is nothing to build from.
    #[error(transparent)]
    NoCheckout(#[from] NotFound),
    /// cargo or rustc cannot be started.
    #[error("`{tool}` could not be started ({source}); install Rust from https://rustup.rs and try again")]
    Tool {
        /// What was to be started.
        tool: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The compiler is not the one whose output the digests stand for.
    #[error(
        "this is Rust {found}, but the image is built with Rust {pinned} and would get another digest with any \
         other; install rustup, which follows rust-toolchain.toml by itself"
    )]
    Toolchain {
        /// Version of the compiler on this machine.
        found: String,
        /// Version in `rust-toolchain.toml`.
        pinned: String,
    },
    /// cargo or rustc said something unexpected about itself or the workspace.
    #[error("`{command}` gave no usable answer: {detail}")]
    Answer {
        /// What was asked.
        command: &'static str,
        /// What was wrong with the answer.
        detail: String,
    },
    /// The build itself failed.
    #[error("{program} could not be built: cargo ended with {status}{}{output}", if output.is_empty() { "" } else { "\n" })]
    Failed {
        /// The program's name.
        program: &'static str,
        /// How cargo ended.
        status: ExitStatus,
        /// What cargo printed, unless it went straight to the terminal or log.
        output: String,
    },
}

/// Builds `program` from the checkout that [`Checkout::find`] finds; the path of its ELF.
pub fn build(program: Program) -> Result<PathBuf, BuildError> {
    let checkout = Checkout::find()?;
    let target = checkout.target().join("freestanding");
    build_in(&checkout, program, &target)
}

/// Builds `program` from `checkout` with all build files in `target`; the path of its ELF.
pub fn build_in(checkout: &Checkout, program: Program, target: &Path) -> Result<PathBuf, BuildError> {
    Ok(build_and_tell(checkout, program, target)?.0)
}

/// As [`build_in`]; also what cargo says about each crate it compiled, one JSON object a line
/// (The Cargo Book, "External tools", JSON messages).
pub fn build_and_tell(
    checkout: &Checkout,
    program: Program,
    target: &Path,
) -> Result<(PathBuf, String), BuildError> {
    let toolchain = Toolchain::of(checkout)?;
    let target = absolute(checkout.root(), target)?;
    let mut flags = flags(checkout, &toolchain, &target)?;
    flags.extend(program.flags().iter().copied().map(str::to_owned));

    let mut cargo = tool(checkout, "cargo");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo.args(["build", "--package", program.package(), "--bin", program.binary()]);
    cargo.args(["--features", "freestanding", "--profile", PROFILE, "--target", TARGET]);
    cargo.arg("--target-dir").arg(&target).args(locked(checkout));
    cargo.arg("--message-format=json-render-diagnostics");
    let messages = run_with_progress(cargo, program)?;

    Ok((target.join(TARGET).join(PROFILE).join(program.binary()), messages))
}

/// The compiler that `rust-toolchain.toml` pins.
#[derive(Clone, Debug)]
pub struct Toolchain {
    sysroot: String,
    /// Its version.
    pub version: String,
    /// The commit it was built from, in hexadecimal.
    pub commit: String,
}

impl Toolchain {
    /// Asks the compiler, and holds it to what is pinned.
    ///
    /// # Errors
    /// [`BuildError`], if there is no compiler or another one.
    pub fn of(checkout: &Checkout) -> Result<Self, BuildError> {
        let version = answer(tool(checkout, "rustc").arg("-vV"), "rustc -vV")?;
        let field = |name: &str| {
            version.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned).ok_or_else(|| {
                BuildError::Answer { command: "rustc -vV", detail: format!("no line begins with `{name}`") }
            })
        };
        let (found, pinned) = (field("release: ")?, pinned_version(checkout)?);
        if found != pinned {
            return Err(BuildError::Toolchain { found, pinned });
        }
        let sysroot = answer(tool(checkout, "rustc").args(["--print", "sysroot"]), "rustc --print sysroot")?;
        Ok(Self { sysroot: sysroot.trim_end().to_owned(), version: found, commit: field("commit-hash: ")? })
    }
}

fn pinned_version(checkout: &Checkout) -> Result<String, BuildError> {
    let unusable = |detail: String| BuildError::Answer { command: "reading rust-toolchain.toml", detail };
    let text = fs::read_to_string(checkout.root().join("rust-toolchain.toml"))
        .map_err(|e| unusable(e.to_string()))?;
    let channel = text.lines().find_map(|line| line.trim().strip_prefix("channel"));
    let version = channel.and_then(|rest| rest.split('"').nth(1));
    version.map(str::to_owned).ok_or_else(|| unusable("it names no channel".into()))
}

/// Everything that reaches the compiler: first what makes the program freestanding, then what keeps the names of
/// this machine out of it.
fn flags(checkout: &Checkout, toolchain: &Toolchain, target: &Path) -> Result<Vec<String>, BuildError> {
    let mut flags: Vec<String> =
        ["-Clinker=rust-lld", "-Clinker-flavor=ld.lld", "-Crelocation-model=static", "-Cno-redzone=yes"]
            .map(str::to_owned)
            .into();
    flags.extend(CHOICES.map(str::to_owned));
    let mut remap = |from: &str, to: &str| flags.push(format!("--remap-path-prefix={from}={to}"));
    // The compiler uses the last prefix that matches: folders inside the checkout come after it.
    remap(&text(checkout.root())?, "/src");
    for (folder, name) in dependency_folders(checkout)? {
        remap(&folder, &format!("/cargo/{name}"));
    }
    remap(&text(target)?, "/target");
    remap(&format!("{}/lib/rustlib/src/rust", toolchain.sysroot), &format!("/rustc/{}", toolchain.commit));
    Ok(flags)
}

/// The folder of each unpacked dependency, and the name by which the image may know it. Where the folder lies and what it
/// is called differs between a registry, its mirror and a folder made by `cargo vendor`.
fn dependency_folders(checkout: &Checkout) -> Result<BTreeMap<String, String>, BuildError> {
    const COMMAND: &str = "cargo metadata";
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
        source: Option<String>,
        manifest_path: PathBuf,
    }
    let mut cargo = tool(checkout, "cargo");
    cargo.args(["metadata", "--format-version=1", "--filter-platform", TARGET]).args(locked(checkout));
    let json = answer(&mut cargo, COMMAND)?;
    let metadata: Metadata = serde_json::from_str(&json)
        .map_err(|error| BuildError::Answer { command: COMMAND, detail: error.to_string() })?;
    let outside = metadata.packages.iter().filter(|package| package.source.is_some());
    outside
        .filter_map(|package| {
            Some((package.manifest_path.parent()?, format!("{}-{}", package.name, package.version)))
        })
        .map(|(folder, name)| Ok((text(folder)?, name)))
        .collect()
}

pub(crate) fn locked(checkout: &Checkout) -> &'static [&'static str] {
    if checkout.root().join("Cargo.lock").is_file() { &["--locked"] } else { &[] }
}

/// `cargo` or `rustc` as `rust-toolchain.toml` chooses them, without this user's settings that would change the output.
pub(crate) fn tool(checkout: &Checkout, name: &'static str) -> Command {
    let mut command = Command::new(name);
    command.current_dir(checkout.root());
    for (variable, _) in env::vars_os() {
        if changes_output(&variable) {
            command.env_remove(variable);
        }
    }
    command
}

/// Whether an environment variable could give the same source other bytes. cargo sets `RUSTUP_TOOLCHAIN` for what it
/// runs; there it would stand above `rust-toolchain.toml`.
fn changes_output(variable: &OsStr) -> bool {
    const NAMES: [&str; 4] =
        ["RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CARGO_ENCODED_RUSTFLAGS", "CARGO_INCREMENTAL"];
    const PREFIXES: [&str; 5] =
        ["RUSTC", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_BUILD_", "CARGO_UNSTABLE_"];
    let Some(name) = variable.to_str() else { return false };
    name != "CARGO_BUILD_JOBS"
        && (NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

pub(crate) fn answer(command: &mut Command, name: &'static str) -> Result<String, BuildError> {
    let tool = if name.starts_with("cargo") { "cargo" } else { "rustc" };
    let output =
        command.stderr(Stdio::piped()).output().map_err(|source| BuildError::Tool { tool, source })?;
    if !output.status.success() {
        let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(BuildError::Answer { command: name, detail });
    }
    String::from_utf8(output.stdout)
        .map_err(|_| BuildError::Answer { command: name, detail: "it is not UTF-8".into() })
}

/// On a terminal: one moving line, and cargo's whole output only if it fails. Elsewhere: cargo's own lines.
/// What it returns is cargo's standard output.
fn run_with_progress(mut cargo: Command, program: Program) -> Result<String, BuildError> {
    let failed = |source| BuildError::Tool { tool: "cargo", source };
    let quiet = io::stderr().is_terminal();
    cargo.stdin(Stdio::null()).stdout(Stdio::piped());
    cargo.stderr(if quiet { Stdio::piped() } else { Stdio::inherit() });
    let mut child = cargo.spawn().map_err(failed)?;
    let stdout = child.stdout.take();
    let messages = thread::spawn(move || {
        let mut text = String::new();
        stdout.map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut text)).map(|_| text)
    });
    let output = child.stderr.take().map(|stderr| follow(stderr, program)).unwrap_or_default();
    let status = child.wait().map_err(failed)?;
    let messages = messages.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())).map_err(failed)?;
    if status.success() {
        Ok(messages)
    } else {
        Err(BuildError::Failed { program: program.binary(), status, output })
    }
}

fn follow(stderr: impl Read, program: Program) -> String {
    let spinner = ProgressBar::new_spinner().with_prefix(format!("building {}", program.binary()));
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(120));
    let mut output = String::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        spinner.set_message(line.trim().to_owned());
        output.push_str(&line);
        output.push('\n');
    }
    spinner.finish_and_clear();
    output
}

/// rustc is given paths as text, and cargo itself refuses others.
fn text(path: &Path) -> Result<String, BuildError> {
    path.to_str().map(str::to_owned).ok_or_else(|| BuildError::Answer {
        command: "cargo build",
        detail: format!("the path {} is not UTF-8; build in another folder", path.display()),
    })
}

fn absolute(root: &Path, path: &Path) -> Result<PathBuf, BuildError> {
    let path = root.join(path);
    fs::create_dir_all(&path).and_then(|()| fs::canonicalize(&path)).map_err(|error| BuildError::Answer {
        command: "cargo build",
        detail: format!("the folder {} cannot be used: {error}", path.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_change_the_output_are_dropped_and_others_kept() {
        for name in ["RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_PROFILE_FREESTANDING_LTO", "RUSTUP_TOOLCHAIN"] {
            assert!(changes_output(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "CARGO_BUILD_JOBS", "CARGO_NET_OFFLINE", "HTTPS_PROXY"] {
            assert!(!changes_output(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn no_folder_of_this_machine_is_left_unmapped() {
        let checkout = Checkout::find().unwrap();
        let toolchain = Toolchain::of(&checkout).unwrap();
        let target = checkout.target();
        let flags = flags(&checkout, &toolchain, &target).unwrap();
        for folder in [checkout.root(), &target, Path::new(&toolchain.sysroot)] {
            let prefix = format!("--remap-path-prefix={}", folder.display());
            assert!(flags.iter().any(|flag| flag.starts_with(&prefix)), "{prefix} in {flags:?}");
        }
    }

    #[test]
    fn the_pinned_version_is_an_exact_release() {
        let version = pinned_version(&Checkout::find().unwrap()).unwrap();
        assert_eq!(version.split('.').filter(|part| part.parse::<u32>().is_ok()).count(), 3, "{version}");
    }
}
