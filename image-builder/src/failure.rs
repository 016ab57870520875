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
#[cfg(feature = "publish")]
use transparency::log::PublishError;

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
    /// Nothing says where the source is.
    #[error("name the source: --commit, --archive or --folder")]
    NoOrigin,
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
    /// A proof without anything to check it with.
    #[cfg(feature = "publish")]
    #[error(
        "a proof needs --trust FILE, a file with a `[log]` section that says which log and witnesses count"
    )]
    NoTrust,
    /// The proof of an entry.
    #[cfg(feature = "publish")]
    #[error("the proof was refused: {0}")]
    Proof(#[from] transparency::verify::VerifyError),
    /// A rebuilt image cannot be compared with an entry.
    #[cfg(feature = "publish")]
    #[error(transparent)]
    NotComparable(#[from] image_builder::audit::logged::NotComparable),
    /// A file of settings.
    #[cfg(feature = "publish")]
    #[error("{path}: {problem}")]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A key, or the log's configuration.
    #[cfg(feature = "publish")]
    #[error(transparent)]
    Config(#[from] transparency::log::config::ConfigError),
    /// A statement or an envelope was not signed.
    #[cfg(feature = "publish")]
    #[error(transparent)]
    NotSigned(#[from] image_builder::publish::statement::NotSigned),
    /// A commit that is no number.
    #[cfg(feature = "publish")]
    #[error("{0:?} is not a commit in hexadecimal; `git rev-parse HEAD` prints it")]
    Commit(String),
    /// The files of a build do not belong together.
    #[cfg(feature = "publish")]
    #[error("these are not the files of one build: {0}; build again with `cloister-image build`")]
    Together(String),
    /// A statement is none.
    #[cfg(feature = "publish")]
    #[error("{path} is not a builder's statement: {source}")]
    Note {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: transparency::note::NoteError,
    },
    /// Nobody vouched for an entry.
    #[cfg(feature = "publish")]
    #[error(
        "the log keeps no builders' statements about this entry; it was appended by hand, without `cloister-image publish`"
    )]
    NotVouched,
    /// The builders vouched for something else.
    #[cfg(feature = "publish")]
    #[error("what the builders signed is not the entry: {0}")]
    OtherEntry(image_builder::publish::difference::Difference),
    /// The log cannot be read.
    #[cfg(feature = "publish")]
    #[error(transparent)]
    Log(#[from] transparency::log::reader::ReadError),
    /// The builders do not agree.
    #[cfg(feature = "publish")]
    #[error(transparent)]
    Refused(#[from] image_builder::publish::agree::Refused),
    /// A file that is to go out and that no builder made.
    #[cfg(feature = "publish")]
    #[error("{0} is not among the files that the builders vouch for; publish what they built")]
    OtherFile(PathBuf),
    /// A file with a name that an entry cannot hold.
    #[cfg(feature = "publish")]
    #[error("{0} has a name that an entry cannot hold: letters, digits, dots, dashes and underscores only")]
    FileName(PathBuf),
    /// The log refused the entry.
    #[cfg(feature = "publish")]
    #[error(transparent)]
    Append(#[from] transparency::log::AppendError),
    /// The log could not be published.
    #[cfg(feature = "publish")]
    #[error(transparent)]
    Publish(#[from] transparency::log::PublishError),
    /// The system gives no threads.
    #[cfg(feature = "publish")]
    #[error("this machine cannot start the program: {0}")]
    Runtime(io::Error),
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
            Self::NoOrigin => 2,
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
            #[cfg(feature = "publish")]
            Self::NoTrust | Self::Commit(_) => 2,
            #[cfg(feature = "publish")]
            Self::Together(_) | Self::NotComparable(_) => 6,
            #[cfg(feature = "publish")]
            Self::FileName(_) | Self::Runtime(_) => 7,
            #[cfg(feature = "publish")]
            Self::Note { .. }
            | Self::NotVouched
            | Self::OtherEntry(_)
            | Self::Refused(_)
            | Self::OtherFile(_) => 10,
            #[cfg(feature = "publish")]
            Self::Settings { .. } | Self::Config(_) | Self::NotSigned(_) => 11,
            #[cfg(feature = "publish")]
            Self::Proof(_) => 12,
            #[cfg(feature = "publish")]
            Self::Publish(PublishError::Witnesses { .. }) => 14,
            #[cfg(feature = "publish")]
            Self::Append(_) | Self::Publish(_) | Self::Log(_) => 13,
        })
    }
}
