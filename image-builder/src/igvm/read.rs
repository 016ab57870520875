//! IGVM files as QEMU and KVM start them, and nothing that they would start otherwise than it is written.
//!
//! The rules are those of coconut's `igvmmeasure --check-kvm` (one VMSA, last, at KVM's address, with a CR0 that KVM
//! keeps), of QEMU's loader (`backends/igvm.c`, 10.1), and of this project's images (all pages measured).

use super::SEV_SNP;
use crate::layout::MANIFEST;
use crate::vmsa::{self, NotAsGiven, VMSA_ADDRESS};
use attestation::manifest::Manifest;
use igvm::{IgvmDirectiveHeader, IgvmFile, IgvmInitializationHeader, IgvmPlatformHeader};
use igvm_defs::{IGVM_MAGIC_VALUE, IgvmPageDataFlags, IgvmPageDataType, IgvmPlatformType};
use std::collections::BTreeMap;
use zerocopy::IntoBytes;

/// Whether a file calls itself IGVM.
pub fn is_igvm(file: &[u8]) -> bool {
    file.starts_with(&IGVM_MAGIC_VALUE.to_le_bytes())
}

/// Why a file is not an IGVM file that QEMU and KVM start as it is written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IgvmError {
    /// Not an IGVM file, cut short, or with a wrong checksum.
    #[error("it is not a sound IGVM file ({0}); give the `cloister.igvm` that `cloister-image build` wrote")]
    Format(String),
    /// It is not for SEV-SNP and nothing else.
    #[error("it is not for SEV-SNP, or for other platforms too; build it again")]
    Platform,
    /// There is not exactly one guest policy.
    #[error("it has no guest policy, or several; build it again")]
    Policy,
    /// A page that is not measured with its contents, or is there twice.
    #[error(
        "its page at {0:#x} has no data, is not measured, is shared, is larger than 4 KiB or is there twice"
    )]
    Page(u64),
    /// The secrets or the CPUID page is not there once.
    #[error("it does not have one secrets page and one CPUID page; build it again")]
    Special,
    /// Something that QEMU would do beyond loading pages.
    #[error(
        "it asks for more than pages and a vCPU state, which this project's images do not; build it again"
    )]
    Directive,
    /// Not exactly one vCPU state, which must be the last directive, for vCPU 0 at KVM's address.
    #[error(
        "QEMU and KVM take one vCPU state, for the first vCPU, at {VMSA_ADDRESS:#x}, and measure it last; this file has \
         another arrangement"
    )]
    Vcpu,
    /// KVM would launch another state.
    #[error("the state of its vCPU would not be measured as it is: {0}")]
    State(#[from] NotAsGiven),
    /// There is no manifest.
    #[error("its manifest is missing or malformed; build it again")]
    Manifest,
}

/// A page that the guest starts with.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// Guest-physical address.
    pub address: u64,
    /// What is in it.
    pub contents: Contents,
}

/// What is in a page.
#[derive(Debug, PartialEq, Eq)]
pub enum Contents {
    /// Measured bytes.
    Data(Box<vmsa::Page>),
    /// The guest's secrets.
    Secrets,
    /// The CPUID values that the AMD-SP has checked.
    Cpuid,
}

/// An IGVM file that passed every rule.
#[derive(Debug)]
pub struct Igvm {
    pages: Vec<Page>,
    vmsa: Box<vmsa::Page>,
    policy: u64,
}

impl Igvm {
    /// Reads and checks a file.
    pub fn parse(file: &[u8]) -> Result<Self, IgvmError> {
        let parsed =
            IgvmFile::new_from_binary(file, None).map_err(|error| IgvmError::Format(error.to_string()))?;
        let [IgvmPlatformHeader::SupportedPlatform(platform)] = parsed.platforms() else {
            return Err(IgvmError::Platform);
        };
        let mask = platform.compatibility_mask;
        if platform.platform_type != IgvmPlatformType::SEV_SNP || mask != SEV_SNP {
            return Err(IgvmError::Platform);
        }
        let [IgvmInitializationHeader::GuestPolicy { policy, compatibility_mask: SEV_SNP }] =
            parsed.initializations()
        else {
            return Err(IgvmError::Policy);
        };
        let Some((last, pages)) = parsed.directives().split_last() else { return Err(IgvmError::Vcpu) };
        let pages = pages.iter().map(page).collect::<Result<Vec<_>, _>>()?;
        let mut seen = BTreeMap::new();
        for page in &pages {
            if seen.insert(page.address, ()).is_some() {
                return Err(IgvmError::Page(page.address));
            }
        }
        let once = |wanted: &Contents| pages.iter().filter(|page| page.contents == *wanted).count() == 1;
        if !once(&Contents::Secrets) || !once(&Contents::Cpuid) {
            return Err(IgvmError::Special);
        }
        let IgvmDirectiveHeader::SnpVpContext { gpa: VMSA_ADDRESS, compatibility_mask, vp_index: 0, vmsa } =
            last
        else {
            return Err(IgvmError::Vcpu);
        };
        if *compatibility_mask != SEV_SNP {
            return Err(IgvmError::Vcpu);
        }
        let mut state = Box::new([0; crate::layout::PAGE as usize]);
        let bytes = vmsa.as_bytes();
        state[..bytes.len()].copy_from_slice(bytes);
        vmsa::check_for_kvm(&state)?;
        Ok(Self { pages, vmsa: state, policy: *policy })
    }

    /// The pages, in the order in which they are measured.
    pub fn pages(&self) -> &[Page] {
        &self.pages
    }

    /// The state of the first vCPU.
    pub fn vmsa(&self) -> &vmsa::Page {
        &self.vmsa
    }

    /// The guest policy with which QEMU launches it.
    pub fn policy(&self) -> u64 {
        self.policy
    }

    /// The measured manifest.
    pub fn manifest(&self) -> Result<Manifest, IgvmError> {
        let region = u64::from(MANIFEST.start)..u64::from(MANIFEST.end);
        let mut bytes = Vec::new();
        for page in self.pages.iter().filter(|page| region.contains(&page.address)) {
            match &page.contents {
                Contents::Data(data) if page.address == region.start + bytes.len() as u64 => {
                    bytes.extend_from_slice(&data[..]);
                }
                _ => return Err(IgvmError::Manifest),
            }
        }
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or(IgvmError::Manifest)?;
        let encoded = rest.get(..u32::from_le_bytes(*length) as usize).ok_or(IgvmError::Manifest)?;
        Manifest::decode(encoded).map_err(|_| IgvmError::Manifest)
    }
}

fn page(directive: &IgvmDirectiveHeader) -> Result<Page, IgvmError> {
    let IgvmDirectiveHeader::PageData { gpa, compatibility_mask, flags, data_type, data } = directive else {
        return Err(match directive {
            IgvmDirectiveHeader::SnpVpContext { .. } => IgvmError::Vcpu,
            _ => IgvmError::Directive,
        });
    };
    if *compatibility_mask != SEV_SNP || *flags != IgvmPageDataFlags::new() {
        return Err(IgvmError::Page(*gpa));
    }
    let contents = match *data_type {
        IgvmPageDataType::SECRETS => Contents::Secrets,
        IgvmPageDataType::CPUID_DATA => Contents::Cpuid,
        IgvmPageDataType::NORMAL => {
            let bytes: &[u8; crate::layout::PAGE as usize] =
                data.as_slice().try_into().map_err(|_| IgvmError::Page(*gpa))?;
            Contents::Data(Box::new(*bytes))
        }
        _ => return Err(IgvmError::Page(*gpa)),
    };
    Ok(Page { address: *gpa, contents })
}
