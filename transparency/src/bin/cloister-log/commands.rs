//! What the subcommands do.

use crate::failure::Failure;
use crate::{Command, image, watch};
use clap::Args;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use transparency::entry::{Entry, Kind, Name, Revoked};
use transparency::key::SignerKey;
use transparency::log::config::{Config, ConfigFile, WitnessAt};
use transparency::log::{PublishError, Signed, Writer, unix_now, with_witnesses};
use transparency::merkle::Hash;
use transparency::serve;
use transparency::trust::{Accept, Trust, TrustFile};
use transparency::verify::verify;
use transparency::witness::WatchedLog;

/// What is appended.
#[derive(Args)]
pub struct Append {
    /// `log.toml`.
    #[arg(long)]
    config: PathBuf,
    /// Append an image: the `digests.json` that `cloister-image build` wrote.
    #[arg(long, requires = "commit", requires = "files")]
    digests: Option<PathBuf>,
    /// A file that is published with the image; once for each.
    #[arg(long = "file")]
    files: Vec<PathBuf>,
    /// Log only the launch digests for this number of vCPUs, such as the one that the image's manifest asks for; once for
    /// each. Fewer digests make a shorter proof, which fits beside a host's certificates. Without it, all are logged.
    #[arg(long)]
    vcpus: Vec<u32>,
    /// What the image is for.
    #[arg(long, default_value = "guest")]
    role: Name,
    /// The commit that the image was built from, in hex.
    #[arg(long)]
    commit: Option<String>,
    /// Append the entries of a JSON file: one, or a list of them.
    #[arg(long = "entry", required_unless_present_any = ["digests", "key"])]
    entries: Vec<PathBuf>,
    #[command(flatten)]
    key: crate::key::KeyArguments,
    /// Sign only; publish later, with `cloister-log publish`.
    #[arg(long)]
    no_publish: bool,
}

/// A file with a `[log]` section; the rest of it is somebody else's.
#[derive(Deserialize)]
struct WithLog {
    log: Trust,
}

/// Runs a command.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Init { folder, origin, storage, witnesses, threshold } => {
            init(&folder, &origin, &storage, &witnesses, threshold).await
        }
        Command::Append(arguments) => append(arguments).await,
        Command::Revoke { config, leaf, reason } => revoke(&config, &leaf, reason).await,
        Command::Publish { config, refresh } => {
            let mut writer = Writer::open(Config::load(&config)?).await?;
            if refresh {
                writer.revoke(Vec::new()).await?;
            }
            publish(&mut writer).await
        }
        Command::Prove { config, kind, name, role, index, witnesses, out, publish } => {
            let writer = Writer::open(Config::load(&config)?).await?;
            let newest = writer.newest(kind, &name, &role);
            let index =
                index.or(newest).ok_or_else(|| Failure::NoEntry(format!("{kind} {name} for {role}")))?;
            let mut proof = writer.prove(index).await?;
            if let Some(count) = witnesses {
                let trust = &writer.config().trust;
                proof.checkpoint = with_witnesses(&proof.checkpoint, trust, count)
                    .map_err(|refused| PublishError::Witnesses { refused, failures: Vec::new() })?;
            }
            let proof = proof.encode();
            if publish {
                let path = format!("{}/{name}.tlog-proof", serve::PROOFS);
                writer.config().store.write(vec![(path, proof.clone().into_bytes())]).await?;
            }
            match out {
                Some(out) => fs::write(&out, proof).map_err(|source| Failure::File { path: out, source }),
                None if publish => Ok(()),
                None => {
                    print!("{proof}");
                    Ok(())
                }
            }
        }
        Command::Verify { trust, kind, proof } => check(&trust, kind, &proof),
        Command::Trust { config, accept, max_age_hours } => {
            let trusted = Config::load(&config)?.trust.file().clone();
            let accept = accept.into_iter().map(|(kind, name, role, minimum_version)| Accept {
                kind,
                name,
                role,
                minimum_version,
                minimum_revocations: 0,
            });
            print_trust(TrustFile { accept: accept.collect(), max_age_hours, ..trusted }, &config)
        }
        Command::Serve { config, listen } => {
            let store = Config::load(&config)?.store;
            let failed = |source| Failure::Listen { address: listen.clone(), source };
            let listener = tokio::net::TcpListener::bind(&listen).await.map_err(failed)?;
            println!("listening on {}", listener.local_addr()?);
            Ok(serve::run(listener, serve::log(store)).await?)
        }
        Command::Watch(arguments) => watch::watch(arguments).await,
    }
}

/// Reads a TOML file.
pub fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = fs::read_to_string(path).map_err(|source| Failure::File { path: path.into(), source })?;
    toml::from_str(&text).map_err(|error| Failure::Format { path: path.into(), problem: error.to_string() })
}

/// Reads the `[log]` section of a file.
pub fn read_trust(path: &Path) -> Result<Trust, Failure> {
    Ok(read_toml::<WithLog>(path)?.log)
}

fn print_trust(log: TrustFile, config: &Path) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Section {
        log: TrustFile,
    }
    let text = toml::to_string_pretty(&Section { log });
    print!("{}", text.map_err(|e| Failure::Format { path: config.into(), problem: e.to_string() })?);
    Ok(())
}

async fn init(
    folder: &Path,
    origin: &str,
    storage: &str,
    witnesses: &[PathBuf],
    threshold: usize,
) -> Result<(), Failure> {
    let witnesses = witnesses.iter().map(|path| read_toml::<WitnessAt>(path)).collect::<Result<_, _>>()?;
    let config = ConfigFile::create(folder, origin, storage, witnesses, threshold)?;
    let keys = config.keys.iter().map(SignerKey::public).cloned().collect();
    Writer::create(config, unix_now()).await?;
    let path = folder.join("public.toml");
    let public = toml::to_string_pretty(&WatchedLog { origin: origin.into(), keys });
    let public = public.map_err(|e| Failure::Format { path: path.clone(), problem: e.to_string() })?;
    fs::write(&path, public).map_err(|source| Failure::File { path: path.clone(), source })?;
    println!("{}", path.display());
    Ok(())
}

async fn append(arguments: Append) -> Result<(), Failure> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMore {
        One(Box<Entry>),
        More(Vec<Entry>),
    }
    let mut entries = Vec::new();
    if let Some(digests) = &arguments.digests {
        let commit = arguments.commit.as_deref().unwrap_or_default();
        entries.push(image::entry(digests, &arguments.files, &arguments.vcpus, arguments.role, commit)?);
    }
    entries.extend(arguments.key.entry(unix_now())?);
    for path in &arguments.entries {
        let text = fs::read_to_string(path).map_err(|source| Failure::File { path: path.into(), source })?;
        let read: Result<OneOrMore, _> = serde_json::from_str(&text);
        match read.map_err(|error| Failure::Entry { path: path.into(), problem: error.to_string() })? {
            OneOrMore::One(entry) => entries.push(*entry),
            OneOrMore::More(more) => entries.extend(more),
        }
    }
    let mut writer = Writer::open(Config::load(&arguments.config)?).await?;
    let appended = writer.append(entries).await?;
    report(&appended);
    if arguments.no_publish { Ok(()) } else { publish(&mut writer).await }
}

fn report(appended: &[Signed]) {
    for Signed { index, leaf } in appended {
        println!("appended {index} {}", hex::encode(leaf));
    }
}

async fn publish(writer: &mut Writer) -> Result<(), Failure> {
    for failure in writer.publish().await? {
        eprintln!("note: {failure}");
    }
    println!("published {}", writer.checkpoint().size);
    Ok(())
}

async fn revoke(config: &Path, leaf: &str, reason: Name) -> Result<(), Failure> {
    let mut hash = Hash::default();
    hex::decode_to_slice(leaf, &mut hash)
        .map_err(|error| Failure::Entry { path: "--leaf".into(), problem: error.to_string() })?;
    let mut writer = Writer::open(Config::load(config)?).await?;
    let appended = writer.revoke(vec![Revoked { leaf: hash, reason }]).await?;
    report(&appended);
    publish(&mut writer).await
}

fn check(trust: &Path, kind: Kind, proof: &Path) -> Result<(), Failure> {
    let trust = read_trust(trust)?;
    let text = fs::read(proof).map_err(|source| Failure::File { path: proof.into(), source })?;
    let logged = verify(&text, kind, &trust, SystemTime::now())?;
    let (entry, witnesses) = (&logged.entry, logged.witnessed.witnesses.join(", "));
    println!(
        "{} {} {} for {}: entry {} of {} in {}, cosigned by {witnesses}, not revoked (list {})",
        entry.kind(),
        entry.name,
        entry.version,
        entry.role,
        logged.index,
        logged.size,
        trust.origin(),
        logged.revocations
    );
    Ok(())
}
