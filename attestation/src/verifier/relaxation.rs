//! What a policy may accept although it is weaker than it should be.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Something weaker than it should be, which a policy accepts by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relaxation {
    /// EPYC 7003, whose keys can be extracted (arXiv 2605.12990).
    Milan,
    /// Reports signed with a cloud provider's key.
    Vlek,
    /// Other threads on the sibling of the guest's core.
    Smt,
    /// Guests that may span sockets.
    SeveralSockets,
    /// Memory behind CXL.
    Cxl,
    /// Memory encryption other than AES-256-XTS.
    #[serde(rename = "aes-128")]
    Aes128,
    /// Power readings.
    Rapl,
    /// Ciphertext that the host can read.
    VisibleCiphertext,
    /// Memory that was not checked for aliases.
    UncheckedAliases,
    /// Firmware older than ABI 1.55.
    OldFirmware,
    /// Data that the host attached at launch.
    HostData,
    /// Images that the policy lists itself: no log has to know them.
    PinnedImage,
}

impl Relaxation {
    /// Every relaxation there is.
    pub const ALL: [Self; 12] = [
        Self::Milan,
        Self::Vlek,
        Self::Smt,
        Self::SeveralSockets,
        Self::Cxl,
        Self::Aes128,
        Self::Rapl,
        Self::VisibleCiphertext,
        Self::UncheckedAliases,
        Self::OldFirmware,
        Self::HostData,
        Self::PinnedImage,
    ];

    /// Its name in the policy file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "milan",
            Self::Vlek => "vlek",
            Self::Smt => "smt",
            Self::SeveralSockets => "several-sockets",
            Self::Cxl => "cxl",
            Self::Aes128 => "aes-128",
            Self::Rapl => "rapl",
            Self::VisibleCiphertext => "visible-ciphertext",
            Self::UncheckedAliases => "unchecked-aliases",
            Self::OldFirmware => "old-firmware",
            Self::HostData => "host-data",
            Self::PinnedImage => "pinned-image",
        }
    }
}

impl fmt::Display for Relaxation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
