//! An image in either container, as far as the launch goes.

use super::{Firmware, FirmwareError, Igvm, IgvmError, PageKind, Region, igvm, initial_vmsa, reset_vmsa};
use crate::{PAGE_BYTES, Page, cpu_type::CpuSignature};
use alloc::{boxed::Box, vec::Vec};
use core::fmt;

/// What a guest is launched from.
#[derive(Clone, Debug)]
pub enum Image<'a> {
    /// A ROM, as with QEMU's `-bios`.
    Rom(Firmware<'a>),
    /// An IGVM file, as with QEMU's `igvm-cfg`.
    Igvm(Igvm<'a>),
}

/// Why an image cannot be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// It is a ROM, and not a sound one.
    Rom(FirmwareError),
    /// It is an IGVM file, and not one that this loader takes.
    Igvm(IgvmError),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rom(error) => error.fmt(f),
            Self::Igvm(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ImageError {}

impl<'a> Image<'a> {
    /// Reads an image; its first bytes say which container it is.
    pub fn parse(file: &'a [u8]) -> Result<Self, ImageError> {
        if file.starts_with(&igvm::MAGIC) {
            return Igvm::parse(file).map(Self::Igvm).map_err(ImageError::Igvm);
        }
        Firmware::parse(file).map(Self::Rom).map_err(ImageError::Rom)
    }

    /// Bytes that are mapped below 4 GiB: all of a ROM, nothing of an IGVM file.
    pub const fn rom_bytes(&self) -> u64 {
        match self {
            Self::Rom(firmware) => firmware.rom().len() as u64,
            Self::Igvm(_) => 0,
        }
    }

    /// The guest policy, if the image has one; QEMU then takes it from there.
    pub const fn policy(&self) -> Option<u64> {
        match self {
            Self::Rom(_) => None,
            Self::Igvm(igvm) => Some(igvm.policy()),
        }
    }

    /// What the guest starts with in the order of the launch, and the contents of the regions that have any.
    pub fn regions(&self) -> Vec<(Region, &'a [u8])> {
        match self {
            Self::Rom(firmware) => {
                // Only the ROM itself comes with contents.
                let contents = |region: &Region| match region.kind {
                    PageKind::Normal => firmware.rom(),
                    _ => &[],
                };
                firmware.regions().iter().map(|region| (*region, contents(region))).collect()
            }
            Self::Igvm(igvm) => igvm.pages().collect(),
        }
    }

    /// The VMSA of vCPU `index`. QEMU takes the first one's from an IGVM file and sets up no other.
    pub fn vmsa(&self, index: u32, signature: CpuSignature) -> Box<Page> {
        match self {
            Self::Rom(firmware) => initial_vmsa(firmware, index, signature),
            Self::Igvm(igvm) if index == 0 => Box::new(*igvm.vmsa()),
            Self::Igvm(_) => reset_vmsa(super::RESET_VECTOR, signature),
        }
    }

    /// Refuses an image that needs more than `memory_mib` of RAM.
    pub fn check_memory(&self, memory_mib: u32) -> Result<(), ImageError> {
        match self {
            Self::Rom(firmware) => firmware.check_memory(memory_mib).map_err(ImageError::Rom),
            Self::Igvm(igvm) => igvm.check_memory(memory_mib).map_err(ImageError::Igvm),
        }
    }
}

/// Page `index` of a region's contents; nothing where it has none.
pub fn page_of(contents: &[u8], index: usize) -> Option<&[u8]> {
    contents.get(index * PAGE_BYTES..)?.get(..PAGE_BYTES)
}
