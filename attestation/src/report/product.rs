//! AMD's products and their firmware versions.

use core::fmt;

/// A product line of AMD that has SEV-SNP and a root key that Cloister knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Product {
    /// Zen 3, EPYC 7003.
    Milan,
    /// Zen 4, EPYC 9004, 97x4 and 8004 (Genoa, Bergamo, Siena).
    Genoa,
    /// Zen 5, EPYC 9005.
    Turin,
}

impl Product {
    /// Every product, oldest first.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The product with a CPUID family (base and extended added up) and model (base and extended combined).
    pub const fn from_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0F) => Some(Self::Milan),
            (0x19, 0x10..=0x1F | 0xA0..=0xAF) => Some(Self::Genoa),
            (0x1A, 0x00..=0x1F) => Some(Self::Turin),
            _ => None,
        }
    }

    /// AMD's name, as in certificates and in the addresses of its key service.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// Bytes of `CHIP_ID` that identify the chip; the rest are zero (AMD 57230, VCEK hardware id).
    pub const fn hardware_id_len(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `TCB_VERSION` (AMD 56860, table 3): security version numbers of a platform's components.
///
/// There is no order between two of them; [`Tcb::at_least`] compares each component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tcb {
    /// Firmware of the microcontroller that starts first; Turin only, else zero.
    pub fmc: u8,
    /// Boot loader of the secure processor.
    pub boot_loader: u8,
    /// Operating system of the secure processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Lowest microcode patch level of all cores.
    pub microcode: u8,
}

impl Tcb {
    /// Reads the 8 bytes of a report; `None` if bytes that the product reserves are not zero.
    pub const fn from_bytes(product: Product, bytes: [u8; 8]) -> Option<Self> {
        match (product, bytes) {
            (Product::Milan | Product::Genoa, [boot_loader, tee, 0, 0, 0, 0, snp, microcode]) => {
                Some(Self { fmc: 0, boot_loader, tee, snp, microcode })
            }
            (Product::Turin, [fmc, boot_loader, tee, snp, 0, 0, 0, microcode]) => {
                Some(Self { fmc, boot_loader, tee, snp, microcode })
            }
            _ => None,
        }
    }

    /// The 8 bytes of a report. `fmc` has no place, and is left out, before Turin.
    pub const fn to_bytes(self, product: Product) -> [u8; 8] {
        let Self { fmc, boot_loader, tee, snp, microcode } = self;
        match product {
            Product::Milan | Product::Genoa => [boot_loader, tee, 0, 0, 0, 0, snp, microcode],
            Product::Turin => [fmc, boot_loader, tee, snp, 0, 0, 0, microcode],
        }
    }

    /// True if no component is below its minimum.
    pub const fn at_least(&self, minimum: &Self) -> bool {
        self.fmc >= minimum.fmc
            && self.boot_loader >= minimum.boot_loader
            && self.tee >= minimum.tee
            && self.snp >= minimum.snp
            && self.microcode >= minimum.microcode
    }
}

impl fmt::Display for Tcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fmc, boot_loader, tee, snp, microcode } = self;
        write!(f, "fmc {fmc}, boot loader {boot_loader}, tee {tee}, snp {snp}, microcode {microcode}")
    }
}
