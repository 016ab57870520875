//! `cloister-issuer`: gives accounts anonymous tokens.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use privacy::clock::now;
use privacy::issuer::accounts::{Accounts, Authenticate};
use privacy::issuer::config::{Config, Folder};
use privacy::issuer::epochs::Epochs;
use privacy::issuer::oidc::Oidc;
use privacy::issuer::quota::Quota;
use privacy::issuer::service::{Issuer, handle, router};
use privacy::reload::Reloads;
use privacy::serve::{Limits, Listen, run as run_service};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use transparency::entry::Name;

/// How long requests may take to end when the program is stopped.
const GRACE: Duration = Duration::from_secs(10);

/// Gives accounts anonymous tokens (Privacy Pass, RFC 9578 type 2) that it cannot recognise when they are used.
///
/// Everything is in one folder: issuer.toml, keys, accounts and the counts of issued tokens.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  cloister-issuer init --folder issuer --name issuer.example
  cloister-issuer new-key --folder issuer            # prints the entry's file, for cloister-log append --entry
  cloister-issuer account add ada --folder issuer --credential ada.credential
  cloister-issuer serve --folder issuer --listen 127.0.0.1:8081

Exit codes: 0 done, 1 failed, 2 wrong arguments."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a folder with issuer.toml. Edit that file for an OpenID Connect provider.
    Init {
        /// The folder.
        #[arg(long)]
        folder: PathBuf,
        /// The issuer's name in the log and in challenges, such as its host's.
        #[arg(long)]
        name: Name,
        /// Most tokens of an account in an epoch.
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
        cap: u32,
        /// Hours for which tokens are issued under a key.
        #[arg(long, default_value_t = 168)]
        epoch_hours: u64,
        /// Hours for which a key's tokens are good after that.
        #[arg(long, default_value_t = 24)]
        overlap_hours: u64,
    },
    /// Makes the key of this epoch, or of the next one if this epoch has one, and prints the file of its log entry. A
    /// running `serve` takes it up by itself.
    NewKey {
        /// The issuer's folder.
        #[arg(long)]
        folder: PathBuf,
    },
    /// Lists, adds or removes accounts of this machine.
    #[command(subcommand)]
    Account(Account),
    /// Serves until it is stopped. Accounts' credentials travel to it: give it TLS in issuer.toml, or put TLS in front of it.
    Serve {
        /// The issuer's folder.
        #[arg(long)]
        folder: PathBuf,
        /// Address to listen on, in place of issuer.toml's. Without either, 127.0.0.1:8081.
        #[arg(long)]
        listen: Option<String>,
    },
}

#[derive(Subcommand)]
enum Account {
    /// Lists the accounts' names.
    List {
        /// The issuer's folder.
        #[arg(long)]
        folder: PathBuf,
    },
    /// Adds an account and writes its credential to a new file (mode 0600) to be handed to its owner.
    Add {
        /// Its name.
        name: String,
        /// The issuer's folder.
        #[arg(long)]
        folder: PathBuf,
        /// The new file.
        #[arg(long)]
        credential: PathBuf,
    },
    /// Removes an account. Tokens that it has stay good until their epoch ends. A running `serve` must be restarted.
    Remove {
        /// Its name.
        name: String,
        /// The issuer's folder.
        #[arg(long)]
        folder: PathBuf,
    },
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Init { folder, name, cap, epoch_hours, overlap_hours } => {
            let (at, config) = (
                Folder::new(&folder),
                Config { name, cap, epoch_hours, overlap_hours, oidc: None, listen: None },
            );
            at.create(&config)?;
            at.load()?;
            println!("{}", at.config().display());
        }
        Command::NewKey { folder } => {
            let at = Folder::new(&folder);
            let config = at.load()?;
            println!("{}", Epochs::add(&at.keys(), &config.name, config.schedule(), now()?)?.display());
        }
        Command::Account(Account::List { folder }) => {
            for name in Accounts::load(&Folder::new(&folder).accounts())?.names() {
                println!("{name}");
            }
        }
        Command::Account(Account::Add { name, folder, credential }) => {
            Accounts::load(&Folder::new(&folder).accounts())?.add(&name, &credential)?;
        }
        Command::Account(Account::Remove { name, folder }) => {
            Accounts::load(&Folder::new(&folder).accounts())?.remove(&name)?;
        }
        Command::Serve { folder, listen } => {
            let runtime = tokio::runtime::Runtime::new().context("this machine cannot start the program")?;
            runtime.block_on(serve(&folder, listen))?;
        }
    }
    Ok(())
}

async fn serve(folder: &Path, address: Option<String>) -> Result<()> {
    let at = Folder::new(folder);
    let config = at.load()?;
    let accounts: Box<dyn Authenticate> = match config.oidc {
        Some(oidc) => Box::new(Oidc::new(oidc)?),
        None => Box::new(Accounts::load(&at.accounts())?),
    };
    let epochs = load(&at.keys())?;
    let quota = Quota::open(&at.quota(), config.cap)?;
    let ids = |epochs: &Epochs| epochs.all().iter().map(|key| *key.signing.public().id()).collect::<Vec<_>>();
    quota.keep_only(&ids(&epochs))?;
    let issuer = Arc::new(Issuer::new(epochs, accounts, quota));
    let mut listen = config.listen.unwrap_or(Listen {
        address: "127.0.0.1:8081".into(),
        tls: None,
        behind_tls: false,
        metrics: None,
        limits: Limits::default(),
    });
    if let Some(address) = address {
        listen.address = address;
    }
    tokio::spawn(reload(Reloads::new()?, issuer.clone(), at.keys()));
    let router = router(issuer.clone());
    let service = move |request| handle(router.clone(), request);
    Ok(run_service(&listen, at.path(), GRACE, service, move || issuer.metrics()).await?)
}

/// The keys, one of which is for this hour.
fn load(keys: &Path) -> Result<Epochs> {
    let epochs = Epochs::load(keys)?;
    if epochs.current(now()?).is_none() {
        bail!("there is no key for this hour: make one with `cloister-issuer new-key`, and log it");
    }
    Ok(epochs)
}

/// Reads the keys again from time to time; those that it has stay in use if that fails.
async fn reload(mut reloads: Reloads, issuer: Arc<Issuer>, keys: PathBuf) {
    loop {
        reloads.next().await;
        match load(&keys) {
            Ok(epochs) => issuer.set_epochs(epochs),
            Err(error) => eprintln!("error: {error:#}; the keys that were read before stay in use"),
        }
    }
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
