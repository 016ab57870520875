//! Rebuilds the image in a minimal system: a chroot that holds the distribution's smallest set of packages, a C compiler for
//! build scripts, the pinned toolchain, the source and vendored crates. No network, no git, no settings of this machine.

use crate::{build, setup};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The distribution's minimal system could not be made here, which says nothing about the image.
#[derive(Debug, thiserror::Error)]
#[error("debootstrap cannot make a minimal system here")]
pub struct NoSystem;

/// Builds the image here and in a chroot, and has `cloister-image audit` compare the two.
///
/// # Errors
/// If the two differ, or something on the way fails. Needs root, as making a chroot does.
pub fn audit() -> Result<()> {
    ensure!(
        can_make_one(),
        "making a chroot takes root and mounts; run this as root, outside of a container"
    );
    setup::for_chroot().context(NoSystem)?;
    build::programs()?;
    let folder = tempfile::Builder::new().prefix("cloister-chroot-").tempdir_in("/var/tmp")?;
    let root = folder.path();
    let inside = root.join("audit");

    eprintln!("making a minimal system");
    let suite = release("VERSION_CODENAME")?;
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", "--include=gcc,libc6-dev", &suite]).arg(root);
    build::run(debootstrap.stdout(Stdio::null())).context(NoSystem)?;

    eprintln!("copying the toolchain, the source and its crates into it");
    fs::create_dir(&inside)?;
    build::image(&inside.join("published"))?;
    fs::copy(build::program("cloister-image")?, inside.join("cloister-image"))?;
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).current_dir(build::root()).output()?;
    let sysroot = String::from_utf8(sysroot.stdout)?;
    fs::create_dir(inside.join("toolchain"))?;
    let parts = ["bin", "lib"].map(|part| Path::new(sysroot.trim()).join(part));
    build::run(Command::new("cp").arg("--archive").args(parts).arg(inside.join("toolchain")))?;
    let vendor = inside.join("vendor");
    build::cargo(&["vendor", "--locked", "--quiet", vendor.to_str().context("the path is not UTF-8")?])?;
    fs::create_dir(inside.join("source"))?;
    let mut copy = Command::new("sh");
    copy.arg("-c").arg(
        "tar -C \"$1\" --exclude=./target --exclude=./out --exclude=./.git -cf - . | tar -C \"$2\" -xf -",
    );
    build::run(copy.arg("sh").arg(build::root()).arg(inside.join("source")))?;

    eprintln!("auditing inside of it");
    // The compiler finds its own libraries by /proc. The mount goes away with its namespace.
    let script = "mount -t proc proc \"$1/proc\" && exec chroot \"$1\" /usr/bin/env -i \
                  PATH=/audit/toolchain/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
                  /audit/cloister-image audit /audit/published/cloister.rom --folder /audit/source --vendor /audit/vendor";
    let mut chroot = Command::new("unshare");
    chroot.args(["--mount", "--net", "--fork", "--", "sh", "-c", script, "sh"]).arg(root);
    let output = chroot.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    if !output.status.success() || said != "identical\n" {
        bail!("the image that was built in the chroot is another one ({})", output.status);
    }
    Ok(())
}

/// Whether this user may make chroots and mounts here.
pub fn can_make_one() -> bool {
    let probe = Command::new("unshare").args(["--mount", "--net", "--fork", "--", "true"]).output();
    setup::is_root() && probe.is_ok_and(|output| output.status.success())
}

/// A field of `os-release(5)`.
fn release(field: &str) -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("this system does not say which one it is")?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix('='));
    Ok(line.with_context(|| format!("/etc/os-release has no {field}"))?.trim_matches('"').to_owned())
}
