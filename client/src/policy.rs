//! Policies from and for files. What they mean is `attestation::verifier`'s business, and `transparency`'s for the log; here
//! the two are joined: the log says which image evidence is compared with.

use attestation::verifier::{self, Digest, Empty, Image, NonEmpty, NotHex, Policy, PolicyFile, Terms};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use transparency::entry::{Kind, Subject};
use transparency::trust::{Trust, TrustFile};
use transparency::verify::{Logged, verify};

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
    /// The `[log]` section cannot be used.
    #[error("{path}: the [log] section: {problem}")]
    Log {
        /// The policy file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
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

/// What a client accepts: terms for guest and platform, and who says which images are good.
#[derive(Clone, Debug)]
pub struct ClientPolicy {
    terms: Terms,
    images: Images,
}

#[derive(Clone, Debug)]
enum Images {
    /// The policy itself: for tests.
    Pinned(NonEmpty<Image>),
    /// A log, by a proof that comes with the evidence or beside it.
    Logged { trust: Trust, proof: Option<Vec<u8>> },
}

/// Why no image is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// There is no proof.
    #[error(
        "there is no proof that the image is in the log {0}: neither did the host attach one to the evidence, nor was one \
         given; ask the operator for the image's .tlog-proof and give it with --proof"
    )]
    Missing(String),
    /// The proof is not accepted.
    #[error("the image's proof: {0}")]
    Refused(#[from] transparency::verify::VerifyError),
}

impl From<Policy> for ClientPolicy {
    fn from(policy: Policy) -> Self {
        Self { terms: policy.terms().clone(), images: Images::Pinned(policy.accepted().clone()) }
    }
}

impl ClientPolicy {
    /// Accepts, on these terms, the images that the log proves.
    pub const fn logged(terms: Terms, trust: Trust) -> Self {
        Self { terms, images: Images::Logged { trust, proof: None } }
    }

    /// Takes this proof instead of one that comes with the evidence.
    #[must_use]
    pub fn with_proof(mut self, text: Vec<u8>) -> Self {
        if let Images::Logged { proof, .. } = &mut self.images {
            *proof = Some(text);
        }
        self
    }

    /// The policy for evidence: its images are those that the proof is about. `stapled` gives the proof that came with
    /// the evidence, and is asked only if there is no other one.
    pub fn resolve<E: From<ProofError>>(
        &self,
        stapled: impl FnOnce() -> Result<Option<Vec<u8>>, E>,
        now: SystemTime,
    ) -> Result<Resolved, E> {
        let (images, logged) = match &self.images {
            Images::Pinned(images) => (images.clone(), None),
            Images::Logged { trust, proof } => {
                let given = proof.clone().map_or_else(stapled, |proof| Ok(Some(proof)))?;
                let proof = given.ok_or_else(|| ProofError::Missing(trust.origin().into()))?;
                let logged = verify(&proof, Kind::Image, trust, now).map_err(ProofError::Refused)?;
                (logged_image(&logged).map_err(ProofError::Refused)?.into(), Some(logged))
            }
        };
        Ok(Resolved { policy: self.terms.clone().accepting(images), logged })
    }
}

/// A policy whose images are known.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// For the evidence.
    pub policy: Policy,
    /// What the log says of the image; `None` if the policy pins it.
    pub logged: Option<Logged>,
}

/// The image of an entry, as evidence is compared with it.
fn logged_image(logged: &Logged) -> Result<Image, transparency::verify::VerifyError> {
    let found = logged.entry.kind();
    let wrong = transparency::verify::VerifyError::Kind { expected: Kind::Image, found };
    let Subject::Image(image) = &logged.entry.subject else { return Err(wrong) };
    // One CPU type may have several names, and so a digest several places.
    let distinct: BTreeSet<[u8; 48]> = image.launches.iter().map(|launch| launch.digest).collect();
    let launch_digests: Result<Vec<Digest>, NotHex> = distinct.into_iter().map(Digest::try_from).collect();
    // An entry has at least one digest and none of zeros, or it would not have been decoded.
    let launch_digests = launch_digests.ok().and_then(|list| NonEmpty::try_from(list).ok());
    let manifest_digest = Digest::try_from(image.manifest_digest).ok();
    let (Some(launch_digests), Some(manifest_digest)) = (launch_digests, manifest_digest) else {
        return Err(wrong);
    };
    let (name, version) = (logged.entry.name.to_string(), logged.entry.version.to_string());
    Ok(Image { name, version, model: image.model.to_string(), manifest_digest, launch_digests })
}

/// Reads a policy and the files that it names. Its `[log]` section is [`transparency::trust`]'s, the rest that of
/// [`attestation::verifier::PolicyFile`].
pub fn load(path: &Path) -> Result<ClientPolicy, PolicyError> {
    let load_error = |source| PolicyError::Load { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path)
        .map_err(|source| load_error(verifier::PolicyError::Read { path: path.to_owned(), source }))?;
    let log_error = |problem: String| PolicyError::Log { path: path.to_owned(), problem };
    let mut table: toml::Table =
        toml::from_str(&text).map_err(|error| load_error(verifier::PolicyError::Format(error)))?;
    let log = table.remove("log");
    // [`crate::way`]'s.
    table.remove("way");
    table.remove("tokens");
    let folder = path.parent().unwrap_or(Path::new("."));
    let file: PolicyFile =
        table.try_into().map_err(|error| load_error(verifier::PolicyError::Format(error)))?;
    match log {
        None => Ok(file.load(folder).map_err(load_error)?.into()),
        Some(log) => {
            let trust: Trust =
                log.try_into().map_err(|error: toml::de::Error| log_error(error.to_string()))?;
            if trust.accept().is_empty() {
                return Err(log_error("it accepts no name; add an `[[log.accept]]`".into()));
            }
            Ok(ClientPolicy::logged(file.terms(folder).map_err(load_error)?, trust))
        }
    }
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

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> PolicyError {
    let path = path.to_owned();
    move |source| PolicyError::File { path, source }
}

/// Paths in a policy are relative to it; an absolute one is right wherever the policy lies.
fn absolute(root: Option<&Path>) -> Result<Option<PathBuf>, PolicyError> {
    root.map(|root| root.canonicalize().map_err(file_error(root))).transpose()
}

/// Writes a policy that accepts the image of a `digests.json` on any machine that it has a digest for, and nothing
/// else, whether or not a log knows it: for tests. `development_root` is the root of an SNP model, or `None` for real
/// hardware only.
pub fn write_pinned(digests: &Path, development_root: Option<&Path>, out: &Path) -> Result<(), PolicyError> {
    let text = std::fs::read_to_string(digests).map_err(file_error(digests))?;
    let refuse = |problem: String| PolicyError::Digests { path: digests.to_owned(), problem };
    let listed: Digests = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    let image = image(listed).map_err(refuse)?;
    let development_root = absolute(development_root)?;
    let policy = PolicyFile { development_root, ..PolicyFile::pinning(image.into()) };
    let text = policy.to_toml().map_err(|error| refuse(error.to_string()))?;
    std::fs::write(out, text).map_err(file_error(out))
}

/// Writes a policy that accepts what a log proves; `log` is a file with a `[log]` section, as `cloister-log trust` prints.
pub fn write_logged(log: &Path, development_root: Option<&Path>, out: &Path) -> Result<(), PolicyError> {
    #[derive(Serialize, Deserialize)]
    struct File {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        development_root: Option<PathBuf>,
        log: TrustFile,
    }
    let refuse = |problem: String| PolicyError::Log { path: log.to_owned(), problem };
    let text = std::fs::read_to_string(log).map_err(file_error(log))?;
    let mut file: File = toml::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    // What cannot be used is refused here, and not when it is needed.
    Trust::try_from(file.log.clone()).map_err(|error| refuse(error.to_string()))?;
    file.development_root = absolute(development_root)?;
    let text = toml::to_string_pretty(&file).map_err(|error| refuse(error.to_string()))?;
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
        write_pinned(&digests, None, &out)?;
        let resolved: Result<_, ProofError> = load(&out)?.resolve(|| Ok(None), SystemTime::now());
        Ok(resolved.unwrap().policy)
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
