//! CPU types: the family, model and stepping that a VM's processor reports.

/// `CPUID Fn0000_0001_EAX`: family, model and stepping (APM volume 3, appendix E.3.2). KVM leaves it in RDX at reset,
/// so it is part of each measured VMSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuSignature(pub u32);

/// The CPU types of QEMU that SEV-SNP can run on, with QEMU's family, model and stepping (`builtin_x86_defs` in QEMU
/// `target/i386/cpu.c`). A versioned name (`-v1`) has the same.
const TYPES: [(&str, u32, u32, u32); 3] =
    [("EPYC-Milan", 25, 1, 1), ("EPYC-Genoa", 25, 17, 0), ("EPYC-Turin", 26, 0, 0)];

impl CpuSignature {
    /// Packs family (up to 0x10E), model (up to 0xFF) and stepping (up to 0xF); higher bits are dropped.
    pub const fn new(family: u32, model: u32, stepping: u32) -> Self {
        let (base, extended) = if family > 0xF { (0xF, family - 0xF) } else { (family, 0) };
        Self(
            (extended & 0xFF) << 20
                | (model >> 4 & 0xF) << 16
                | base << 8
                | (model & 0xF) << 4
                | stepping & 0xF,
        )
    }

    /// The signature of a CPU type by its QEMU name, for example `EPYC-Genoa` or `EPYC-Genoa-v2`.
    pub fn of_qemu_type(name: &str) -> Option<Self> {
        let base = match name.rsplit_once("-v") {
            Some((base, version)) if !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()) => {
                base
            }
            _ => name,
        };
        let (_, family, model, stepping) = TYPES.iter().find(|t| t.0 == base)?;
        Some(Self::new(*family, *model, *stepping))
    }

    /// QEMU's name of the type with this signature.
    pub fn qemu_type(self) -> Option<&'static str> {
        TYPES.iter().find(|t| Self::new(t.1, t.2, t.3) == self).map(|t| t.0)
    }

    /// Base and extended family together.
    pub const fn family(self) -> u8 {
        // At most 0xF + 0xFF; AMD assigns none above 0xFF.
        ((self.0 >> 8 & 0xF) + (self.0 >> 20 & 0xFF)) as u8
    }

    /// Base and extended model together.
    pub const fn model(self) -> u8 {
        (self.0 >> 4 & 0xF | self.0 >> 12 & 0xF0) as u8
    }

    /// Stepping.
    pub const fn stepping(self) -> u8 {
        (self.0 & 0xF) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_processors() {
        // CPUID Fn0000_0001_EAX of Milan (B1), Genoa as QEMU has it, and Turin as QEMU has it.
        for (name, raw) in [
            ("EPYC-Milan", 0x00A0_0F11),
            ("EPYC-Milan-v2", 0x00A0_0F11),
            ("EPYC-Genoa", 0x00A1_0F10),
            ("EPYC-Turin-v1", 0x00B0_0F00),
        ] {
            assert_eq!(CpuSignature::of_qemu_type(name), Some(CpuSignature(raw)), "{name}");
        }
        for name in ["", "-v1", "EPYC-Genoa-v", "EPYC-Genoa-vv1", "epyc-genoa", "EPYC-Rome"] {
            assert_eq!(CpuSignature::of_qemu_type(name), None, "{name}");
        }
    }

    #[test]
    fn parts_come_back() {
        let genoa = CpuSignature::new(25, 17, 3);
        assert_eq!((genoa.family(), genoa.model(), genoa.stepping()), (25, 17, 3));
    }
}
