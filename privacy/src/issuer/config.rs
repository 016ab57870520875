//! `issuer.toml`, which is in the issuer's folder with all that it refers to.

use super::epochs::{EPOCH_HOURS, Schedule};
use crate::file::{self, FileError};
use crate::serve::Listen;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use transparency::entry::Name;

/// The file in the issuer's folder.
pub const FILE: &str = "issuer.toml";

const fn cap() -> u32 {
    256
}

const fn epoch_hours() -> u64 {
    7 * 24
}

const fn overlap_hours() -> u64 {
    24
}

/// How an issuer is set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its name: that of its key in the log, and in every challenge.
    pub name: Name,
    /// Most tokens of an account in an epoch.
    #[serde(default = "cap")]
    pub cap: u32,
    /// Hours for which tokens are issued under a key.
    #[serde(default = "epoch_hours")]
    pub epoch_hours: u64,
    /// Hours for which a key's tokens are good after its epoch.
    #[serde(default = "overlap_hours")]
    pub overlap_hours: u64,
    /// Accounts that an OpenID Connect provider vouches for; without it, those of `accounts.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<super::oidc::Config>,
    /// Where it listens, with TLS; without it, on this machine only.
    #[serde(default, skip_serializing)]
    pub listen: Option<Listen>,
}

/// An issuer's folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// This folder.
    pub fn new(path: &Path) -> Self {
        Self(path.into())
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.0.join(FILE)
    }

    /// The keys.
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    /// The static accounts.
    pub fn accounts(&self) -> PathBuf {
        self.0.join("accounts.toml")
    }

    /// The counts of issued tokens.
    pub fn quota(&self) -> PathBuf {
        self.0.join("quota.redb")
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a folder with a configuration.
    pub fn create(&self, config: &Config) -> Result<(), FileError> {
        let path = self.config();
        let text = toml::to_string_pretty(config).map_err(|error| FileError::format(&path, error))?;
        fs::create_dir_all(self.keys()).map_err(FileError::io(&path))?;
        file::create(&path, text.as_bytes()).map_err(FileError::io(&path))
    }

    /// Reads the configuration.
    pub fn load(&self) -> Result<Config, FileError> {
        let path = self.config();
        let text = fs::read_to_string(&path).map_err(FileError::io(&path))?;
        let config: Config = toml::from_str(&text).map_err(|error| FileError::format(&path, error))?;
        if config.cap == 0
            || !EPOCH_HOURS.contains(&config.epoch_hours)
            || config.overlap_hours >= config.epoch_hours
        {
            return Err(FileError::format(
                &path,
                "`cap` is at least 1, `epoch_hours` 1 to 744, `overlap_hours` below it",
            ));
        }
        Ok(config)
    }
}

impl Config {
    /// How long keys are used.
    pub const fn schedule(&self) -> Schedule {
        Schedule { epoch_hours: self.epoch_hours, overlap_hours: self.overlap_hours }
    }
}
