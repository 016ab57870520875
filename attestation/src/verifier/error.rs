//! Why evidence is refused.

use super::Relaxation;
use crate::{
    certificate_table::NotATable,
    evidence::EvidenceError,
    report::{Product, ReportError, SigningKey, Tcb},
};
use der::{DateTime, asn1::ObjectIdentifier};
use std::fmt;

/// A certificate's place in the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The guest's own, self-signed TLS certificate.
    Tls,
    /// AMD root key.
    Ark,
    /// The key between root and endorsement key (ASK, or ASVK for VLEKs).
    Ask,
    /// The key that signed the report: VCEK or VLEK.
    EndorsementKey,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "the guest's TLS certificate",
            Self::Ark => "the root certificate (ARK)",
            Self::Ask => "the signing key's certificate (ASK)",
            Self::EndorsementKey => "the chip's certificate (VCEK or VLEK)",
        })
    }
}

/// What is wrong with one certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// Larger than any real one.
    #[error("has {0} bytes, more than any real one")]
    TooLong(usize),
    /// Not a version 3 certificate in DER.
    #[error("is not a valid X.509 version 3 certificate")]
    Malformed,
    /// An extension is there twice, and readers may differ in which one counts.
    #[error("has extension {0} more than once")]
    RepeatedExtension(ObjectIdentifier),
    /// A critical extension that is not understood.
    #[error("has the critical extension {0}, which is not understood")]
    CriticalExtension(ObjectIdentifier),
    /// An extension that must be there is not, or cannot be read.
    #[error("lacks a readable extension {0}")]
    Extension(ObjectIdentifier),
    /// Its time has not come.
    #[error("is not valid before {0}; check this device's clock")]
    NotYetValid(DateTime),
    /// Its time is over.
    #[error("expired on {0}; check this device's clock, else the operator must renew it")]
    Expired(DateTime),
    /// It names another issuer than the certificate above it.
    #[error("was issued by another authority than the one it is offered with")]
    Issuer,
    /// The issuer's key did not sign it.
    #[error("bears a signature that is not its issuer's: it was altered or forged")]
    Signature,
    /// A signature algorithm that is not used for this kind.
    #[error("is signed with an algorithm that is not used for it")]
    Algorithm,
    /// A public key of another type or size than this kind has.
    #[error("holds a key of another type or size than it must")]
    Key,
    /// Not allowed to sign certificates, or allowed and should not be.
    #[error("is used as what it is not: its basic constraints say so")]
    Authority,
    /// Another common name than its place in the chain demands.
    #[error("is for {found:?} where {expected:?} is needed")]
    CommonName {
        /// What its place demands.
        expected: String,
        /// What it says.
        found: String,
    },
    /// The authority took it back.
    #[error("was revoked by its issuer; the operator must stop using this machine")]
    Revoked,
}

/// What is wrong with a revocation list that the policy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationProblem {
    /// Not a revocation list in DER.
    #[error("is not a valid X.509 revocation list")]
    Malformed,
    /// No known authority issued it.
    #[error("is not signed by the authority it names")]
    Signature,
    /// It is too old to say anything, or of the future.
    #[error("is not valid at this time; fetch the current one, or check this device's clock")]
    Dates,
}

/// A TCB that a report states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcbKind {
    /// What the signing key is derived from.
    Reported,
    /// What the platform cannot be rolled back below.
    Committed,
    /// What ran when the guest was launched.
    Launch,
    /// What runs now.
    Current,
}

impl fmt::Display for TcbKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reported => "reported",
            Self::Committed => "committed",
            Self::Launch => "launch",
            Self::Current => "current",
        })
    }
}

/// Something about guest or platform that the policy does not accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Weakness {
    /// The host may read and change the guest's memory.
    Debug,
    /// The guest may be moved by a migration agent, or is associated with one.
    Migration,
    /// Other threads may run on the sibling of the guest's core.
    Smt,
    /// The guest may run on several sockets.
    SeveralSockets,
    /// Memory behind CXL may be used.
    Cxl,
    /// Memory need not be encrypted with AES-256-XTS.
    Aes128,
    /// Power readings are on.
    Rapl,
    /// The host can read ciphertext.
    VisibleCiphertext,
    /// Memory was not checked for aliases.
    UncheckedAliases,
    /// The firmware ABI may be, or is, older than 1.55.
    OldFirmware,
    /// The host gave data of its own at launch.
    HostData,
    /// The guest was launched with an ID block whose key the policy does not list.
    IdKey,
    /// Policy bits that are not known to this program, or a reserved one that is wrong.
    UnknownPolicyBits,
}

impl Weakness {
    /// The relaxation by which a policy may accept it, if there is one.
    pub const fn relaxation(self) -> Option<Relaxation> {
        match self {
            Self::Debug | Self::Migration | Self::IdKey | Self::UnknownPolicyBits => None,
            Self::Smt => Some(Relaxation::Smt),
            Self::SeveralSockets => Some(Relaxation::SeveralSockets),
            Self::Cxl => Some(Relaxation::Cxl),
            Self::Aes128 => Some(Relaxation::Aes128),
            Self::Rapl => Some(Relaxation::Rapl),
            Self::VisibleCiphertext => Some(Relaxation::VisibleCiphertext),
            Self::UncheckedAliases => Some(Relaxation::UncheckedAliases),
            Self::OldFirmware => Some(Relaxation::OldFirmware),
            Self::HostData => Some(Relaxation::HostData),
        }
    }
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "its policy lets the host debug it, that is, read its memory",
            Self::Migration => "it can be moved by a migration agent",
            Self::Smt => "other threads may share its core (SMT)",
            Self::SeveralSockets => "it may span several sockets",
            Self::Cxl => "its memory may lie behind CXL",
            Self::Aes128 => "its memory need not be encrypted with AES-256-XTS",
            Self::Rapl => "the host can read its power use (RAPL)",
            Self::VisibleCiphertext => "the host can read its encrypted memory (no ciphertext hiding)",
            Self::UncheckedAliases => "the platform did not check its memory for aliases (BadRAM)",
            Self::OldFirmware => "the platform's firmware may be older than ABI 1.55",
            Self::HostData => "the host attached data of its own at launch",
            Self::IdKey => "it was launched under an ID or author key that the policy does not list",
            Self::UnknownPolicyBits => "its policy has bits that this program does not know",
        })
    }
}

/// Why evidence is refused. Whatever the reason, nothing was sent, and nothing should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// This device's clock stands before 1970.
    #[error("this device's clock is before 1970, so no date can be checked; set the clock")]
    Clock,
    /// The evidence cannot be read.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The report cannot be read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The host's certificates cannot be read.
    #[error(transparent)]
    CertificateTable(#[from] NotATable),
    /// The TLS certificate holds no evidence.
    #[error("the server's certificate holds no evidence; this is not a Cloister guest")]
    NoEvidence,
    /// A certificate is wrong.
    #[error("{role} {problem}")]
    Certificate {
        /// Which one.
        role: Role,
        /// In what way.
        problem: CertificateProblem,
    },
    /// A revocation list of the policy is wrong.
    #[error("a revocation list that the policy names {0}")]
    Revocation(RevocationProblem),
    /// Neither the guest nor the policy has the certificate of the key that signed.
    #[error(
        "the certificate of the key that signed the report is missing: the host gave none, and the policy's \
         `certificates` have none for this chip; fetch it from AMD's key service"
    )]
    NoEndorsement,
    /// The chain is that of an SNP model, and the policy names no root for it.
    #[error(
        "the evidence is that of an SNP model, which protects nothing, and the policy names no development root; name \
         one (`development_root`) only to try Cloister out"
    )]
    DevelopmentRootNotGiven,
    /// The chain ends neither at AMD nor at the policy's development root.
    #[error("the evidence ends at {0:?}, which is neither AMD's root nor the policy's `development_root`")]
    UnknownRoot(String),
    /// The report names one type of key, its certificate another.
    #[error("the report says that a {0:?} signed it, but the certificate offered is for another type of key")]
    KeyType(SigningKey),
    /// Signed by a cloud provider's key.
    #[error(
        "the report is signed by a cloud provider's key (VLEK); add the relaxation \"vlek\" to accept that"
    )]
    VlekNotAllowed,
    /// Report and certificate name different products.
    #[error(
        "the report is of a {report} chip, but its certificate is for {certificate:?}: they do not belong together"
    )]
    ProductMismatch {
        /// From the report's CPUID fields.
        report: Product,
        /// From the certificate.
        certificate: String,
    },
    /// A chip that no product known here has.
    #[error(
        "the report is of an unknown chip (family {family:#x}, model {model:#x}); use a newer release of this program"
    )]
    UnknownChip {
        /// CPUID family.
        family: u8,
        /// CPUID model.
        model: u8,
    },
    /// A product that is refused unless a relaxation accepts it.
    #[error(
        "the guest runs on {0}, whose keys can be extracted (arXiv 2605.12990); add the relaxation \"milan\" to accept \
         it all the same"
    )]
    ProductRefused(Product),
    /// The certificate is for another chip.
    #[error("the certificate is for another chip than the one in the report: they do not belong together")]
    HardwareId,
    /// The platform hides which chip it is.
    #[error(
        "the platform hides its chip id, so its certificate cannot be matched; the operator must turn MASK_CHIP_ID off"
    )]
    ChipIdMasked,
    /// A chip that the policy does not list.
    #[error("chip {0} is not among the policy's `chips`")]
    ChipNotListed(String),
    /// Reserved bytes of a TCB are set.
    #[error("the report's {0} TCB has bytes set that {1} does not use; use a newer release of this program")]
    TcbReserved(TcbKind, Product),
    /// Certificate and report differ in a component of the TCB.
    #[error(
        "the report claims {component} version {report}, but the key that signed it is for version {certificate}: \
         the claim is false"
    )]
    TcbMismatch {
        /// The component.
        component: &'static str,
        /// From the report.
        report: u8,
        /// From the certificate.
        certificate: u8,
    },
    /// Nobody said how new the platform's firmware must be.
    #[error("no minimum TCB is known for this {0} chip; add `[minimum_tcb.{0}]` to the policy")]
    NoMinimumTcb(Product),
    /// The platform's firmware is too old.
    #[error(
        "the platform's {kind} TCB ({found}) is below the minimum ({minimum}); the operator must update its firmware"
    )]
    TcbTooOld {
        /// Which TCB.
        kind: TcbKind,
        /// What it is.
        found: Tcb,
        /// What it must be.
        minimum: Tcb,
    },
    /// The report's signature is wrong.
    #[error("the report's signature is wrong: it was altered or forged")]
    ReportSignature,
    /// Not from the guest's most privileged level.
    #[error("the report was not asked for by the guest's most privileged level but by level {0}")]
    Vmpl(u32),
    /// Something is weaker than the policy accepts.
    #[error("the guest is not protected as it must be: {0}{hint}", hint = hint(*.0))]
    Weak(Weakness),
    /// An image that the policy does not list.
    #[error(
        "the guest runs an image that the policy does not list (launch digest {0}); if it is a newer one that you \
         trust, add its digest"
    )]
    LaunchDigest(String),
    /// The report is not bound to the TLS key and the manifest.
    #[error(
        "the report in the certificate is for another key or manifest; somebody else's evidence was put into this \
         certificate"
    )]
    CertificateBinding,
    /// The report is not bound to the nonce, the TLS connection, the key and the manifest.
    #[error("the fresh report is not for this connection and nonce; the evidence was replayed or relayed")]
    FreshBinding,
}

fn hint(weakness: Weakness) -> String {
    match weakness.relaxation() {
        Some(relaxation) => format!("; add the relaxation \"{relaxation}\" to accept that"),
        None => String::new(),
    }
}
