//! Everything that can end a command, with its exit code.

use std::io;
use std::path::PathBuf;
use transparency::log::config::ConfigError;
use transparency::log::reader::ReadError;
use transparency::log::store::StoreError;
use transparency::log::{AppendError, PublishError};
use transparency::monitor::MonitorError;
use transparency::trust::TrustError;
use transparency::verify::VerifyError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A file of the command line.
    #[error("cannot read or write {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that should describe an entry.
    #[error("{path}: {problem}")]
    Entry {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file that should hold a `[log]` section or a witness's keys.
    #[error("{path}: {problem}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Whom to trust.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Appending.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Publishing or proving.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Reading or writing the log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reading the log.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The proof.
    #[error("the proof was refused: {0}")]
    Proof(#[from] VerifyError),
    /// There is no entry of that name.
    #[error("the log has no {0}")]
    NoEntry(String),
    /// Following the log.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// Entries that no honest operator logs.
    #[error("{0} entries are not as they must be; see the lines above")]
    Alarms(usize),
    /// The network address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Standard output.
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The exit code, as `--help` lists them.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Entry { .. } | Self::NoEntry(_) => 3,
            Self::Append(error) => match error {
                AppendError::Entry(_)
                | AppendError::Version { .. }
                | AppendError::Previous(_)
                | AppendError::Revocations => 3,
                _ => 5,
            },
            Self::Format { .. } | Self::Config(_) | Self::Trust(_) => 4,
            Self::Proof(_) => 6,
            Self::Publish(PublishError::Witnesses { .. }) => 7,
            Self::Monitor(error) if error.is_misbehaviour() => 8,
            Self::Alarms(_) => 8,
            Self::File { .. }
            | Self::Publish(_)
            | Self::Store(_)
            | Self::Read(_)
            | Self::Monitor(_)
            | Self::Listen { .. }
            | Self::Output(_) => 5,
        }
    }
}
