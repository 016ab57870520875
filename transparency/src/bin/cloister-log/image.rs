//! An image's entry from the files that `cloister-image build` wrote.

use crate::failure::Failure;
use std::fs;
use std::path::{Path, PathBuf};
use transparency::entry::{Entry, File, Name};

/// The entry of an image; `files` are what is published of it, `vcpus` the machines that it is logged for (none: all).
pub fn entry(
    digests: &Path,
    files: &[PathBuf],
    vcpus: &[u32],
    role: Name,
    commit: &str,
) -> Result<Entry, Failure> {
    let text =
        fs::read_to_string(digests).map_err(|source| Failure::File { path: digests.into(), source })?;
    let refuse = |problem: String| Failure::Entry { path: digests.into(), problem };
    let commit = hex::decode(commit).map_err(|error| refuse(format!("--commit: {error}")))?;
    let files = files.iter().map(|path| file(path)).collect::<Result<Vec<_>, _>>()?;
    Entry::of_image(&text, files, vcpus, role, commit).map_err(|error| refuse(error.to_string()))
}

fn file(path: &Path) -> Result<File, Failure> {
    let bytes = fs::read(path).map_err(|source| Failure::File { path: path.into(), source })?;
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    let problem = "the file's name has characters that an entry cannot hold".into();
    let name = name.ok_or(Failure::Entry { path: path.into(), problem })?;
    Ok(File::of(name, &bytes))
}
