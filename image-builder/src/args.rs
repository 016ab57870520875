//! The command line.

use clap::{Parser, Subcommand};
use image_builder::cpu::CpuType;
use std::path::PathBuf;
#[cfg(feature = "publish")]
use transparency::entry::{Name, Version};

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
  9  the rebuilt image and the published one differ
 10  the builders disagree, or too few of them vouch; nothing was appended (publish), or nobody should have (audit)
 11  a key, `builders.toml`, a trust or the log's configuration cannot be used
 12  the proof of a log entry was refused
 13  the log refused the entry, or cannot be read or written
 14  appended and safe, but too few witnesses cosigned; run `cloister-log publish` later";

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
    /// Write the image's provenance (in-toto Statement v1 with SLSA v1, JSON), signed if a key is given.
    Provenance(Provenance),
    /// Make a builder's key.
    #[cfg(feature = "publish")]
    Key(Key),
    /// Sign what a build of one's own came to: as one of the builders who must agree before anything is logged.
    #[cfg(feature = "publish")]
    Vouch(Vouch),
    /// Append an image or a model to a log if enough independent builders vouch for the same.
    #[cfg(feature = "publish")]
    Publish(Publish),
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
  cloister-image audit cloister.rom cloister.tlog-proof --trust trust.toml
  cloister-image audit cloister.tlog-proof --trust trust.toml --log https://log.example/cloister --builders builders.toml

Prints `identical` and ends with 0, or says where the two differ and ends with 9. The build runs code from the source.")]
#[command(group(clap::ArgGroup::new("origin")))]
pub struct Audit {
    /// What was published: `cloister.rom`, `cloister.igvm`, `digests.json`, or the proof of an entry in a log.
    /// The image is rebuilt once for all that are named.
    #[arg(value_name = "FILE", required = true)]
    pub published: Vec<PathBuf>,
    /// Whom to trust with a proof: a file with a `[log]` section, such as a client's policy.
    #[cfg(feature = "publish")]
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Also say who vouched for the entry: the log's URL, or the folder of its files, where the builders' statements are.
    #[cfg(feature = "publish")]
    #[arg(long, value_name = "URL|DIR", requires = "trust", requires = "builders")]
    pub log: Option<String>,
    /// Whose builds count: a `builders.toml`, as `publish` takes it.
    #[cfg(feature = "publish")]
    #[arg(long, value_name = "FILE", requires = "log")]
    pub builders: Option<PathBuf>,
    /// Build this commit or tag of the repository; with a proof, the default is the commit that the entry names.
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
    /// Print the comparisons as a JSON list and nothing else.
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
    /// Sign it with this builder's key: the output is a DSSE envelope.
    #[cfg(feature = "publish")]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Write it to this file; the default is standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Make a builder's key.
#[cfg(feature = "publish")]
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  cloister-image key --name builder.example/a --out builder-a.key

Prints the public key, for the `builders.toml` of whoever runs the log. Keep the file on the machine that builds.")]
pub struct Key {
    /// The builder's name, without spaces and plus signs; by custom a URL without its scheme.
    #[arg(long)]
    pub name: String,
    /// The key's file, which must not exist.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Sign what a build came to.
#[cfg(feature = "publish")]
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloister-image vouch --key builder-a.key --commit v0.1.0 --vcpus 2 --out a.statement
  cloister-image vouch --key builder-a.key --built out --commit 41c6… --vcpus 2 --out a.statement
  cloister-image vouch --key builder-a.key --weights model.gguf --name mini --version 1.0.0 --out a.statement

Without --built, the commit is built in a clean folder first, as `audit` does. With it you say that you built what is in the
folder from that commit; the files in it must belong together.")]
pub struct Vouch {
    /// The builder's key.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The commit or tag that the image was built from; with --built, in hexadecimal.
    #[arg(long, value_name = "REVISION", required_unless_present = "weights", conflicts_with = "weights")]
    pub commit: Option<String>,
    /// The repository of the commit.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub repository: PathBuf,
    /// Vouch for what `cloister-image build` wrote into this folder, and build nothing.
    #[arg(long, value_name = "DIR")]
    pub built: Option<PathBuf>,
    /// Take all crates from this folder, made by `cargo vendor --locked DIR`, and nothing from the network.
    #[arg(long, value_name = "DIR")]
    pub vendor: Option<PathBuf>,
    /// Manifest to build with, relative to the source; the default is models/manifest.toml.
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Log only the launch digests for this number of vCPUs, such as the one of the image's manifest; once for each.
    #[arg(long, value_name = "N")]
    pub vcpus: Vec<u32>,
    /// What the thing is for; the default is `guest` for an image and `weights` for a model.
    #[arg(long)]
    pub role: Option<Name>,
    /// Vouch for a model instead of an image: its weights' file.
    #[arg(long, value_name = "FILE", requires = "name", requires = "model_version")]
    pub weights: Option<PathBuf>,
    /// The model's name.
    #[arg(long, requires = "weights")]
    pub name: Option<Name>,
    /// The model's version.
    #[arg(long = "version", id = "model_version", value_name = "VERSION", requires = "weights")]
    pub model_version: Option<Version>,
    /// Where to write the statement.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Append what builders agree on.
#[cfg(feature = "publish")]
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloister-image publish --builders builders.toml --config log/log.toml a.statement b.statement
  cloister-image publish --builders builders.toml --check a.statement b.statement

builders.toml names the builders (`cloister-image key` prints the keys) and how many must agree, at least 2:

  threshold = 2
  [[builder]]
  key = \"builder.example/a+…\"
  [[builder]]
  key = \"other.example/b+…\"")]
pub struct Publish {
    /// The builders' statements, which `cloister-image vouch` wrote.
    #[arg(value_name = "FILE", required = true)]
    pub statements: Vec<PathBuf>,
    /// Whose builds count.
    #[arg(long, value_name = "FILE")]
    pub builders: PathBuf,
    /// The log's `log.toml`.
    #[arg(long, value_name = "FILE", required_unless_present = "check")]
    pub config: Option<PathBuf>,
    /// A file that goes out to people; it must be one that the builders vouch for. Once for each.
    #[arg(long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Only say whether the builders agree; append nothing.
    #[arg(long, conflicts_with = "config")]
    pub check: bool,
    /// Print the result as JSON and nothing else.
    #[arg(long)]
    pub json: bool,
}
