//! The command line: `cloister summarize`, `cloister verify`, `cloister policy`.
#![forbid(unsafe_code)]

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            cli::error(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}
