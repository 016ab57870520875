//! The entry of a key that everyone is to be given.

use crate::failure::Failure;
use clap::Args;
use std::fs;
use std::path::PathBuf;
use transparency::entry::{Entry, Kind, Name, PublicKey, Subject, Version};

/// A key, its kind and name, and its time.
#[derive(Args)]
pub struct KeyArguments {
    /// Append a key: the file that holds it as its protocol encodes it, such as a gateway's `.ohttp-keys`.
    #[arg(long, requires = "kind", requires = "name", requires = "version", requires = "hours")]
    key: Option<PathBuf>,
    /// What the key is: `ohttp-key` or `issuer-key`.
    #[arg(long, requires = "key", value_parser = key_kind)]
    kind: Option<Kind>,
    /// Whose key it is, such as the host's name.
    #[arg(long, requires = "key")]
    name: Option<Name>,
    /// What the key is for. By default `gateway` for an OHTTP key and `token-issuer` for an issuer's.
    #[arg(long = "key-role", requires = "key")]
    key_role: Option<Name>,
    /// The key's version, higher than that of the key before it.
    #[arg(long, requires = "key")]
    version: Option<Version>,
    /// Start of its use, in seconds since 1970; now, if it is not given.
    #[arg(long, requires = "key")]
    not_before: Option<u64>,
    /// Hours for which it is used.
    #[arg(long, requires = "key", value_parser = clap::value_parser!(u64).range(1..=24 * 366))]
    hours: Option<u64>,
}

fn key_kind(text: &str) -> Result<Kind, String> {
    crate::kind(text)
        .ok()
        .filter(|kind| matches!(kind, Kind::OhttpKey | Kind::IssuerKey))
        .ok_or_else(|| "ohttp-key or issuer-key".into())
}

impl KeyArguments {
    /// The entry, if a key is given.
    pub fn entry(&self, now: u64) -> Result<Option<Entry>, Failure> {
        let Self {
            key: Some(path),
            kind: Some(kind),
            name: Some(name),
            version: Some(version),
            hours: Some(hours),
            ..
        } = self
        else {
            return Ok(None);
        };
        let key = fs::read(path).map_err(|source| Failure::File { path: path.into(), source })?;
        let not_before = self.not_before.unwrap_or(now);
        let public = PublicKey { key, not_before, not_after: not_before.saturating_add(hours * 3600) };
        let (role, subject) = match kind {
            Kind::IssuerKey => ("token-issuer", Subject::IssuerKey(public)),
            _ => ("gateway", Subject::OhttpKey(public)),
        };
        let role = match &self.key_role {
            Some(role) => role.clone(),
            None => role
                .parse()
                .map_err(|error| Failure::Entry { path: path.into(), problem: format!("{error}") })?,
        };
        Ok(Some(Entry { name: name.clone(), role, version: *version, previous: None, subject }))
    }
}
