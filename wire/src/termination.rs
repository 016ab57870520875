//! Why a guest ended itself: the reason codes of its GHCB termination request.
//!
//! GHCB specification rev. 2.03, §2.3.1 "GHCB MSR protocol", termination request (`GHCBInfo` 0x100):
//! `GHCBData[3:0]` is the reason-code set, `GHCBData[11:4]` the reason code. Set 0 is AMD's; this project uses [`REASON_SET`].

/// The reason-code set under which all codes of [`Termination`] are reported.
pub const REASON_SET: u8 = 5;

macro_rules! terminations {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal => $explain:literal,)*) => {
        /// Why the guest ended itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Termination {
            $($(#[doc = $doc])* $name = $code,)*
        }

        impl Termination {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason with this code, or `None` for a code that no version of the guest sends.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// What happened and what to do next, for a person.
            pub const fn explain(self) -> &'static str {
                match self {
                    $(Self::$name => $explain,)*
                }
            }
        }
    };
}

terminations! {
    /// `SEV_STATUS` does not say that SEV-SNP is active.
    NotSnp = 1 => "the guest is not running under SEV-SNP; start it with `--platform model`, or on a host with SNP",
    /// `SEV_STATUS` lacks a required feature or has one that the guest does not know.
    SevFeatures = 2 => "SEV_STATUS has a feature set that the guest does not allow; check the host's sev-features",
    /// The C-bit is not where the image's page tables put it.
    CBit = 3 => "the C-bit is not bit 51; this processor is not supported",
    /// The CPUID page is missing, malformed or inconsistent.
    CpuidPage = 4 => "the CPUID page is malformed or inconsistent; the host or its firmware is at fault",
    /// Code asked for a CPUID leaf that the checked page does not hold.
    CpuidLeaf = 5 => "a CPUID leaf was needed that the checked page does not hold; choose another CPU type",
    /// An exception or interrupt that the guest never expects.
    UnexpectedVector = 6 => "an unexpected exception or interrupt arrived; the host may be injecting them",
    /// A `#VC` whose exit code or instruction is not one that the guest serves.
    UnexpectedVc = 7 => "an unexpected #VC arrived; the host may be injecting exceptions",
    /// A page could not be validated, or was already valid.
    Validation = 8 => "a page could not be validated exactly once; the host may be remapping memory",
    /// The host's machine does not have the measured memory layout.
    MemoryLayout = 9 => "the machine's memory is not what the manifest says; give the guest the RAM of its manifest",
    /// The host answered a GHCB request outside the protocol.
    GhcbProtocol = 10 => "the host broke the GHCB protocol; check the hypervisor's version",
    /// The secrets page or a guest message to the AMD-SP failed its checks.
    GuestMessage = 11 => "a message to or from the AMD-SP failed its checks; the VMPCK was wiped",
    /// The processor's random number generator failed its health test.
    Entropy = 12 => "the hardware random number generator failed its health test; no key was made",
    /// A device is not at its measured slot, or does not have the measured kind or features.
    DeviceMissing = 13 => "a device is not at its measured slot; check the launcher's command line",
    /// A device broke the virtio protocol and nothing can go on without it.
    DeviceDead = 14 => "a device broke the virtio protocol; the host may be hostile",
    /// The weights disk is shorter or longer than the manifest says, or cannot be read.
    WeightsRead = 15 => "the weights disk could not be read in full; give the guest the file named in its manifest",
    /// The weights do not have the manifest's root.
    WeightsMismatch = 16 => "the weights differ from the manifest's root; give the guest the file it was built for",
    /// The weights are those of the manifest, but the engine cannot run them.
    ModelRejected = 17 => "the engine rejected the model file; rebuild the image for a supported model",
    /// The manifest is not in its canonical form.
    ManifestInvalid = 18 => "the manifest in the image is malformed; rebuild the image",
    /// The heap is exhausted.
    OutOfMemory = 19 => "the guest ran out of memory; raise `memory_mib` in the manifest or lower its limits",
    /// A Rust panic: a defect of the guest.
    Panic = 20 => "the guest panicked, which is a defect; report the file and line of the event before this one",
    /// A stack ran into its guard page.
    StackOverflow = 21 => "a stack ran into its guard page, which is a defect; report it",
    /// A further CPU could not be created, did not start in time, or started twice; the number is the CPU's.
    CpuStart = 22 => "a virtual CPU did not start exactly once; give the guest as many vCPUs as its manifest says, on a host that creates them (GHCB AP creation)",
    /// The page tables do not map what they must, or allow what they must not; the number is the address.
    PageTables = 23 => "the guest found its own page tables wrong, which is a defect; report it",
    /// A function's stack canary was overwritten.
    StackCorrupt = 24 => "a function found its stack overwritten, which is a defect; report it",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_read_back() {
        for reason in Termination::ALL {
            assert_eq!(Termination::from_code(*reason as u8), Some(*reason));
        }
        assert_eq!(Termination::from_code(0), None);
    }
}
