//! `cloister-image`: builds the image and computes its launch digests.
#![forbid(unsafe_code)]

mod args;
mod failure;

use args::{Args, Command};
use clap::Parser;
use failure::Failure;
use image_builder::checkout::Checkout;
use image_builder::digest::Launch;
use image_builder::digests::Digests;
use image_builder::firmware::Firmware;
use image_builder::freestanding::{self, Program};
use image_builder::source::Source;
use image_builder::{cpu::CpuType, rom};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Build(options) => build(&options),
        Command::Digest(options) => digest(&options),
        Command::Inspect(options) => inspect(&options),
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
    let weights_file =
        source.weights.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let digests = Digests::of(&rom, &source.manifest, &weights_file)
        .map_err(|source| Failure::Firmware { path: "cloister.rom".into(), source })?;

    fs::create_dir_all(&options.out)
        .map_err(|source| Failure::Write { path: options.out.clone(), source })?;
    let rom_path = options.out.join("cloister.rom");
    write(&rom_path, &rom)?;
    let json_path = options.out.join("digests.json");
    write(&json_path, digests.to_json().as_bytes())?;

    if options.json {
        print!("{}", digests.to_json());
    } else {
        println!("image     {} {}", digests.image.name, digests.image.version);
        println!("model     {} ({})", source.manifest.model.name, source.weights.display());
        println!("rom       {} ({} KiB)", rom_path.display(), rom.len() / 1024);
        println!("digests   {}", json_path.display());
        for launch in digests
            .launch_digests
            .iter()
            .filter(|launch| launch.vcpus == 1 && !launch.cpu_type.ends_with("-v1"))
        {
            println!("{:<9} {}", launch.cpu_type.trim_start_matches("EPYC-"), launch.digest);
        }
    }
    Ok(())
}

fn digest(options: &args::Digest) -> Result<(), Failure> {
    let rom = read(&options.file)?;
    let firmware_error = |source| Failure::Firmware { path: options.file.clone(), source };
    let firmware = Firmware::parse(&rom).map_err(firmware_error)?;
    let digest = Launch::of(&firmware).map_err(firmware_error)?.digest(options.vcpus, options.cpu_type);
    println!("{}", hex::encode(digest));
    Ok(())
}

fn inspect(options: &args::Inspect) -> Result<(), Failure> {
    let rom = read(&options.file)?;
    let firmware_error = |source| Failure::Firmware { path: options.file.clone(), source };
    let firmware = Firmware::parse(&rom).map_err(firmware_error)?;
    let manifest = firmware.manifest().map_err(firmware_error)?;
    println!("image     {} {}", manifest.image, manifest.version);
    println!("model     {} ({} bytes)", manifest.model.name, manifest.model.weights_bytes);
    println!("weights   {}", hex::encode(manifest.model.weights_root));
    println!("manifest  {}", hex::encode(manifest.digest()));
    println!("machine   {} MiB of RAM, {} vCPUs", manifest.machine.memory_mib, manifest.machine.vcpus);
    println!(
        "tasks     {}",
        manifest.tasks.iter().map(|task| task.task.as_str()).collect::<Vec<_>>().join(", ")
    );
    for section in firmware.sections().map_err(firmware_error)? {
        println!("launch    {:#010x} {:>8} bytes  {:?}", section.address, section.size, section.kind);
    }
    for (_, address, bytes) in firmware.copies().map_err(firmware_error)? {
        println!("copied    {address:#010x} {bytes:>8} bytes");
    }
    let launch = Launch::of(&firmware).map_err(firmware_error)?;
    for cpu in CpuType::ALL {
        println!("{:<9} {}", cpu.name().trim_start_matches("EPYC-"), hex::encode(launch.digest(1, cpu)));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|source| Failure::Read { path: path.into(), source })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes).map_err(|source| Failure::Write { path: path.into(), source })
}
