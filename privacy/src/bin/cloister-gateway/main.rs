//! `cloister-gateway`: opens what relays hand on, takes tokens, and carries sessions to guests.
#![forbid(unsafe_code)]

mod config;
mod serve;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use privacy::clock::now;
use privacy::gateway::keys::{self, KemName};
use std::path::PathBuf;
use std::process::ExitCode;
use transparency::entry::Name;

const EXAMPLES: &str = "\
Examples:
  cloister-gateway new-key --keys keys --name gateway.example    # prints the entry's file, for cloister-log append --entry
  cloister-gateway serve --config gateway.toml
  cloister-gateway retire --keys keys

gateway.toml:
  name = \"gateway.example\"
  keys = \"keys\"                                   # the folder; read again every minute and at SIGHUP, and so is this file's list of guests
  guests = [\"guest-1.example:4433\", \"guests.internal:4433\"]     # every address that a name resolves to is a guest

  [kubernetes]                                    # beside or in place of `guests`: the endpoints of a Service, as its slices list them
  service = \"guests\"
  port = \"guest\"

  [listen]
  address = \"0.0.0.0:443\"
  tls = { certificate = \"gateway.pem\", key = \"gateway.key\" }

  [tokens]
  issuer = \"issuer.example\"                       # its name in the log
  key_mirrors = [\"https://log.example/proof/issuer.example.tlog-proof\"]
  floors = \"floors.json\"                          # what was seen of its keys
  spent = \"redb:spent.redb\"                       # or redis://…, postgres://…: shared by all gateways

  [log]                                           # as cloister-log trust prints it; or, at the top: trust = \"trust.toml\"
  …

SIGTERM ends it once the sessions at work are done, at the latest after --grace seconds.
Exit codes: 0 done, 1 failed, 2 wrong arguments.";

/// An Oblivious HTTP gateway (RFC 9458, and chunked) in front of guests.
#[derive(Parser)]
#[command(name = "cloister-gateway", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves until it is stopped.
    Serve {
        /// The configuration; paths in it are relative to it.
        #[arg(long)]
        config: PathBuf,
        /// Seconds that sessions at work have when the gateway is told to end.
        #[arg(long, default_value_t = 30)]
        grace: u64,
    },
    /// Makes a key beside those that are there, and prints the file of its log entry. A running `serve` takes it up by itself.
    NewKey {
        /// The folder of keys.
        #[arg(long)]
        keys: PathBuf,
        /// The gateway's name in the log, such as its host's.
        #[arg(long)]
        name: Name,
        /// What the key is for.
        #[arg(long, value_enum, default_value = "x-wing")]
        kem: KemArgument,
        /// For how long it is used.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=366))]
        days: u32,
    },
    /// Removes the keys whose time is over.
    Retire {
        /// The folder of keys.
        #[arg(long)]
        keys: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum KemArgument {
    /// X25519 with ML-KEM-768.
    XWing,
    /// X25519 alone.
    X25519,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve { config, grace } => {
            tokio::runtime::Runtime::new()?.block_on(serve::serve(&config, grace))
        }
        Command::NewKey { keys, name, kem, days } => {
            let kem = match kem {
                KemArgument::XWing => KemName::XWing,
                KemArgument::X25519 => KemName::X25519,
            };
            println!("{}", keys::make(&keys, &name, kem, days, now()?)?.display());
            Ok(())
        }
        Command::Retire { keys } => {
            keys::retire(&keys, now()?)?.iter().for_each(|number| println!("retired key {number}"));
            Ok(())
        }
    }
}
