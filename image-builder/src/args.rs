//! The command line.

use clap::{Parser, Subcommand};
use image_builder::cpu::CpuType;
use std::path::PathBuf;

/// Builds the guest image and computes the launch digests that clients check.
#[derive(Debug, Parser)]
#[command(name = "cloister-image", version, after_help = EXIT_CODES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0  done
  2  the command line is wrong
  3  the kernel could not be built (toolchain, network, or its own errors)
  4  the manifest is unusable
  5  the weights are missing or not a usable GGUF file
  6  the kernel or the image file is not one
  7  a file could not be read or written";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build the kernel and write `cloister.rom`, `cloister.igvm` and `digests.json`.
    Build(Build),
    /// Print the launch digest of an image, alone and in hexadecimal.
    Digest(Digest),
    /// Show what an image holds: name, model, memory at launch, digests.
    Inspect(Inspect),
}

/// Build the kernel and write the image.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  cloister-image build --out out
  cloister-image build --out out --manifest my-model.toml")]
pub struct Build {
    /// Folder for `cloister.rom`, `cloister.igvm` and `digests.json`; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// What the image is apart from its code; the default is the checkout's models/manifest.toml.
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Take this ELF file for the kernel and build nothing.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Print the contents of `digests.json` and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// Print a launch digest.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  cloister-image digest out/cloister.rom --vcpus 1 --cpu-type EPYC-Genoa
  cloister-image digest out/cloister.igvm --vcpus 8 --cpu-type EPYC-Turin")]
pub struct Digest {
    /// The image: a ROM or an IGVM file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Number of vCPUs; KVM measures the initial state of each.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub vcpus: u32,
    /// CPU type, by QEMU's name: EPYC-Milan, EPYC-Genoa or EPYC-Turin.
    #[arg(long, value_name = "TYPE", default_value_t = CpuType::Genoa)]
    pub cpu_type: CpuType,
}

/// Show what an image holds.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  cloister-image inspect out/cloister.igvm")]
pub struct Inspect {
    /// The image: a ROM or an IGVM file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}
