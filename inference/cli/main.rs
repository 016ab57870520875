//! `cloister-engine`: the engine as a program for a host, to compare it with other engines.
#![forbid(unsafe_code)]
mod bench;
mod generate;
mod load;
mod logits;
mod probe;
mod synthetic;
mod tokenize;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Runs Cloister's engine on GGUF models, outside a guest.
#[derive(Parser)]
#[command(
    name = "cloister-engine",
    version,
    after_help = "Examples:
  cloister-engine bench --model model.gguf --threads 2
  cloister-engine bench --model model.gguf --threads 2 --parallel 8 --json
  cloister-engine logits --model model.gguf --ids ids.json --out logits.f32
  cloister-engine tokenize --model model.gguf --text 'Hello there'
  cloister-engine generate --model model.gguf --prompt 'Once upon a time' --max-tokens 50
  cloister-engine synthetic-model --shape smollm2-135m --type q8_0 --out model.gguf

Exit codes: 0 done, 1 failed, 2 wrong arguments."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures prefill and decode in tokens per second, beside the limits of the machine.
    Bench(bench::Arguments),
    /// Writes the logits after each of the given tokens.
    Logits(logits::Arguments),
    /// Prints the tokens of a text as a JSON array.
    Tokenize(tokenize::Arguments),
    /// Continues a text.
    Generate(generate::Arguments),
    /// Writes a model of true shape with random weights, where no weights can be downloaded.
    SyntheticModel(synthetic::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Logits(arguments) => logits::run(&arguments),
        Command::Tokenize(arguments) => tokenize::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::SyntheticModel(arguments) => synthetic::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
