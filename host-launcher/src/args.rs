//! The command line.

use clap::{Parser, Subcommand, ValueEnum};
use image_builder::cpu::CpuType;
use snp_model::hostile::Lie;
use std::net::SocketAddrV4;
use std::path::PathBuf;

/// Boots a Cloister image under QEMU and reports what it says.
#[derive(Debug, Parser)]
#[command(name = "cloister-launch", version, after_help = EXIT_CODES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes:
   0  stopped, as you asked (Ctrl-C, SIGTERM)
   2  the command line is wrong
   3  QEMU, KVM or SEV-SNP is missing on this host
   4  the image or the weights cannot be started
   5  the address cannot be listened on
   6  the SNP model or its keys could not be made
   7  a file could not be written
  10  the guest ended itself; the reason is the last line
  11  the guest broke a rule of SEV-SNP (only the model tells)
  12  the SNP model broke
  13  QEMU ended for another reason";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a guest and stay with it until it ends.
    Run(Run),
}

fn lie(name: &str) -> Result<Lie, String> {
    Lie::from_name(name)
        .ok_or("there is no such lie; `cloister-launch run --hostile list` prints them all".into())
}

/// Whether the command line asks for the list of lies, which needs no image.
pub fn asks_for_lies(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| argument == "--hostile=list")
        || arguments.windows(2).any(|pair| pair == ["--hostile", "list"])
}

/// Where the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Platform {
    /// In the SNP model, on any machine. It protects nothing: it is there to develop and to try.
    Model,
    /// On real SEV-SNP hardware, through KVM.
    Snp,
}

/// Start a guest and stay with it until it ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cloister-launch run --platform model --image out/cloister.rom --weights models/cloister-mini.gguf --listen 127.0.0.1:8443
  cloister-launch run --platform snp --image cloister.rom --weights model.gguf --listen 0.0.0.0:443 --cpu-type EPYC-Turin
  cloister-launch run --hostile list
  cloister-launch run --platform model --image out/cloister.rom --weights models/cloister-mini.gguf --hostile a6-remap")]
pub struct Run {
    /// Where the guest runs.
    #[arg(long)]
    pub platform: Platform,
    /// The image, as `cloister-image build` wrote it: `cloister.rom`, or `cloister.igvm` for a QEMU built with IGVM.
    #[arg(long, value_name = "FILE")]
    pub image: PathBuf,
    /// The GGUF file that the image was built for. It is only read.
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    /// Where clients connect; port 0 chooses a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    pub listen: SocketAddrV4,
    /// Number of vCPUs; the default is what the image's manifest says. It is measured.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub vcpus: Option<u32>,
    /// CPU type: EPYC-Milan, EPYC-Genoa or EPYC-Turin. It is measured.
    #[arg(long, value_name = "TYPE", default_value_t = CpuType::Genoa)]
    pub cpu_type: CpuType,
    /// RAM in MiB; the default is what the image's manifest says.
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u32>,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// Also append everything to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Offer QEMU's control socket (QMP) at this path.
    #[arg(long, value_name = "PATH")]
    pub qmp: Option<PathBuf>,
    /// Print QEMU's command line and start nothing.
    #[arg(long)]
    pub print_command: bool,
    /// Let the model play a hostile host, by the name of a lie; `list` prints them all.
    #[arg(long, value_name = "NAME", help_heading = "SNP model", value_parser = lie)]
    pub hostile: Option<Lie>,
    /// Forgive what real hardware may forgive too: fields of a call that mean nothing, a TLB flush that is missing. Without
    /// it, such a guest is ended like one that breaks a rule.
    #[arg(long, help_heading = "SNP model")]
    pub lenient: bool,
    /// Count instructions instead of time (2 ns each) and run all CPUs on one thread, so that every run is the same.
    #[arg(long, help_heading = "SNP model")]
    pub icount: bool,
    /// Take this ELF file for the model and build nothing.
    #[arg(long, value_name = "FILE", help_heading = "SNP model")]
    pub snp_model: Option<PathBuf>,
    /// Attach the log's proof for the image (`cloister-log prove`) to the certificates that the host hands the guest, which
    /// hands them on to clients.
    #[arg(long, value_name = "FILE", help_heading = "SNP model")]
    pub proof: Option<PathBuf>,
    /// Folder for the model's development keys; the default is the checkout's target folder, else the user's own.
    #[arg(long, value_name = "DIR", help_heading = "SNP model")]
    pub state: Option<PathBuf>,
}
