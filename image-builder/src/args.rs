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
  7  a file could not be read or written
  8  the image is outside its budget
  9  the rebuilt image and the published one differ";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build the kernel and write `cloister.rom`, `cloister.igvm` and `digests.json`.
    Build(Build),
    /// Print the launch digest of an image, alone and in hexadecimal.
    Digest(Digest),
    /// Show what an image holds: name, model, memory at launch, digests.
    Inspect(Inspect),
    /// Rebuild an image from its source in a clean folder and compare it with the published one.
    Audit(Audit),
    /// Report what the image is made of: crates, licences, lines, `unsafe` blocks, bytes.
    Tcb(Tcb),
    /// Write the image's bill of materials (CycloneDX 1.6, JSON).
    Sbom(Sbom),
    /// Write the image's provenance (in-toto Statement v1 with SLSA v1, JSON).
    Provenance(Provenance),
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

/// Rebuild an image and compare it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloister-image audit published.rom --commit v0.1.0
  cloister-image audit published.rom --archive cloister-0.1.0.tar.gz --vendor vendor
  cloister-image audit digests.json --folder . --json

Prints `identical` and ends with 0, or says where the two differ and ends with 9. The build runs code from the source.")]
#[command(group(clap::ArgGroup::new("origin").required(true)))]
pub struct Audit {
    /// What was published: `cloister.rom`, or its `digests.json` where the image itself is not at hand.
    #[arg(value_name = "FILE")]
    pub published: PathBuf,
    /// Build this commit or tag of the repository.
    #[arg(long, value_name = "REVISION", group = "origin")]
    pub commit: Option<String>,
    /// The repository of the commit.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub repository: PathBuf,
    /// Build the source in this tar archive.
    #[arg(long, value_name = "FILE", group = "origin")]
    pub archive: Option<PathBuf>,
    /// Build the source in this folder, as it is.
    #[arg(long, value_name = "DIR", group = "origin")]
    pub folder: Option<PathBuf>,
    /// Take all crates from this folder, made by `cargo vendor --locked DIR`, and nothing from the network.
    #[arg(long, value_name = "DIR")]
    pub vendor: Option<PathBuf>,
    /// Build in this folder, which must not exist, and keep it; the default is a temporary one.
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// Manifest to build with, relative to the source; the default is models/manifest.toml.
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Print the comparison as JSON and nothing else.
    #[arg(long)]
    pub json: bool,
}

/// Report what the image is made of.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloister-image tcb
  cloister-image tcb --json > tcb.json
  cloister-image tcb --check")]
pub struct Tcb {
    /// Print the whole report as JSON and nothing else.
    #[arg(long)]
    pub json: bool,
    /// Fail unless the totals fit the checkout's budget (image-builder/budget.toml).
    #[arg(long)]
    pub check: bool,
}

/// Write the image's bill of materials.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  cloister-image sbom --out out/cloister.cdx.json")]
pub struct Sbom {
    /// Write it to this file; the default is standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Write the image's provenance.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  cloister-image provenance out/cloister.rom out/digests.json --builder https://builder.example/a \\
      --repository git+https://git.example/cloister --out out/cloister.provenance.json

The commit is the checkout's; a checkout with changes that are not committed has no provenance.")]
pub struct Provenance {
    /// The files that were built.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Where the source is published.
    #[arg(long, value_name = "URI")]
    pub repository: String,
    /// Who vouches for the build.
    #[arg(long, value_name = "URI")]
    pub builder: String,
    /// Write it to this file; the default is standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}
