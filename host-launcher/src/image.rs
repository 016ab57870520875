//! The files that a guest starts from, checked as far as the launcher can know them.
//!
//! Whether the weights are those of the manifest is for the guest to say: nobody need trust the launcher.

use crate::failure::Failure;
use attestation::manifest::Manifest;
use image_builder::container::Container;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// An image and its weights, ready to start.
#[derive(Debug)]
pub struct Image {
    /// The ROM or IGVM file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether it is an IGVM file.
    pub is_igvm: bool,
    /// The manifest that is measured with it.
    pub manifest: Manifest,
    /// The weights' file, by its absolute path.
    pub weights: PathBuf,
}

impl Image {
    /// Reads the image and makes sure that the weights can be read.
    pub fn open(path: &Path, weights: &Path) -> Result<Self, Failure> {
        let bytes =
            fs::read(path).map_err(|source| Failure::Read { what: "image", path: path.into(), source })?;
        if bytes.is_empty() {
            return Err(Failure::Empty { what: "image", path: path.into() });
        }
        let broken = |source| Failure::Image { path: path.into(), source };
        let container = Container::parse(&bytes).map_err(broken)?;
        let is_igvm = matches!(container, Container::Igvm(_));
        let manifest = container.manifest().map_err(broken)?;

        let unreadable = |source| Failure::Read { what: "weights", path: weights.into(), source };
        let metadata = File::open(weights).and_then(|file| file.metadata()).map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() == 0 {
            return Err(Failure::Empty { what: "weights", path: weights.into() });
        }
        let weights = fs::canonicalize(weights).map_err(unreadable)?;
        Ok(Self { path: path.into(), bytes, is_igvm, manifest, weights })
    }

    /// The guest's vCPUs: the manifest's, or more if asked for, which the guest leaves alone.
    pub fn vcpus(&self, asked: Option<u32>) -> Result<u32, Failure> {
        let needed = self.manifest.machine.vcpus;
        match asked {
            Some(given) if given < needed => Err(Failure::Vcpus { given, needed }),
            Some(given) => Ok(given),
            None => Ok(needed),
        }
    }

    /// The guest's RAM: the manifest's, or more if asked for.
    pub fn memory_mib(&self, asked: Option<u32>) -> Result<u32, Failure> {
        let needed = self.manifest.machine.memory_mib;
        match asked {
            Some(given) if given < needed => Err(Failure::Memory { given, needed }),
            Some(given) => Ok(given),
            None => Ok(needed),
        }
    }
}
