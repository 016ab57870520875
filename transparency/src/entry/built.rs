//! An image's entry from what `cloister-image build` wrote.

use super::{Entry, File, Image, Launch, Name, Subject, Version};
use serde::Deserialize;
use sha2::{Digest, Sha384};

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

impl File {
    /// A file that is published with these bytes.
    pub fn of(name: Name, bytes: &[u8]) -> Self {
        Self { name, size: bytes.len() as u64, sha384: Sha384::digest(bytes).into() }
    }
}

impl Entry {
    /// The entry of an image; `digests` is the text of its `digests.json`, `files` are what is published of it, `vcpus` the
    /// machines that it is logged for (none: all).
    ///
    /// # Errors
    /// If the text is not a `digests.json`.
    pub fn of_image(
        digests: &str,
        mut files: Vec<File>,
        vcpus: &[u32],
        role: Name,
        source_commit: Vec<u8>,
    ) -> Result<Self, serde_json::Error> {
        let listed: Digests = serde_json::from_str(digests)?;
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
        Ok(Self { name, role, version, previous: None, subject: Subject::Image(image) })
    }
}
