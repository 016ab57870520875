//! What an endorsement certificate holds (AMD 57230, VCEK and VLEK certificate and KDS interface).

use crate::report::{Product, Tcb};
use der::asn1::ObjectIdentifier;

const fn oid(dotted: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(dotted)
}

/// The organisation that development chains name in place of AMD.
pub(crate) const DEVELOPMENT_ORGANISATION: &str = "Cloister development, protects nothing";

/// `structVersion`, an `INTEGER`.
#[cfg(feature = "development")]
pub(crate) const STRUCT_VERSION: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.1");
/// `productName1`, an `IA5String`: the product, perhaps with a stepping behind a hyphen.
pub(crate) const PRODUCT_NAME: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.2");
/// `hwID`, the chip's id, bare in the extension's octets.
pub(crate) const HARDWARE_ID: ObjectIdentifier = oid("1.3.6.1.4.1.3704.1.4");

/// Security version numbers that no product uses; zero where they are present.
pub(crate) const UNUSED_SPLS: [ObjectIdentifier; 4] = [
    oid("1.3.6.1.4.1.3704.1.3.4"),
    oid("1.3.6.1.4.1.3704.1.3.5"),
    oid("1.3.6.1.4.1.3704.1.3.6"),
    oid("1.3.6.1.4.1.3704.1.3.7"),
];

/// A component of a TCB, which an endorsement certificate states as an `INTEGER`.
pub(crate) struct Component {
    pub(crate) oid: ObjectIdentifier,
    pub(crate) name: &'static str,
    /// Its place in a TCB.
    pub(crate) of: fn(&mut Tcb) -> &mut u8,
}

/// Every component that a certificate for `product` states.
pub(crate) fn components(product: Product) -> &'static [Component] {
    const ALL: &[Component] = &[
        Component { oid: oid("1.3.6.1.4.1.3704.1.3.9"), name: "fmc", of: |tcb| &mut tcb.fmc },
        Component { oid: oid("1.3.6.1.4.1.3704.1.3.1"), name: "boot loader", of: |tcb| &mut tcb.boot_loader },
        Component { oid: oid("1.3.6.1.4.1.3704.1.3.2"), name: "tee", of: |tcb| &mut tcb.tee },
        Component { oid: oid("1.3.6.1.4.1.3704.1.3.3"), name: "snp", of: |tcb| &mut tcb.snp },
        Component { oid: oid("1.3.6.1.4.1.3704.1.3.8"), name: "microcode", of: |tcb| &mut tcb.microcode },
    ];
    // Only Turin has the FMC.
    if product == Product::Turin { ALL } else { &ALL[1..] }
}
