//! What was found, for programs and for people.

use super::{Digest, Image, Relaxation, chain::Root};
use crate::report::{Product, Tcb};
use std::fmt;

/// A check that evidence passed, in the order in which checks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// The image is in a log that witnesses watch, recent enough, and not revoked.
    Log,
    /// The TLS certificate is signed by its own key and valid now.
    Certificate,
    /// Chain from the chip's key to the root: signatures, names, dates.
    Chain,
    /// No certificate of the chain is on a revocation list.
    Revocation,
    /// The report's signature, over the bytes as sent.
    Signature,
    /// Chip id and every TCB component are the same in report and certificate.
    Platform,
    /// The launch digest is one that the policy lists.
    Image,
    /// The firmware is new enough at launch, now, and committed.
    MinimumTcb,
    /// The chip is one that the policy lists.
    Chip,
    /// Guest policy, VMPL 0 and platform state.
    GuestPolicy,
    /// The report is for the TLS key and the manifest.
    CertificateBinding,
    /// The report is for this nonce, TLS connection, key and manifest.
    FreshBinding,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Log => "transparency log",
            Self::Certificate => "TLS certificate",
            Self::Chain => "certificate chain",
            Self::Revocation => "revocation",
            Self::Signature => "report signature",
            Self::Platform => "chip and TCB",
            Self::Image => "launch digest",
            Self::MinimumTcb => "minimum TCB",
            Self::Chip => "listed chip",
            Self::GuestPolicy => "guest policy",
            Self::CertificateBinding => "bound to the TLS key",
            Self::FreshBinding => "fresh, bound to this connection",
        })
    }
}

/// Something that was accepted although it is weaker than it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Relaxed {
    /// The chain ends at the policy's development root: the guest runs in an SNP model.
    DevelopmentRoot,
    /// The policy grants this by name.
    Granted(Relaxation),
    /// The policy's minimum TCB is below the built-in one.
    MinimumTcb(Product),
    /// The policy names no revocation list for this chain.
    NoRevocationList,
}

impl fmt::Display for Relaxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DevelopmentRoot => f.write_str("development root: an SNP model, it protects nothing"),
            Self::Granted(relaxation) => write!(f, "{relaxation}"),
            Self::MinimumTcb(product) => write!(f, "minimum TCB of {product} lowered"),
            Self::NoRevocationList => f.write_str("no revocation list"),
        }
    }
}

/// Accepted evidence: what runs, on what, what was checked and what was relaxed.
///
/// ```text
/// image    cloister 0.1.0, launch digest 93a1b2c3d4e5f607…
/// model    cloister-mini.gguf, manifest 5b0c1d2e3f405162…
/// checked  certificate chain, report signature, …; DEVELOPMENT ROOT: this is an SNP model, it protects nothing
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The image that runs, as the policy describes it.
    pub image: Image,
    /// The launch digest that was found.
    pub launch_digest: Digest,
    /// The product that it runs on, or that an SNP model imitates.
    pub product: Product,
    /// The chip's hardware id; zeros if the report is signed with a VLEK.
    pub chip_id: Vec<u8>,
    /// The reported TCB.
    pub tcb: Tcb,
    /// The root that the chain ends at.
    pub root: Root,
    /// What was checked, in order.
    pub checked: Vec<Check>,
    /// What was relaxed.
    pub relaxed: Vec<Relaxed>,
}

impl Verdict {
    /// False if the evidence is that of an SNP model.
    pub fn protects(&self) -> bool {
        self.root == Root::Amd
    }

    /// This verdict with what an `earlier` one on the same guest had checked and relaxed besides.
    #[must_use]
    pub fn after(mut self, earlier: &Self) -> Self {
        let own = std::mem::replace(&mut self.checked, earlier.checked.clone());
        self.checked.extend(own.into_iter().filter(|check| !earlier.checked.contains(check)));
        let own = std::mem::replace(&mut self.relaxed, earlier.relaxed.clone());
        self.relaxed.extend(own.into_iter().filter(|relaxed| !earlier.relaxed.contains(relaxed)));
        self
    }

    /// Three lines for people: image, model, and what was checked and relaxed.
    pub fn lines(&self) -> [String; 3] {
        let Image { name, version, model, manifest_digest, .. } = &self.image;
        let short = |digest: &Digest| hex::encode(&digest.as_bytes()[..8]);
        let list =
            |items: &[&dyn fmt::Display]| items.iter().map(|i| i.to_string()).collect::<Vec<_>>().join(", ");

        let checked = list(&self.checked.iter().map(|c| c as _).collect::<Vec<_>>());
        let relaxed: Vec<&dyn fmt::Display> = self
            .relaxed
            .iter()
            .filter(|relaxed| **relaxed != Relaxed::DevelopmentRoot)
            .map(|relaxed| relaxed as _)
            .collect();
        let mut checks = format!("checked  {checked}");
        if !relaxed.is_empty() {
            checks += &format!("; relaxed: {}", list(&relaxed));
        }
        checks += &match self.root {
            Root::Amd => format!("; AMD root, {}", self.product),
            Root::Development => "; DEVELOPMENT ROOT: this is an SNP model, it protects nothing".to_owned(),
        };
        [
            format!("image    {name} {version}, launch digest {}…", short(&self.launch_digest)),
            format!("model    {model}, manifest {}…", short(manifest_digest)),
            checks,
        ]
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}
