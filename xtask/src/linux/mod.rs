//! `cargo linux-check`: a stock Linux in the SNP model, so that the model is not judged only by a guest of the same authors.
//!
//! The kernel is Debian's, as it is signed and published; nothing of it is changed. Without firmware, a small loader
//! accepts the memory and enters it by the 64-bit boot protocol. Its messages come through `earlyprintk` on the port
//! where the model lets a guest write (0xE9), since the model has no serial port for guests.

mod image;
mod loader;

use crate::{build, setup};
use anyhow::{Context, Result, bail, ensure};
use image_builder::freestanding::{self, Program};
use snp_model::bundle::{Bundle, TcbVersions, VcekScalar};
use snp_model::cpu_type::CpuSignature;
use snp_model::layout::Layout;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MEMORY_MIB: u32 = 256;
/// How long the kernel may take on a slow machine without KVM.
const PATIENCE: Duration = Duration::from_secs(400);
/// SMT is allowed, and the bit that must be one (SNP ABI §4.3).
const POLICY: u64 = 0x3_0000;
/// There is no firmware, and so no ACPI; no timer that interrupts, hence the counts that Linux would measure with one.
const COMMAND_LINE: &str = "earlyprintk=serial,0xe9 keep_bootcon nokaslr no5lvl acpi=off nolapic noapic \
                            pci=off clearcpuid=xsavec tsc_early_khz=1000000 lpj=1000000 panic=-1";
/// What Linux must have said, in this order.
const MILESTONES: [&str; 3] = [
    "Linux version",
    "Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP",
    "smp: Brought up 1 node, 1 CPU",
];

/// What to check.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo linux-check\n  cargo linux-check --kernel /boot/vmlinuz-6.1.0-56-amd64 --log linux.log"
)]
pub struct Options {
    /// A bzImage to boot; the default is Debian's stock kernel, downloaded by apt.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Also write what Linux and the model said to this file.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

/// Downloads, boots, and checks that every milestone was reached.
pub fn run(options: &Options) -> Result<()> {
    setup::for_demo()?;
    let folder = build::target()?.join("linux");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let kernel = match &options.kernel {
        Some(path) => path.clone(),
        None => {
            setup::for_debian_kernel()?;
            debian_kernel(&folder)?
        }
    };
    eprintln!("linux: booting {} in the SNP model", kernel.display());
    let bytes = std::fs::read(&kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let image = image::build(&bytes, COMMAND_LINE, MEMORY_MIB, POLICY)?;
    let bundle = Bundle {
        image: &image,
        memory_mib: MEMORY_MIB,
        vcpus: 1,
        signature: CpuSignature::of_qemu_type("EPYC-Genoa").context("a CPU type of the model")?,
        policy: POLICY,
        chip_id: [0; 64],
        tcb: TcbVersions { current: 0, reported: 0, committed: 0, launch: 0 },
        vcek: VcekScalar([1; 48]),
        certificates: &[],
        scenario: "",
        strict: false,
    };
    let bundle_file = folder.join("bundle");
    std::fs::write(&bundle_file, bundle.encode()?)?;
    let model = freestanding::build(Program::SnpModel)?;
    let said = boot(&model, &bundle_file, &folder)?;
    if let Some(log) = &options.log {
        std::fs::write(log, &said).with_context(|| format!("cannot write {}", log.display()))?;
    }
    let mut rest = said.as_str();
    for milestone in MILESTONES {
        let Some((before, after)) = rest.split_once(milestone) else {
            bail!("Linux did not say {milestone:?}. Everything that was said:\n{said}");
        };
        let line = before.rsplit('\n').next().unwrap_or_default();
        println!("linux: {}{milestone}{}", line.trim_start(), after.lines().next().unwrap_or_default());
        rest = after;
    }
    println!("linux: ok");
    Ok(())
}

/// Runs the model until the last milestone, its own end, or the end of patience; all that was said.
fn boot(model: &Path, bundle: &Path, folder: &Path) -> Result<String> {
    let [guest, hypervisor] = ["guest.log", "model.log"].map(|name| folder.join(name));
    let _ = std::fs::remove_file(&guest);
    let _ = std::fs::remove_file(&hypervisor);
    let machine_mib = Layout::of(u64::from(MEMORY_MIB) << 20).machine_mib();
    let command = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", "max,+svm,phys-bits=52,+la57", "-machine", "q35"])
        .args(["-m", &format!("{machine_mib}M")])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .arg("-kernel")
        .arg(model)
        .arg("-initrd")
        .arg(bundle)
        .args(["-serial", &format!("file:{}", hypervisor.display())])
        .args(["-chardev", &format!("file,id=guest,path={}", guest.display())])
        .args(["-device", "isa-debugcon,iobase=0xe9,chardev=guest"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .stdin(Stdio::null())
        .spawn();
    let mut qemu = Qemu(command.context("cannot start qemu-system-x86_64")?);
    let deadline = Instant::now() + PATIENCE;
    let read = |path: &Path| {
        std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    };
    loop {
        let ended = qemu.0.try_wait()?.is_some();
        let linux = read(&guest);
        let reached = MILESTONES.iter().all(|milestone| linux.contains(milestone));
        if ended || reached || Instant::now() > deadline {
            return Ok(format!("{linux}\n{}", read(&hypervisor)));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// QEMU, which never outlives this value.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian's stock kernel, out of its package.
fn debian_kernel(folder: &Path) -> Result<PathBuf> {
    let package = {
        let output = Command::new("apt-cache").args(["depends", "linux-image-amd64"]).output().context(
            "apt-cache cannot be started; on another system than Debian, name a kernel with --kernel",
        )?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let depends = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        depends
            .context("apt knows no linux-image-amd64; run `apt-get update`, or name a kernel with --kernel")?
            .to_owned()
    };
    let version = package.trim_start_matches("linux-image-").to_owned();
    let kernel = folder.join("boot").join(format!("vmlinuz-{version}"));
    if !kernel.is_file() {
        build::run(Command::new("apt-get").args(["download", &package]).current_dir(folder))?;
        let found = std::fs::read_dir(folder)?.filter_map(Result::ok).find(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        });
        let archive = found.context("apt-get download left no package")?.path();
        build::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(folder))?;
        std::fs::remove_file(archive)?;
        let _ = std::fs::remove_dir_all(folder.join("lib"));
    }
    ensure!(kernel.is_file(), "the package {package} has no {}", kernel.display());
    Ok(kernel)
}
