//! What a client accepts.

use super::{ChipId, Digest, Image, NonEmpty, Relaxation, error::VerifyError, revocation::RevocationList};
use crate::report::{Product, Tcb};
use std::collections::BTreeMap;

/// What a client accepts of a guest and its platform, whichever image it runs.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    pub(super) chips: Option<NonEmpty<ChipId>>,
    pub(super) id_keys: Vec<Digest>,
    pub(super) relaxations: Vec<Relaxation>,
    pub(super) minimum_tcb: BTreeMap<Product, Tcb>,
    pub(super) certificates: Vec<Vec<u8>>,
    pub(super) revocation_lists: Vec<RevocationList>,
    pub(super) development_root: Option<Vec<u8>>,
}

impl Terms {
    /// Accepts these images on these terms.
    pub const fn accepting(self, images: NonEmpty<Image>) -> Policy {
        Policy { images, terms: self }
    }
}

/// What a client accepts.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(super) images: NonEmpty<Image>,
    pub(super) terms: Terms,
}

impl std::ops::Deref for Policy {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

impl Policy {
    /// Accepts these images on real hardware, and nothing weaker than it should be.
    pub fn accepting(images: NonEmpty<Image>) -> Self {
        Terms::default().accepting(images)
    }

    /// Accepts evidence of SNP models whose chain ends at this root, a certificate in DER. It protects nothing, and
    /// every verdict says so.
    #[must_use]
    pub fn with_development_root(mut self, der: &[u8]) -> Self {
        self.terms.development_root = Some(der.to_vec());
        self
    }

    /// Accepts something weaker than it should be; every verdict says so.
    #[must_use]
    pub fn with_relaxation(mut self, relaxation: Relaxation) -> Self {
        self.terms.relaxations.push(relaxation);
        self
    }

    /// Accepts only these chips.
    #[must_use]
    pub fn with_chips(mut self, chips: NonEmpty<ChipId>) -> Self {
        self.terms.chips = Some(chips);
        self
    }

    /// Accepts ID blocks whose keys have these digests.
    #[must_use]
    pub fn with_id_keys(mut self, digests: Vec<Digest>) -> Self {
        self.terms.id_keys = digests;
        self
    }

    /// Sets the minimum TCB of a product, in place of the built-in one.
    #[must_use]
    pub fn with_minimum_tcb(mut self, product: Product, minimum: Tcb) -> Self {
        self.terms.minimum_tcb.insert(product, minimum);
        self
    }

    /// Adds a certificate in DER for hosts that give none.
    #[must_use]
    pub fn with_certificate(mut self, der: &[u8]) -> Self {
        self.terms.certificates.push(der.to_vec());
        self
    }

    /// Adds a revocation list in DER.
    pub fn with_revocation_list(mut self, der: &[u8]) -> Result<Self, VerifyError> {
        self.terms.revocation_lists.push(RevocationList::parse(der)?);
        Ok(self)
    }

    /// The images that are accepted.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// The images that are accepted; at least one.
    pub const fn accepted(&self) -> &NonEmpty<Image> {
        &self.images
    }

    /// The same terms, for images that are found out later.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(super) fn relaxes(&self, relaxation: Relaxation) -> bool {
        self.relaxations.contains(&relaxation)
    }

    /// The minimum TCB of a chip: the policy's, else the built-in one.
    pub(super) fn minimum_tcb(&self, product: Product, cpuid: Option<(u8, u8, u8)>) -> Option<Tcb> {
        self.minimum_tcb.get(&product).copied().or_else(|| built_in_minimum(cpuid))
    }

    /// True if the policy asks for less of this chip than the built-in minimum.
    pub(super) fn lowers_minimum_tcb(&self, product: Product, cpuid: Option<(u8, u8, u8)>) -> bool {
        match (self.minimum_tcb.get(&product), built_in_minimum(cpuid)) {
            (Some(own), Some(built_in)) => !own.at_least(&built_in),
            (Some(_), None) | (None, _) => false,
        }
    }
}

/// The versions that hold the fixes of AMD-SB-3019 and AMD-SB-3020 (SNP firmware) and, where they are published for
/// the chip, of AMD-SB-3027 (microcode); state of October 2026. Microcode is numbered per stepping. A chip that is
/// not here has no built-in minimum, and is refused unless the policy states one.
fn built_in_minimum(cpuid: Option<(u8, u8, u8)>) -> Option<Tcb> {
    let tcb = |boot_loader, snp, microcode| Tcb { fmc: 0, boot_loader, tee: 0, snp, microcode };
    match cpuid? {
        (0x19, 0x00..=0x0F, 0x01) => Some(tcb(4, 0x18, 0xDB)),
        (0x19, 0x10..=0x1F, 0x02) => Some(tcb(7, 0x1B, 0x51)),
        (0x19, 0x10..=0x1F, _) => Some(tcb(7, 0x1B, 0x56)),
        (0x19, 0xA0..=0xAF, _) => Some(tcb(7, 0x1B, 0x19)),
        (0x1A, 0x00..=0x0F, _) => Some(tcb(1, 0x04, 0x51)),
        _ => None,
    }
}
