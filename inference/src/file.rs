//! Models in files, for the programs that run on a host: packed while they are read.
use crate::error::LoadError;
use crate::gguf;
use crate::kernels::Isa;
use crate::model::{Model, Weights};
use crate::workers::Workers;
use core::fmt;
use memmap2::{Advice, MmapMut};
use std::boxed::Box;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::vec::Vec;

/// How much of a file is read to find everything but its tensors' data, at first. Vocabularies take some megabytes.
const HEADER: usize = 4 << 20;

/// A GGUF file of which everything has been read but its matrices.
#[derive(Debug)]
pub struct ModelFile {
    file: File,
    bytes: MmapMut,
}

/// Why a file gave no model.
#[derive(Debug)]
pub enum FileError {
    /// It could not be read.
    Io(io::Error),
    /// What it holds was refused.
    Load(LoadError),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the file cannot be read: {error}"),
            Self::Load(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for FileError {}

impl ModelFile {
    /// Opens a file. What it holds is judged when it is parsed or loaded.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        // Zeros, which cost nothing before they are written to. Large pages are had much faster than small ones, and
        // the processor finds them faster; a system that has none gives small ones.
        let mut bytes = MmapMut::map_anon(length.max(1))?;
        let _ = bytes.advise(Advice::HugePage);
        let (mut read, mut wanted) = (0, length.min(HEADER));
        loop {
            file.read_exact_at(&mut bytes[read..wanted], read as u64)?;
            read = wanted;
            // The description of tensors ends before the first tensor begins.
            let places = gguf::File::parse(&bytes).map(|file| places(&file, &bytes));
            let complete = |places: &Vec<_>| places.iter().all(|(_, start, _)| *start <= read);
            if let Some(places) = places.ok().filter(complete) {
                for (_, start, end) in places.into_iter().filter(|(rank, _, end)| *rank == 1 && *end > read) {
                    file.read_exact_at(&mut bytes[start..end], start as u64)?;
                }
                break;
            }
            if read == length {
                break;
            }
            wanted = length.min(read * 4);
        }
        Ok(Self { file, bytes })
    }

    /// The file, with zeros for matrices.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads and packs the matrices. Their memory is kept until the process ends.
    ///
    /// # Errors
    /// When the file cannot be read, is broken, or asks for what is not supported.
    pub fn load(self, isa: Isa, workers: &impl Workers) -> Result<Model<'static>, FileError> {
        let Self { file, bytes } = self;
        let failed = Mutex::new(None);
        let bytes: &'static mut MmapMut = Box::leak(Box::new(bytes));
        let model = Model::fetch(Weights::Borrowed(bytes), isa, workers, &|start, to| {
            if let Err(error) = file.read_exact_at(to, start as u64) {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(FileError::Io(error)),
            None => model.map_err(FileError::Load),
        }
    }
}

/// Of each tensor the rank, where its data begin, and where they end.
fn places(file: &gguf::File<'_>, bytes: &[u8]) -> Vec<(usize, usize, usize)> {
    let place = |tensor: &gguf::Tensor<'_>| {
        let start = tensor.data().as_ptr() as usize - bytes.as_ptr() as usize;
        (tensor.dimensions().len(), start, start + tensor.data().len())
    };
    file.tensors().map(|(_, tensor)| place(tensor)).collect()
}

#[cfg(test)]
mod tests {
    use super::ModelFile;
    use crate::common::{SHAPE, Shape, model};
    use crate::gguf::TensorType;
    use crate::gguf::write::Writer;
    use crate::kernels::threads::Threads;
    use crate::{Isa, Model, SingleThread, logits};
    use std::format;
    use std::vec::Vec;

    /// Writes a file, and opens it.
    fn file(name: &str, bytes: &[u8]) -> ModelFile {
        let path = std::env::temp_dir().join(format!("cloister-{}-{name}.gguf", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let file = ModelFile::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    #[test]
    fn a_file_gives_the_model_that_its_bytes_give() {
        let shape = Shape { biases: true, tied: false, vocabulary: 301, ..SHAPE };
        for kind in [TensorType::Q8_0, TensorType::F16] {
            let bytes = model(shape, kind, 70).finish();
            let tokens: Vec<u32> = (0..20).collect();
            let expected = logits(&Model::load(&bytes).unwrap(), &tokens, &SingleThread).unwrap();
            for count in 1..4 {
                let threads = Threads::new(count).unwrap();
                let in_memory = Model::load_with(&bytes, Isa::best(), &threads).unwrap();
                let from_file = file("same", &bytes).load(Isa::best(), &threads).unwrap();
                assert_eq!(in_memory.weights()[4..], from_file.weights()[4..]);
                assert_eq!(logits(&from_file, &tokens, &threads).unwrap(), expected);
            }
        }
    }

    #[test]
    fn a_description_longer_than_what_is_read_first_is_read_to_its_end() {
        let mut long = model(SHAPE, TensorType::Q8_0, 71);
        long.set("general.description", &*"a".repeat(3 * super::HEADER));
        let bytes = long.finish();
        let opened = file("long", &bytes);
        assert!(opened.bytes()[..3 * super::HEADER] == bytes[..3 * super::HEADER]);
        let loaded = opened.load(Isa::best(), &SingleThread).unwrap();
        assert_eq!(loaded.weights()[4..], Model::load(&bytes).unwrap().weights()[4..]);
    }

    #[test]
    fn a_broken_file_is_refused_as_its_bytes_are() {
        let bytes = model(SHAPE, TensorType::Q8_0, 72).finish();
        for broken in [&bytes[..bytes.len() - 1], &bytes[..1000], b"GGUF", b"", &Writer::new().finish()] {
            let error = file("broken", broken).load(Isa::best(), &SingleThread).unwrap_err();
            assert_eq!(format!("{error}"), format!("{}", Model::load(broken).unwrap_err()));
        }
    }
}
