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
    Demo {
        /// A WhatsApp text export to summarise instead of the sample.
        chat: Option<std::path::PathBuf>,
    },
    /// Runs every check and test of the project.
    Ci,
    /// Shows that each promise of the hostile-host tests is broken by an image without the defence behind it.
    Mutants(xtask::mutants::Options),
    /// Rebuilds the image in a minimal chroot and compares it with the one built here. Needs root.
    AuditInChroot,
    /// Measures the project and prints a table; the results also go to a JSON file.
    BenchAll(xtask::bench::Options),
    /// Boots the default image in the SNP model many times in a row.
    Boots(xtask::boots::Options),
    /// Boots Debian's stock Linux kernel in the SNP model and checks that it finds SEV-SNP there.
    LinuxCheck(xtask::linux::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo { chat } => xtask::demo::run(chat),
        Command::Ci => xtask::ci::run(),
        Command::Mutants(options) => xtask::mutants::run(&options),
        Command::AuditInChroot => xtask::chroot::audit(),
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
