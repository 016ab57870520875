//! `cloister-image`: builds the image and computes its launch digests.
#![forbid(unsafe_code)]

mod args;
mod auditing;
mod failure;
#[cfg(feature = "publish")]
mod publishing;
mod statements;

use args::{Args, Command};
use clap::Parser;
use failure::Failure;
use image_builder::checkout::Checkout;
use image_builder::container::Container;
use image_builder::digests::Digests;
use image_builder::firmware::FirmwareError;
use image_builder::freestanding::{self, Program};
use image_builder::igvm::Contents;
use image_builder::layout::PAGE;
use image_builder::source::Source;
use image_builder::tcb::{self, Budget};
use image_builder::{cpu::CpuType, igvm, rom};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Build(options) => build(&options),
        Command::Digest(options) => digest(&options),
        Command::Inspect(options) => inspect(&options),
        Command::Audit(options) => auditing::audit(&options),
        Command::Tcb(options) => report_tcb(&options),
        Command::Sbom(options) => statements::sbom(&options),
        Command::Provenance(options) => statements::provenance(&options),
        #[cfg(feature = "publish")]
        Command::Key(options) => publishing::key(&options),
        #[cfg(feature = "publish")]
        Command::Vouch(options) => publishing::vouch(&options),
        #[cfg(feature = "publish")]
        Command::Publish(options) => publishing::publish(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cloister-image: {failure}");
            failure.exit_code()
        }
    }
}

fn build(options: &args::Build) -> Result<(), Failure> {
    let checkout = Checkout::find();
    let source = match &options.manifest {
        Some(path) => Source::load(path)?,
        None => Source::load(
            &checkout.as_ref().map_err(|_| Failure::NoCheckout)?.root().join("models/manifest.toml"),
        )?,
    };
    let kernel = match &options.kernel {
        Some(path) => path.clone(),
        None => freestanding::build(Program::Kernel)?,
    };
    let kernel = fs::read(&kernel).map_err(|source| Failure::Read { path: kernel, source })?;
    let rom = rom::build(&kernel, &source.manifest)?;
    let igvm = igvm::build(&kernel, &source.manifest)?;
    let weights_file =
        source.weights.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let digests = Digests::of(&rom, &igvm, &source.manifest, &weights_file)
        .map_err(|source| Failure::Image { path: "the new image".into(), source })?;

    fs::create_dir_all(&options.out)
        .map_err(|source| Failure::Write { path: options.out.clone(), source })?;
    let rom_path = options.out.join("cloister.rom");
    write(&rom_path, &rom)?;
    let igvm_path = options.out.join("cloister.igvm");
    write(&igvm_path, &igvm)?;
    let json_path = options.out.join("digests.json");
    write(&json_path, digests.to_json().as_bytes())?;

    if options.json {
        print!("{}", digests.to_json());
    } else {
        println!("image     {} {}", digests.image.name, digests.image.version);
        println!("model     {} ({})", source.manifest.model.name, source.weights.display());
        println!("rom       {} ({} KiB)", rom_path.display(), rom.len() / 1024);
        println!("igvm      {} ({} KiB)", igvm_path.display(), igvm.len() / 1024);
        println!("digests   {}", json_path.display());
        for launch in digests.launch_digests.iter().filter(|launch| launch.vcpus == 1) {
            let cpu = launch.cpu_type.trim_start_matches("EPYC-");
            println!("{:<5} {:<5} {}", launch.container, cpu, launch.digest);
        }
    }
    Ok(())
}

fn digest(options: &args::Digest) -> Result<(), Failure> {
    let file = read(&options.file)?;
    let error = |source| Failure::Image { path: options.file.clone(), source };
    let launch = Container::parse(&file).and_then(|image| image.launch()).map_err(error)?;
    println!("{}", hex::encode(launch.digest(options.vcpus, options.cpu_type)));
    Ok(())
}

fn inspect(options: &args::Inspect) -> Result<(), Failure> {
    let file = read(&options.file)?;
    let error = |source| Failure::Image { path: options.file.clone(), source };
    let image = Container::parse(&file).map_err(error)?;
    let manifest = image.manifest().map_err(error)?;
    println!("container {}", image.name());
    println!("image     {} {}", manifest.image, manifest.version);
    println!("model     {} ({} bytes)", manifest.model.name, manifest.model.weights_bytes);
    println!("weights   {}", hex::encode(manifest.model.weights_root));
    println!("manifest  {}", hex::encode(manifest.digest()));
    println!("machine   {} MiB of RAM, {} vCPUs", manifest.machine.memory_mib, manifest.machine.vcpus);
    println!(
        "tasks     {}",
        manifest.tasks.iter().map(|task| task.task.as_str()).collect::<Vec<_>>().join(", ")
    );
    match &image {
        Container::Rom(rom) => {
            let error = |source: FirmwareError| error(source.into());
            for section in rom.sections().map_err(error)? {
                println!("launch    {:#010x} {:>8} bytes  {:?}", section.address, section.size, section.kind);
            }
            for (_, address, bytes) in rom.copies().map_err(error)? {
                println!("copied    {address:#010x} {bytes:>8} bytes");
            }
        }
        Container::Igvm(igvm) => {
            println!("policy    {:#x}", igvm.policy());
            for (address, bytes, kind) in runs(igvm.pages()) {
                println!("launch    {address:#010x} {bytes:>8} bytes  {kind}");
            }
        }
    }
    let launch = image.launch().map_err(error)?;
    for cpu in CpuType::ALL {
        println!("{:<9} {}", cpu.name().trim_start_matches("EPYC-"), hex::encode(launch.digest(1, cpu)));
    }
    Ok(())
}

/// Pages of one kind that follow each other: address, bytes, kind.
fn runs(pages: &[igvm::Page]) -> Vec<(u64, u64, &'static str)> {
    let mut runs: Vec<(u64, u64, &'static str)> = Vec::new();
    for page in pages {
        let kind = match page.contents {
            Contents::Data(_) => "Data",
            Contents::Secrets => "Secrets",
            Contents::Cpuid => "Cpuid",
        };
        match runs.last_mut() {
            Some((start, bytes, last)) if *start + *bytes == page.address && *last == kind => {
                *bytes += u64::from(PAGE);
            }
            _ => runs.push((page.address, PAGE.into(), kind)),
        }
    }
    runs
}

fn report_tcb(options: &args::Tcb) -> Result<(), Failure> {
    let checkout = Checkout::find().map_err(|_| Failure::NoCheckout)?;
    let report = tcb::report(&checkout)?;
    if options.json {
        print!("{}", report.to_json());
    } else {
        println!("{:>7} {:>6} {:>6}  crate", "bytes", "lines", "unsafe");
        for entry in &report.crates {
            println!(
                "{:>7} {:>6} {:>6}  {} {} ({}): {}",
                entry.bytes,
                entry.lines,
                entry.unsafe_blocks,
                entry.name,
                entry.version,
                entry.licence,
                entry.why
            );
        }
        for entry in &report.toolchain {
            println!("{:>7} {:>6} {:>6}  {} (with the compiler)", entry.bytes, "-", "-", entry.name);
        }
        println!(
            "{:>7} {:>6} {:>6}  constants, strings and padding without a name",
            report.unnamed_bytes, "", ""
        );
        let totals = &report.totals;
        println!(
            "image {} bytes; {} crates; {} lines of dependencies, {} of this project; {} unsafe blocks",
            totals.image_bytes,
            totals.crates,
            totals.dependency_lines,
            totals.own_lines,
            totals.unsafe_blocks
        );
    }
    if options.check {
        let budget = Budget::load(checkout.root())?;
        match Budget::before(checkout.root())? {
            Some(before) => budget.follows(&before)?,
            None => eprintln!("note: no older budget is at hand, so whether this one rose is not checked"),
        }
        budget.check(&report.totals)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|source| Failure::Read { path: path.into(), source })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|source| Failure::Write { path: path.into(), source })
}
