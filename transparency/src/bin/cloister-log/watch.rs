//! `cloister-log watch`.

use crate::commands::read_trust;
use crate::failure::Failure;
use clap::Args;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use transparency::entry::Name;
use transparency::log::reader::Reader;
use transparency::log::store::Store;
use transparency::monitor::{Memory, Monitor, MonitorError, Report};

/// Which log, and what of it.
#[derive(Args)]
pub struct Watch {
    /// URL of the log.
    #[arg(long, required_unless_present = "folder", conflicts_with = "folder")]
    url: Option<String>,
    /// Folder of the log's files, in place of a URL.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// File with a `[log]` section: origin, keys, witnesses.
    #[arg(long)]
    trust: PathBuf,
    /// What was seen so far; made at the first run. Without it every run starts from nothing.
    #[arg(long)]
    memory: Option<PathBuf>,
    /// Report only entries of this name. All are checked.
    #[arg(long)]
    name: Option<Name>,
    /// Go on, and look again every so many seconds, until stopped.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
    /// Print each entry as a line of JSON.
    #[arg(long)]
    json: bool,
}

/// Follows a log.
pub async fn watch(arguments: Watch) -> Result<(), Failure> {
    let trust = read_trust(&arguments.trust)?;
    let log = match (&arguments.url, &arguments.folder) {
        (Some(url), _) => Reader::http(url)?,
        (None, folder) => Reader::Store(Store::folder(folder.as_deref().unwrap_or(Path::new(".")))?),
    };
    let mut monitor = Monitor::new(trust, remembered(arguments.memory.as_deref())?)?;
    loop {
        let mut alarms = 0;
        let mut written = Ok(());
        let followed = monitor.follow(&log, |report| {
            alarms += usize::from(!report.alarms.is_empty());
            let wanted = arguments.name.as_ref().is_none_or(|name| {
                !report.alarms.is_empty() || report.entry.as_ref().is_some_and(|entry| entry.name == *name)
            });
            if wanted && written.is_ok() {
                written = show(&report, arguments.json);
            }
        });
        match followed.await {
            Ok(signed) => {
                written?;
                if let Some(path) = &arguments.memory {
                    remember(path, &monitor)?;
                }
                eprintln!("{}: {} entries, consistent", signed.checkpoint.origin, signed.checkpoint.size);
            }
            // Whoever only waits for news outlives an hour without network.
            Err(error @ MonitorError::Read(_)) if arguments.every.is_some() => eprintln!("note: {error}"),
            Err(error) => return Err(error.into()),
        }
        match arguments.every {
            _ if alarms > 0 => return Err(Failure::Alarms(alarms)),
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => return Ok(()),
        }
    }
}

fn remembered(path: Option<&Path>) -> Result<Memory, Failure> {
    let Some(path) = path else { return Ok(Memory::default()) };
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| MonitorError::Memory(format!("{}: {error}", path.display())).into()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Memory::default()),
        Err(source) => Err(Failure::File { path: path.into(), source }),
    }
}

/// Replaces the memory whole.
fn remember(path: &Path, monitor: &Monitor) -> Result<(), Failure> {
    let failed = |source| Failure::File { path: path.into(), source };
    let bytes = serde_json::to_vec(monitor.memory()).map_err(|error| failed(error.into()))?;
    let new = path.with_extension("new");
    let written = fs::File::create(&new).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    });
    written.map_err(failed)
}

fn show(report: &Report, json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if json {
        let line = serde_json::to_string(report).map_err(std::io::Error::from)?;
        writeln!(out, "{line}")?;
    } else {
        let about = report.entry.as_ref().map_or_else(
            || "not an entry".to_owned(),
            |e| format!("{} {} {} for {}", e.kind(), e.name, e.version, e.role),
        );
        writeln!(out, "{} {} {about}", report.index, hex::encode(report.leaf))?;
        for alarm in &report.alarms {
            writeln!(out, "  ALARM: {alarm}")?;
        }
    }
    Ok(())
}
