//! `cloister-gateway`: opens what relays hand on, takes tokens, and carries sessions to guests.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use privacy::gateway::keys::{self, KemName};
use privacy::ohttp::{SecretKey, encode_list};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

const EXAMPLES: &str = "\
Examples:
  cloister-gateway new-key --keys keys                    # prints the file to be logged
  cloister-gateway retire --keys keys --keep 2

Exit codes: 0 done, 1 failed, 2 wrong arguments.";

/// An Oblivious HTTP gateway (RFC 9458, chunked) in front of guests.
#[derive(Parser)]
#[command(name = "cloister-gateway", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a key beside those that are there, and writes its public configuration for the log.
    NewKey {
        /// The folder of keys.
        #[arg(long)]
        keys: PathBuf,
        /// What the key is for.
        #[arg(long, value_enum, default_value = "x-wing")]
        kem: KemArgument,
    },
    /// Removes all but the newest keys. Do it once no client has a proof of the older ones that is still good.
    Retire {
        /// The folder of keys.
        #[arg(long)]
        keys: PathBuf,
        /// How many stay.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
        keep: u8,
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
    let result = match Arguments::parse().command {
        Command::NewKey { keys, kem } => new_key(&keys, kem),
        Command::Retire { keys, keep } => retire(&keys, keep),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn new_key(folder: &Path, kem: KemArgument) -> Result<()> {
    let kem = match kem {
        KemArgument::XWing => KemName::XWing,
        KemArgument::X25519 => KemName::X25519,
    };
    let made = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let key = keys::make(folder, kem, made)?;
    let path = folder.join(format!("{:03}.ohttp-keys", key.config().key_id));
    std::fs::write(&path, encode_list([SecretKey::config(&key)]))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

fn retire(folder: &Path, keep: u8) -> Result<()> {
    for id in keys::retire(folder, keep.into())? {
        let public = folder.join(format!("{id:03}.ohttp-keys"));
        if public.exists() {
            std::fs::remove_file(&public).with_context(|| format!("cannot remove {}", public.display()))?;
        }
        println!("retired key {id}");
    }
    Ok(())
}
