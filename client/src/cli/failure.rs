//! Everything that can end a command, with its exit code.

use client::export::ExportError;
use client::policy::PolicyError;
use client::session::SessionError;
use client::way::OpenError;
use privacy::transport::TransportError;
use std::io;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The chat file cannot be opened.
    #[error("cannot read {path}: {source}")]
    ChatFile {
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The chat file is no chat.
    #[error("{path}: {source}")]
    Chat {
        /// The file.
        path: String,
        /// What it is instead.
        source: ExportError,
    },
    /// The policy, or what it is made from, cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The proof cannot be read.
    #[error("cannot read {path}: {source}")]
    ProofFile {
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Neither a way nor a server.
    #[error(
        "{0} has no [way] through a relay; add one, or connect to a guest directly with --server HOST:PORT"
    )]
    NoWay(std::path::PathBuf),
    /// The way to the guest.
    #[error(transparent)]
    Way(OpenError),
    /// The session.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The result has nowhere to go.
    #[error("cannot write the result: {0}")]
    Output(io::Error),
    /// The asynchronous runtime did not start.
    #[error("this device cannot start network operations: {0}")]
    Runtime(io::Error),
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Session(error) => Self::Session(error),
            other => Self::Way(other),
        }
    }
}

impl Failure {
    /// The exit code, as `--help` lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ChatFile { .. } | Self::Chat { .. } => 3,
            Self::Policy(_) | Self::ProofFile { .. } | Self::NoWay(_) => 4,
            Self::Way(
                OpenError::Read { .. } | OpenError::Format { .. } | OpenError::Way(_) | OpenError::Config(_),
            ) => 4,
            Self::Way(OpenError::Key(_)) => 6,
            Self::Way(OpenError::Supply(_) | OpenError::Session(_)) => 5,
            Self::Session(error) => match error {
                SessionError::Connect { .. } | SessionError::Handshake { .. } => 5,
                SessionError::Way(TransportError::Truncated | TransportError::Malformed) => 8,
                SessionError::Way(_) => 5,
                SessionError::Evidence(_) | SessionError::Proof(_) => 6,
                SessionError::Refused { .. } => 7,
                SessionError::Broken | SessionError::Silent(_) | SessionError::Malformed => 8,
                SessionError::Random => 9,
            },
            Self::Output(_) | Self::Runtime(_) => 9,
        }
    }
}
