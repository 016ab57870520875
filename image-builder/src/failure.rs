//! What can go wrong, and the exit code for each class.

use image_builder::audit::AuditError;
use image_builder::container::ContainerError;
use image_builder::freestanding::BuildError;
use image_builder::igvm;
use image_builder::rom::RomError;
use image_builder::source::SourceError;
use image_builder::tcb::{BudgetError, TcbError};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The default manifest cannot be found.
    #[error("the default manifest is in the checkout, and this is not one; name a manifest with --manifest")]
    NoCheckout,
    /// The kernel could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The manifest or the weights are unusable.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The kernel does not make a ROM.
    #[error(transparent)]
    Rom(#[from] RomError),
    /// The kernel does not make an IGVM file.
    #[error(transparent)]
    Igvm(#[from] igvm::BuildError),
    /// The file is not an image of this project.
    #[error("{path} cannot be measured: {source}")]
    Image {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ContainerError,
    },
    /// The image could not be rebuilt.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The rebuilt image is another one.
    #[error(
        "the rebuilt image differs from {0}; if the source is the right one, do not trust the published image"
    )]
    Different(PathBuf),
    /// The TCB report cannot be made.
    #[error(transparent)]
    Tcb(#[from] TcbError),
    /// The image is outside its budget.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// The source has changes that no commit holds.
    #[error(
        "the checkout has changes that are not committed (or git cannot say): {0}; commit them, and build again"
    )]
    NotCommitted(String),
    /// The rebuilt ROM is not the one that a statement was asked for.
    #[error("{0} is not what this checkout builds; build it again with `cloister-image build`")]
    NotBuiltHere(PathBuf),
    /// A file cannot be read.
    #[error("{path} cannot be read: {source}; check the path")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{path} cannot be written: {source}; choose another folder with --out")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Failure {
    /// The exit code of its class, as `--help` lists them.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Build(_) => 3,
            Self::NoCheckout => 4,
            Self::Source(SourceError::Weights { .. } | SourceError::Gguf { .. }) => 5,
            Self::Source(_) => 4,
            Self::Rom(RomError::Manifest(_)) | Self::Igvm(igvm::BuildError::Manifest(_)) => 4,
            Self::Rom(_) | Self::Igvm(_) | Self::Image { .. } => 6,
            Self::Tcb(TcbError::Source(_)) => 4,
            Self::Tcb(TcbError::Rom(_) | TcbError::Kernel(_)) => 6,
            Self::Tcb(TcbError::Read { .. }) => 7,
            Self::Tcb(_) => 3,
            Self::NotCommitted(_) => 4,
            Self::NotBuiltHere(_) => 9,
            Self::Budget(_) => 8,
            Self::Different(_) => 9,
            Self::Audit(AuditError::File { .. } | AuditError::NotClean(_) | AuditError::NoVendor(_)) => 7,
            Self::Audit(_) => 3,
            Self::Read { .. } | Self::Write { .. } => 7,
        })
    }
}
