//! Why a guest was not started.

use image_builder::container::ContainerError;
use image_builder::freestanding::BuildError;
use snp_model::bundle::BundleError;
use std::io;
use std::net::SocketAddrV4;
use std::path::PathBuf;

/// Why a guest was not started.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A file cannot be read.
    #[error("the {what} {path} cannot be read: {source}; check the path")]
    Read {
        /// `image`, `weights` or `proof`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file has nothing in it, or is no file.
    #[error("the {what} {path} is empty or is not a file; give the file that the image was built with")]
    Empty {
        /// `image` or `weights`.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The image is neither a ROM nor an IGVM file of this project.
    #[error("the image {path} cannot be started: {source}")]
    Image {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ContainerError,
    },
    /// Less memory than the image was measured for.
    #[error("--memory {given} is less than the {needed} MiB of the image's manifest; leave --memory out")]
    Memory {
        /// What was asked for.
        given: u32,
        /// What the manifest says.
        needed: u32,
    },
    /// Fewer vCPUs than the image was measured for.
    #[error("--vcpus {given} is less than the {needed} vCPUs of the image's manifest; leave --vcpus out")]
    Vcpus {
        /// What was asked for.
        given: u32,
        /// What the manifest says.
        needed: u32,
    },
    /// The address cannot be listened on.
    #[error(
        "{address} cannot be listened on: {source}; choose another port with --listen, or end the program that has it"
    )]
    Listen {
        /// The address.
        address: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
    /// QEMU is not installed.
    #[error("`{program}` was not found; install QEMU (Debian and Ubuntu: apt install qemu-system-x86)")]
    NoQemu {
        /// The program.
        program: String,
    },
    /// QEMU is there but cannot be started.
    #[error("`{program}` could not be started: {source}")]
    Qemu {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The host cannot run SEV-SNP guests.
    #[error("this host cannot run SEV-SNP guests yet. Missing:\n{}\nOn any machine, `--platform model` runs the image without protection.", list(.0))]
    Host(Vec<String>),
    /// The SNP model could not be built.
    #[error(transparent)]
    Model(#[from] BuildError),
    /// The launch bundle cannot be made.
    #[error("the SNP model cannot be started: {0}")]
    Bundle(#[from] BundleError),
    /// The development chain cannot be made or read.
    #[error(
        "the development key chain in {path} cannot be used: {reason}; delete the folder, or choose another with --state"
    )]
    Development {
        /// Its folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Without these the launcher could not end QEMU when it is asked to.
    #[error("the handlers for SIGINT and SIGTERM cannot be set: {0}")]
    Signals(io::Error),
    /// A file for the run cannot be written.
    #[error("{path} cannot be written: {source}; choose another path")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn list(missing: &[String]) -> String {
    missing.iter().map(|line| format!("  - {line}")).collect::<Vec<_>>().join("\n")
}

impl Failure {
    /// The exit code of its class, as `--help` lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoQemu { .. } | Self::Qemu { .. } | Self::Host(_) => 3,
            Self::Read { .. }
            | Self::Empty { .. }
            | Self::Image { .. }
            | Self::Memory { .. }
            | Self::Vcpus { .. }
            | Self::Bundle(_) => 4,
            Self::Listen { .. } => 5,
            Self::Model(_) | Self::Development { .. } => 6,
            Self::Write { .. } | Self::Signals(_) => 7,
        }
    }
}
