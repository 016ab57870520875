//! Whose builds count: `builders.toml`.
//!
//! ```toml
//! # How many builders must have made the same; at least 2.
//! threshold = 2
//!
//! [[builder]]
//! key = "builder.example/a+…"
//!
//! [[builder]]
//! key = "other.example/b+…"
//! ```

use serde::Deserialize;
use transparency::key::{Algorithm, VerifierKey};

/// Fewest builders that may be asked for: one machine's word is what this is there to replace.
const LEAST: usize = 2;

/// Why a `builders.toml` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildersError {
    /// Not of the form.
    #[error("{0}")]
    Format(String),
    /// It asks for one builder, or for more than it names.
    #[error(
        "`threshold` is {threshold}; it must be at least {LEAST} and at most the number of builders, {builders}"
    )]
    Threshold {
        /// What it asks for.
        threshold: usize,
        /// Builders it names.
        builders: usize,
    },
    /// A builder is listed twice: it would agree with itself.
    #[error(
        "the builder {0} is listed twice, or has the key of another; each needs a name and a key of its own"
    )]
    Repeated(String),
    /// A key that signs cosignatures.
    #[error("the key of the builder {0} is not a plain Ed25519 key; make one with `cloister-image key`")]
    Algorithm(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    threshold: usize,
    #[serde(rename = "builder", default)]
    builders: Vec<Builder>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Builder {
    key: VerifierKey,
}

/// Whose builds count, checked: there are at least two, and none counts twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Builders {
    keys: Vec<VerifierKey>,
    threshold: usize,
}

impl Builders {
    /// Reads the text of a `builders.toml`.
    pub fn parse(text: &str) -> Result<Self, BuildersError> {
        let file: File = toml::from_str(text).map_err(|error| BuildersError::Format(error.to_string()))?;
        let keys: Vec<VerifierKey> = file.builders.into_iter().map(|builder| builder.key).collect();
        for (at, key) in keys.iter().enumerate() {
            if key.algorithm() != Algorithm::Ed25519 {
                return Err(BuildersError::Algorithm(key.name().into()));
            }
            if keys[..at].iter().any(|other| other.name() == key.name() || other.same_material(key)) {
                return Err(BuildersError::Repeated(key.name().into()));
            }
        }
        let (threshold, builders) = (file.threshold, keys.len());
        if !(LEAST..=builders).contains(&threshold) {
            return Err(BuildersError::Threshold { threshold, builders });
        }
        Ok(Self { keys, threshold })
    }

    /// Their keys.
    pub fn keys(&self) -> &[VerifierKey] {
        &self.keys
    }

    /// How many must agree.
    pub const fn threshold(&self) -> usize {
        self.threshold
    }
}
