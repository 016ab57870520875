//! `gateway.toml`.

use anyhow::{Context, Result, ensure};
use privacy::gateway::{Limits, slices};
use privacy::keys::Mirror;
use privacy::serve::Listen;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use transparency::entry::Name;
use transparency::trust::Trust;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway's name in the log: tokens are made for it.
    pub name: Name,
    /// Folder of keys.
    pub keys: PathBuf,
    /// `HOST:PORT` of guests.
    #[serde(default)]
    pub guests: Vec<String>,
    /// A Service of Kubernetes whose endpoints are guests.
    pub kubernetes: Option<slices::Config>,
    pub listen: Listen,
    pub tokens: Tokens,
    /// What the issuer's key must be proven by.
    log: Option<Trust>,
    /// File with a `[log]` section in place of one here.
    trust: Option<PathBuf>,
    #[serde(default)]
    pub limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// The issuer's name in the log.
    pub issuer: Name,
    /// Where proofs of its keys come from. More than one key can be good at a time: give a mirror for each.
    pub key_mirrors: Vec<Mirror>,
    /// File of what was seen of keys so far.
    pub floors: PathBuf,
    /// URL of the store of spent tokens.
    pub spent: String,
}

impl Config {
    /// Reads it, and makes its paths those of its folder.
    pub fn load(path: &Path) -> Result<Self> {
        let mut config: Self = read(path)?;
        ensure!(
            !config.guests.is_empty() || config.kubernetes.is_some(),
            "{} names no guests: list some in `guests`, or name a Service in [kubernetes]",
            path.display()
        );
        let folder = path.parent().unwrap_or(Path::new("."));
        if let Some(file) = &config.trust {
            ensure!(config.log.is_none(), "{} has both `trust` and [log]: keep one", path.display());
            config.log = Some(read::<Trusted>(&folder.join(file))?.log);
        }
        config.keys = folder.join(&config.keys);
        config.tokens.floors = folder.join(&config.tokens.floors);
        for mirror in &mut config.tokens.key_mirrors {
            if let Mirror::File(file) = mirror {
                *file = folder.join(&file);
            }
        }
        if let Some(file) = config.tokens.spent.strip_prefix("redb:") {
            config.tokens.spent = format!("redb:{}", folder.join(file).display());
        }
        Ok(config)
    }

    /// What the issuer's key must be proven by.
    pub fn trust(&self) -> Result<&Trust> {
        self.log.as_ref().context("there is neither a [log] section nor `trust`, the file of one")
    }
}

#[derive(Deserialize)]
struct Trusted {
    log: Trust,
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not as it must be", path.display()))
}
