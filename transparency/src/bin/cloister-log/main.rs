//! `cloister-log`: appends to a log, serves it, proves entries, and follows logs of others.
#![forbid(unsafe_code)]

mod commands;
mod failure;
mod image;
mod key;
mod watch;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use transparency::entry::{Kind, Name, Version};

const EXAMPLES: &str = "\
Examples:
  cloister-log init --folder log --origin log.example/cloister --witness w1/public.toml --witness w2/public.toml \\
      --threshold 2
  cloister-log append --config log/log.toml --digests out/digests.json --file out/cloister.rom --commit 41c6…
  cloister-log prove --config log/log.toml --name cloister --role guest --out cloister.tlog-proof
  cloister-log trust --config log/log.toml --accept cloister/guest/0.1.0 > trust.toml
  cloister-log verify --trust trust.toml cloister.tlog-proof
  cloister-log serve --config log/log.toml --listen 127.0.0.1:8080
  cloister-log watch --url https://log.example/cloister --trust trust.toml --memory watch.json --name cloister --json

Exit codes: 0 done, 2 wrong arguments, 3 the entry was refused, 4 configuration or trust cannot be used, 5 the log cannot
be read or written, 6 the proof was refused, 7 appended and safe, but too few witnesses cosigned (publish again), 8 alarm:
the log misbehaves.";

/// The transparency log of images, models and keys (C2SP tlog-tiles).
#[derive(Parser)]
#[command(name = "cloister-log", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a log: keys (Ed25519 and ML-DSA-44), `log.toml`, `public.toml` for witnesses, and an empty list of
    /// revocations as its first entry.
    Init {
        /// Folder of keys and configuration.
        #[arg(long)]
        folder: PathBuf,
        /// The log's origin: by custom its URL without the scheme.
        #[arg(long)]
        origin: String,
        /// Where the log's files go: a folder, relative to `--folder`, or a URL such as `s3://bucket/prefix`.
        #[arg(long, default_value = "tiles")]
        storage: String,
        /// A witness's `public.toml`; once for each.
        #[arg(long = "witness", required = true)]
        witnesses: Vec<PathBuf>,
        /// How many of them must cosign.
        #[arg(long)]
        threshold: usize,
    },
    /// Appends entries as one batch, and publishes.
    Append(commands::Append),
    /// Revokes an entry, and publishes.
    Revoke {
        /// `log.toml`.
        #[arg(long)]
        config: PathBuf,
        /// Leaf hash of the entry, as `append` and `watch` print it.
        #[arg(long)]
        leaf: String,
        /// Why, in a word.
        #[arg(long, default_value = "withdrawn")]
        reason: Name,
    },
    /// Asks the witnesses again and publishes: after a failure, and so that proofs stay young.
    Publish {
        /// `log.toml`.
        #[arg(long)]
        config: PathBuf,
        /// Also issue the list of revocations again; clients refuse an old one, so do this more often than their
        /// `max_age_hours`.
        #[arg(long)]
        refresh: bool,
    },
    /// Writes the proof of an entry, for clients, gateways and launchers.
    Prove {
        /// `log.toml`.
        #[arg(long)]
        config: PathBuf,
        /// Kind of the entry.
        #[arg(long, value_parser = kind, default_value = "image")]
        kind: Kind,
        /// Name of the entry; the newest version is proven.
        #[arg(long)]
        name: Name,
        /// Role of the entry.
        #[arg(long, default_value = "guest")]
        role: Name,
        /// Prove this entry instead of the newest.
        #[arg(long)]
        index: Option<u64>,
        /// Carry the cosignatures of so many witnesses only, at least the log's threshold: a shorter proof for clients who ask
        /// for no more. Without it, all are carried.
        #[arg(long, value_name = "N")]
        witnesses: Option<usize>,
        /// Where to write the proof.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Also put it beside the log's files, where `serve` gives it to everyone as `proof/NAME.tlog-proof`.
        #[arg(long)]
        publish: bool,
    },
    /// Checks a proof as a client does.
    Verify {
        /// File with a `[log]` section, such as a client's policy.
        #[arg(long)]
        trust: PathBuf,
        /// Kind that the entry must have.
        #[arg(long, value_parser = kind, default_value = "image")]
        kind: Kind,
        /// The proof.
        proof: PathBuf,
    },
    /// Prints the `[log]` section of a policy for this log's clients.
    Trust {
        /// `log.toml`.
        #[arg(long)]
        config: PathBuf,
        /// What they may accept: NAME/ROLE or NAME/ROLE/VERSION, the oldest version that is still good; KIND: before it
        /// for another kind than an image, as in issuer-key:issuer.example/token-issuer.
        #[arg(long, value_parser = accept)]
        accept: Vec<(Kind, Name, Name, Version)>,
        /// Longest age of a proof.
        #[arg(long, default_value_t = 168, value_parser = clap::value_parser!(u32).range(1..))]
        max_age_hours: u32,
    },
    /// Serves a log's files over HTTP, read-only, until it is stopped. Any web server can do the same.
    Serve {
        /// `log.toml`.
        #[arg(long)]
        config: PathBuf,
        /// Address to listen on; put TLS in front of it for the open network.
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: String,
    },
    /// Follows a log: checks that it only grows and reports every new entry, or those of a name.
    Watch(watch::Watch),
}

fn kind(text: &str) -> Result<Kind, String> {
    let names = || Kind::ALL.map(Kind::name).join(", ");
    Kind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| format!("one of {}", names()))
}

fn accept(text: &str) -> Result<(Kind, Name, Name, Version), String> {
    let (of, text) = match text.split_once(':') {
        Some((of, rest)) => (kind(of)?, rest),
        None => (Kind::Image, text),
    };
    let mut parts = text.splitn(3, '/');
    let mut name = || parts.next().unwrap_or_default().parse::<Name>().map_err(|error| error.to_string());
    let (name, role) = (name()?, name()?);
    let version = parts.next().map(str::parse::<Version>).transpose().map_err(|error| error.to_string())?;
    Ok((of, name, role, version.unwrap_or_default()))
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: this machine cannot start the program: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(commands::run(Arguments::parse().command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
