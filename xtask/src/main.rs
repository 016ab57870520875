//! Entry of `cargo demo` and `cargo ci` (aliases in `.cargo/config.toml`).
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Demonstrates and tests Cloister.
#[derive(Parser)]
#[command(name = "xtask", after_help = "Examples:\n  cargo demo\n  cargo ci")]
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
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo { chat } => xtask::demo::run(chat),
        Command::Ci => xtask::ci::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
