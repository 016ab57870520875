//! CPU types: what a vCPU says of its family, model and stepping, which KVM leaves in RDX at reset and so in the
//! measured VMSA.

use std::fmt;
use std::str::FromStr;

/// A CPU type of QEMU that SEV-SNP runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CpuType {
    /// Third generation EPYC (7003).
    Milan,
    /// Fourth generation EPYC (9004).
    Genoa,
    /// Fifth generation EPYC (9005).
    Turin,
}

/// The name is not one of a supported CPU type.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a CPU type of this image; choose EPYC-Milan, EPYC-Genoa or EPYC-Turin (with or without -v1)"
)]
pub struct UnknownCpuType(pub String);

impl CpuType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// QEMU's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Milan => "EPYC-Milan",
            Self::Genoa => "EPYC-Genoa",
            Self::Turin => "EPYC-Turin",
        }
    }

    /// CPUID Fn0000_0001_EAX (AMD 25481): stepping, model, family, extended model and family.
    pub const fn signature(self) -> u32 {
        match self {
            Self::Milan => 0x00a0_0f11,
            Self::Genoa => 0x00a1_0f10,
            Self::Turin => 0x00b0_0f00,
        }
    }
}

impl fmt::Display for CpuType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CpuType {
    type Err = UnknownCpuType;

    /// QEMU's versions of a type (`EPYC-Milan-v2`) differ in features, but not in what is measured.
    fn from_str(name: &str) -> Result<Self, UnknownCpuType> {
        let named = |cpu: &Self| match name.strip_prefix(cpu.name()) {
            Some(version) => {
                version.is_empty() || version.strip_prefix("-v").is_some_and(|v| v.parse::<u8>().is_ok())
            }
            None => false,
        };
        Self::ALL.into_iter().find(named).ok_or_else(|| UnknownCpuType(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_versions_are_known() {
        for cpu in CpuType::ALL {
            assert_eq!(cpu.name().parse(), Ok(cpu));
            assert_eq!(format!("{cpu}-v1").parse(), Ok(cpu));
        }
        for name in ["", "EPYC", "epyc-milan", "EPYC-Milan-", "EPYC-Milan-v", "EPYC-Milan-v1x", "EPYC-Milano"]
        {
            assert_eq!(name.parse::<CpuType>(), Err(UnknownCpuType(name.into())), "{name}");
        }
    }
}
