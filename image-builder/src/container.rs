//! An image in either of its containers, told apart by its first bytes.

use crate::digest::Launch;
use crate::firmware::{Firmware, FirmwareError};
use crate::igvm::{self, Igvm, IgvmError};
use attestation::manifest::Manifest;

/// Why a file is not an image that can be measured.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    /// It is no ROM of this project.
    #[error(transparent)]
    Rom(#[from] FirmwareError),
    /// It calls itself IGVM and is not one that QEMU and KVM start as it is written.
    #[error(transparent)]
    Igvm(#[from] IgvmError),
}

/// An image that was read and checked.
#[derive(Debug)]
pub enum Container<'a> {
    /// A ROM, for QEMU's `-bios`.
    Rom(Firmware<'a>),
    /// An IGVM file, for QEMU's `igvm-cfg`.
    Igvm(Igvm),
}

impl<'a> Container<'a> {
    /// Reads a file.
    pub fn parse(file: &'a [u8]) -> Result<Self, ContainerError> {
        if igvm::is_igvm(file) {
            return Ok(Self::Igvm(Igvm::parse(file)?));
        }
        Ok(Self::Rom(Firmware::parse(file)?))
    }

    /// Its name in `digests.json`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Rom(_) => "rom",
            Self::Igvm(_) => "igvm",
        }
    }

    /// The measured manifest.
    pub fn manifest(&self) -> Result<Manifest, ContainerError> {
        Ok(match self {
            Self::Rom(rom) => rom.manifest()?,
            Self::Igvm(igvm) => igvm.manifest()?,
        })
    }

    /// What of its launch does not depend on the vCPUs.
    pub fn launch(&self) -> Result<Launch, ContainerError> {
        Ok(match self {
            Self::Rom(rom) => Launch::of(rom)?,
            Self::Igvm(igvm) => Launch::of_igvm(igvm),
        })
    }
}
