//! Policies from and for files; what they mean is `attestation::verifier`'s business.

use attestation::verifier::{self, Digest, Empty, Image, NonEmpty, NotHex, Policy, PolicyFile};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// Why a policy cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The policy, or a file that it names, cannot be used.
    #[error("{path}: {source}")]
    Load {
        /// The policy file.
        path: PathBuf,
        /// What is wrong.
        source: verifier::PolicyError,
    },
    /// A file cannot be read or written.
    #[error("cannot read or write {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The digests are not those of an image.
    #[error("{path} is not a digests.json: {problem}; give the file that `cloister-image build` wrote")]
    Digests {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Reads a policy and the files that it names.
pub fn load(path: &Path) -> Result<Policy, PolicyError> {
    Policy::from_file(path).map_err(|source| PolicyError::Load { path: path.to_owned(), source })
}

/// The parts of `digests.json` that a policy needs.
#[derive(Deserialize)]
struct Digests {
    image: Name,
    manifest_digest: String,
    weights_file: String,
    launch_digests: Vec<Launch>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
    version: String,
}

#[derive(Deserialize)]
struct Launch {
    digest: String,
}

/// Writes a policy that accepts the image of a `digests.json` on any machine that it has a digest for, and nothing
/// else. `development_root` is the root of an SNP model, or `None` for real hardware only.
pub fn write(digests: &Path, development_root: Option<&Path>, out: &Path) -> Result<(), PolicyError> {
    let file_error = |path: &Path| {
        let path = path.to_owned();
        move |source| PolicyError::File { path, source }
    };
    let text = std::fs::read_to_string(digests).map_err(file_error(digests))?;
    let refuse = |problem: String| PolicyError::Digests { path: digests.to_owned(), problem };
    let listed: Digests = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    let image = image(listed).map_err(refuse)?;

    let mut policy = PolicyFile::new(image.into());
    if let Some(root) = development_root {
        // Paths in a policy are relative to it; an absolute one is right wherever the policy lies.
        policy.development_root = Some(root.canonicalize().map_err(file_error(root))?);
    }
    let text = policy.to_toml().map_err(|error| refuse(error.to_string()))?;
    std::fs::write(out, text).map_err(file_error(out))
}

fn image(listed: Digests) -> Result<Image, String> {
    // One CPU type may have several names, and so a digest several entries.
    let distinct: BTreeSet<String> = listed.launch_digests.into_iter().map(|launch| launch.digest).collect();
    let launch_digests: Result<Vec<Digest>, NotHex> = distinct.into_iter().map(Digest::try_from).collect();
    Ok(Image {
        name: listed.image.name,
        version: listed.image.version,
        model: listed.weights_file,
        manifest_digest: listed.manifest_digest.try_into().map_err(|error: NotHex| error.to_string())?,
        launch_digests: launch_digests
            .map_err(|error| error.to_string())
            .and_then(|list| NonEmpty::try_from(list).map_err(|error: Empty| error.to_string()))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_from(json: &str) -> Result<Policy, PolicyError> {
        let folder = tempfile::tempdir().unwrap();
        let (digests, out) = (folder.path().join("digests.json"), folder.path().join("policy.toml"));
        std::fs::write(&digests, json).unwrap();
        write(&digests, None, &out)?;
        load(&out)
    }

    fn json(manifest: &str, launch: &[&str]) -> String {
        let launch: Vec<_> = launch.iter().map(|d| serde_json::json!({ "digest": d, "vcpus": 1 })).collect();
        serde_json::json!({
            "image": { "name": "cloister", "version": "1" },
            "manifest_digest": manifest,
            "weights_file": "mini.gguf",
            "launch_digests": launch,
        })
        .to_string()
    }

    #[test]
    fn a_policy_lists_what_the_digests_list() {
        let (a, b) = ("a1".repeat(48), "b2".repeat(48));
        let policy = made_from(&json(&a, &[&b, &a, &b])).unwrap();
        let [image] = policy.images() else { panic!("one image") };
        let listed: Vec<String> = image.launch_digests.iter().map(ToString::to_string).collect();
        assert_eq!((image.manifest_digest.to_string(), listed), (a.clone(), vec![a, b]));
    }

    #[test]
    fn b7_digests_that_would_expect_nothing_make_no_policy() {
        let good = "a1".repeat(48);
        for bad in
            [json(&good, &[]), json("", &[&good]), json(&good, &["00"]), json(&good, &[&"0".repeat(96)])]
        {
            assert!(matches!(made_from(&bad), Err(PolicyError::Digests { .. })), "{bad}");
        }
        assert!(matches!(made_from("[]"), Err(PolicyError::Digests { .. })));
    }
}
