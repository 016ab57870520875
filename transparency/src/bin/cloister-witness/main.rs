//! `cloister-witness`: cosigns the checkpoints of logs, and never two that do not follow each other.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use transparency::key::Algorithm;
use transparency::log::config::{WitnessAt, write_key};
use transparency::witness::{WatchedLog, Witness, WitnessConfig};

const EXAMPLES: &str = "\
Examples:
  cloister-witness init --folder witness --name witness.example/w1 --url https://witness.example
  cloister-witness add-log --config witness/witness.toml --log log/public.toml
  cloister-witness serve --config witness/witness.toml --listen 127.0.0.1:8081

The state folder is the witness's memory. Never restore an older copy of it: the witness would sign a fork.
Exit codes: 0 done, 1 failed, 2 wrong arguments.";

/// A C2SP tlog-witness: cosigns checkpoints that are consistent with what it cosigned before.
#[derive(Parser)]
#[command(name = "cloister-witness", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes keys (Ed25519 and ML-DSA-44), `witness.toml`, and `public.toml` for the logs that want its cosignatures.
    Init {
        /// The folder; it must not hold a witness yet.
        #[arg(long)]
        folder: PathBuf,
        /// The witness's name: by custom a URL without its scheme.
        #[arg(long)]
        name: String,
        /// Where logs reach it.
        #[arg(long)]
        url: url::Url,
    },
    /// Watches a log from now on.
    AddLog {
        /// `witness.toml`.
        #[arg(long)]
        config: PathBuf,
        /// The log's `public.toml`.
        #[arg(long)]
        log: PathBuf,
    },
    /// Answers logs (`add-checkpoint`) and monitors until it is stopped.
    Serve {
        /// `witness.toml`.
        #[arg(long)]
        config: PathBuf,
        /// Address to listen on; put TLS in front of it for the open network.
        #[arg(long, default_value = "127.0.0.1:8081")]
        listen: String,
    },
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
        Command::Init { folder, name, url } => init(&folder, &name, url),
        Command::AddLog { config, log } => add_log(&config, &log),
        Command::Serve { config, listen } => serve(&config, &listen),
    }
}

fn write_toml(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    fs::write(path, toml::to_string_pretty(value)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not as it must be", path.display()))
}

fn init(folder: &Path, name: &str, url: url::Url) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let files =
        [("ed25519.key", Algorithm::CosignatureEd25519), ("ml-dsa-44.key", Algorithm::CosignatureMlDsa44)];
    let mut public = WitnessAt { url, keys: Vec::new() };
    for (file, algorithm) in files {
        public.keys.push(write_key(&folder.join(file), name, algorithm)?.public().clone());
    }
    let keys = files.map(|(file, _)| file.into()).to_vec();
    write_toml(
        &folder.join("witness.toml"),
        &WitnessConfig { keys, state: "state".into(), logs: Vec::new() },
    )?;
    write_toml(&folder.join("public.toml"), &public)?;
    println!("{}", folder.join("public.toml").display());
    Ok(())
}

fn add_log(path: &Path, log: &Path) -> Result<()> {
    let mut config: WitnessConfig = read_toml(path)?;
    let log: WatchedLog = read_toml(log)?;
    ensure!(
        config.logs.iter().all(|known| known.origin != log.origin),
        "this witness watches {} already; to change its keys, edit {}",
        log.origin,
        path.display()
    );
    config.logs.push(log);
    // A running witness reads it at its next start; half a file it must never read.
    let new = path.with_extension("toml.new");
    write_toml(&new, &config)?;
    fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
}

fn serve(config: &Path, listen: &str) -> Result<()> {
    let witness = Arc::new(Witness::load(config)?);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        println!("listening on {}", listener.local_addr()?);
        transparency::serve::run(listener, transparency::serve::witness(witness)).await?;
        Ok(())
    })
}
