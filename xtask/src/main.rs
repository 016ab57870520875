//! Entry of `cargo demo`, `cargo ci`, `cargo bench-all` and `cargo linux-check` (aliases in `.cargo/config.toml`).
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Demonstrates and tests Cloister.
#[derive(Parser)]
#[command(
    name = "xtask",
    after_help = "Examples:\n  cargo demo\n  cargo ci\n  cargo bench-all\n  cargo linux-check"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds everything, boots the image in the SNP model and prints an attested summary of a sample chat.
    #[command(after_help = "Examples:\n  cargo demo\n  cargo demo chat.txt\n  cargo demo --research\n  \
                            printf 'send\\nexits\\nhost a6-remap\\n' | cargo demo --research --json")]
    Demo {
        /// A WhatsApp text export to summarise instead of the sample.
        chat: Option<std::path::PathBuf>,
        /// Instead: boot the image and take commands from standard input, to look at it and to attack it.
        #[arg(long, conflicts_with = "chat")]
        research: bool,
        /// Run this image: a folder with cloister.rom and digests.json. Without it, the checkout's is built.
        #[arg(long, value_name = "DIR", requires = "research")]
        image: Option<std::path::PathBuf>,
        /// What the host does from the start, by the name of a lie (`lies` lists them).
        #[arg(long, value_name = "NAME", requires = "research")]
        hostile: Option<String>,
        /// Print one JSON object a line.
        #[arg(long, requires = "research")]
        json: bool,
    },
    /// Runs every check and test of the project.
    Ci,
    /// Shows that each promise of the hostile-host tests is broken by an image without the defence behind it.
    Mutants(xtask::mutants::Options),
    /// Rebuilds the image in a minimal chroot and compares it with the one built here. Needs root.
    AuditInChroot,
    /// Holds all dependencies to deny.toml: advisories, licences, sources.
    Deny,
    /// Fetches the newest advisories, which `deny` holds dependencies against.
    Advisories(xtask::advisories::Options),
    /// Measures the project and prints a table; the results also go to a JSON file.
    BenchAll(xtask::bench::Options),
    /// Boots the default image in the SNP model many times in a row.
    Boots(xtask::boots::Options),
    /// Boots Debian's stock Linux kernel in the SNP model and checks that it finds SEV-SNP there.
    LinuxCheck(xtask::linux::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo { research: true, image, hostile, json, .. } => {
            xtask::research::run(&xtask::research::Options { image, hostile, json })
        }
        Command::Demo { chat, .. } => xtask::demo::run(chat),
        Command::Ci => xtask::ci::run(),
        Command::Mutants(options) => xtask::mutants::run(&options),
        Command::AuditInChroot => xtask::chroot::audit(),
        Command::Deny => xtask::deny::run(),
        Command::Advisories(options) => xtask::advisories::refresh(&options),
        Command::BenchAll(options) => xtask::bench::run(&options),
        Command::Boots(options) => xtask::boots::run(&options),
        Command::LinuxCheck(options) => xtask::linux::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
