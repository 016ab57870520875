//! An AMD-SP in software: a development chain, and the reports that it signs.

use attestation::development::{Chain, Endorsement};
use attestation::verifier::{Digest, Image, NonEmpty, Policy, PolicyFile};
use image_builder::source::Source;
use service::Attested;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

/// The launch digest that the policy lists.
pub const LAUNCH_DIGEST: [u8; 48] = [0xa1; 48];

/// One chain for all tests: RSA keys take their time.
pub static CHAIN: LazyLock<Arc<Chain>> = LazyLock::new(|| Arc::new(chain()));

/// The default image's manifest.
pub static SOURCE: LazyLock<Source> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/manifest.toml");
    Source::load(&file).expect("the default manifest")
});

/// A chain with a root of its own.
pub fn chain() -> Chain {
    Chain::generate(SystemTime::now()).expect("a chain")
}

/// The test's chain, with another VCEK.
pub fn reissued(alter: impl FnOnce(&mut Endorsement)) -> Chain {
    let folder = tempfile::tempdir().expect("a folder");
    CHAIN.save(folder.path()).expect("the chain is saved");
    let chain = Chain::load(folder.path()).expect("the chain is read back");
    let mut endorsement = chain.endorsement().clone();
    alter(&mut endorsement);
    chain.reissue(endorsement).expect("another VCEK")
}

/// The image that the policy accepts.
fn image() -> NonEmpty<Image> {
    NonEmpty::from(Image {
        name: SOURCE.manifest.image.clone(),
        version: SOURCE.manifest.version.clone(),
        model: SOURCE.manifest.model.name.clone(),
        manifest_digest: Digest::try_from(SOURCE.manifest.digest()).expect("a digest"),
        launch_digests: NonEmpty::from(Digest::try_from(LAUNCH_DIGEST).expect("a digest")),
    })
}

/// Accepts the image on the test's chain.
pub fn policy() -> Policy {
    policy_without_development_root().with_development_root(CHAIN.ark_der())
}

/// Accepts the image on real hardware only.
pub fn policy_without_development_root() -> Policy {
    Policy::accepting(image())
}

/// Writes [`policy`] to a folder; gives the file's path.
pub fn write_policy(folder: &Path) -> String {
    std::fs::write(folder.join("root.pem"), CHAIN.ark_pem().expect("PEM")).expect("the root is written");
    let mut file = PolicyFile::pinning(image());
    file.development_root = Some("root.pem".into());
    let path = folder.join("policy.toml");
    std::fs::write(&path, file.to_toml().expect("TOML")).expect("the policy is written");
    path.display().to_string()
}

/// What signs reports, and what the host says about it.
#[derive(Clone)]
pub struct AmdSp {
    /// Whose VCEK signs.
    pub signer: Arc<Chain>,
    /// What the host gives as the certificate table.
    pub certificates: Vec<u8>,
    /// What was launched.
    pub launch_digest: [u8; 48],
}

impl AmdSp {
    /// Signs for the image that the policy lists, with the test's chain.
    pub fn honest() -> Self {
        Self::of(CHAIN.clone())
    }

    /// Signs with another chain.
    pub fn of(signer: Arc<Chain>) -> Self {
        Self { certificates: signer.certificate_table(), signer, launch_digest: LAUNCH_DIGEST }
    }

    /// A signed report and the host's certificates.
    pub fn attest(&self, report_data: &[u8; 64]) -> Attested {
        let mut report = self.signer.unsigned_report(report_data, &self.launch_digest);
        self.signer.sign(&mut report).expect("the chain signs");
        Attested { report: report.to_vec(), certificates: self.certificates.clone() }
    }
}
