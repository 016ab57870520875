//! An image's entry from what `cloister-image build` wrote.

use crate::failure::Failure;
use serde::Deserialize;
use sha2::{Digest, Sha384};
use std::fs;
use std::path::{Path, PathBuf};
use transparency::entry::{Entry, File, Image, Launch, Name, Subject, Version};

/// The parts of `digests.json` that an entry holds.
#[derive(Deserialize)]
struct Digests {
    image: NameAndVersion,
    #[serde(with = "hex::serde")]
    manifest_digest: [u8; 48],
    #[serde(with = "hex::serde")]
    weights_root: [u8; 48],
    weights_file: Name,
    launch_digests: Vec<Launch>,
}

#[derive(Deserialize)]
struct NameAndVersion {
    name: Name,
    version: Version,
}

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
    let listed: Digests = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    let source_commit = hex::decode(commit).map_err(|error| refuse(format!("--commit: {error}")))?;
    let mut launches = listed.launch_digests;
    launches.retain(|launch| vcpus.is_empty() || vcpus.contains(&launch.vcpus));
    // A CPU type has several names and one digest; a name is enough.
    launches.sort_by(|a, b| {
        (&a.container, a.digest, a.vcpus, a.cpu_type.len()).cmp(&(
            &b.container,
            b.digest,
            b.vcpus,
            b.cpu_type.len(),
        ))
    });
    launches.dedup_by(|b, a| (&a.container, a.vcpus, a.digest) == (&b.container, b.vcpus, b.digest));
    launches.sort_by(|a, b| a.machine().cmp(&b.machine()));
    let mut files = files.iter().map(|path| file(path)).collect::<Result<Vec<_>, _>>()?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let image = Image {
        manifest_digest: listed.manifest_digest,
        model: listed.weights_file,
        weights_root: listed.weights_root,
        launches,
        files,
        source_commit,
    };
    let NameAndVersion { name, version } = listed.image;
    Ok(Entry { name, role, version, previous: None, subject: Subject::Image(image) })
}

fn file(path: &Path) -> Result<File, Failure> {
    let bytes = fs::read(path).map_err(|source| Failure::File { path: path.into(), source })?;
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    let problem = "the file's name has characters that an entry cannot hold".into();
    let name = name.ok_or(Failure::Entry { path: path.into(), problem })?;
    Ok(File { name, size: bytes.len() as u64, sha384: Sha384::digest(&bytes).into() })
}
