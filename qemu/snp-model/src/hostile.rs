//! The lies that the model tells when it plays a hostile host, by name.
//!
//! A name begins with the id of the row of docs/SECURITY.md that the lie belongs to. Most lies are told by the model
//! itself (`machine/hostile`); those about the machine around the guest are told by the launcher, in QEMU's command line
//! or in the launch bundle, and the model only watches what the guest makes of them.

macro_rules! lies {
    ($($name:ident = $text:literal => $about:literal,)*) => {
        /// One lie.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Lie {
            $(#[doc = $about] $name,)*
        }

        impl Lie {
            /// Every lie there is, in the order of the rows.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What the host does, in one line.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$name => $about,)* }
            }
        }
    };
}

lies! {
    InjectedVc = "a1-injected-vc" => "raises #VC for cpuid where the guest executed none (WeSee)",
    InjectedMmioVc = "a1-injected-npf-vc" => "raises #VC for an access to device memory that the guest did not make",
    WrongVcCode = "a1-wrong-code" => "gives the #VC of a cpuid instruction the exit code of port input",
    Int80 = "a2-int80" => "injects interrupt 0x80 (Heckler)",
    Interrupt = "a2-interrupt" => "injects interrupt 0x30",
    Debug = "a2-debug" => "injects #DB",
    Nmi = "a2-nmi" => "injects an NMI",
    Divide = "a2-divide" => "injects #DE, as a signal handler of a common program would get it (Heckler)",
    NoSnp = "a3-no-snp" => "runs the guest with SEV-ES and without SEV-SNP",
    NoSev = "a3-no-sev" => "runs the guest without SEV",
    UnknownFeature = "a3-unknown-feature" => "runs the guest with a bit of SEV_STATUS set that no manual names",
    VirtualTom = "a3-vtom" => "runs the guest with vTOM, which turns the meaning of the C-bit around",
    CBitInPage = "a4-cpuid-page" => "says in the CPUID page that the C-bit is bit 47",
    CBitOfHost = "a4-host" => "says in the GHCB MSR protocol that the C-bit is bit 47",
    CpuidAnswers = "a5-host-answers" => "answers every CPUID request of the GHCB protocol with zeros",
    MissingLeaf = "a5-missing-leaf" => "leaves CPUID leaf 0 out of the CPUID page",
    XsaveSize = "a5-xsave-size" => "says in the CPUID page that the area of AVX is 4 KiB longer than it is",
    LeafTwice = "a5-leaf-twice" => "puts CPUID leaf 1 into the CPUID page twice, with different answers",
    TooManyLeaves = "a5-too-many" => "says that the CPUID page has more entries than fit",
    Remap = "a6-remap" => "puts another page under the guest's stack",
    Revalidated = "a6-unchanged" => "makes PVALIDATE say that a page was valid before",
    Rescinded = "a6-rescinded" => "makes PVALIDATE say that the page which is to be shared was not valid before",
    ValidationFails = "a6-fails" => "makes PVALIDATE fail",
    Split = "a6-split" => "splits every 2 MiB page into small ones before the guest validates it",
    ShareRefused = "a7-refused" => "refuses to take a page that the guest shares",
    ShareForged = "a7-still-private" => "says that it took a page that the guest shares, and leaves it private",
    StaleLines = "a8-stale-lines" => "leaves stale cache lines in pages until their first and last line are touched (CVE-2025-38560)",
    NotValid = "a9-not-valid" => "answers port input without marking RAX as valid",
    Error = "a9-error" => "answers accesses to device memory with an error code",
    WrongAnswer = "a9-wrong-answer" => "answers the registration of the GHCB with another address",
    ChangeStalls = "a9-psc-stalls" => "makes no progress with a page-state change",
    ChangeRewritten = "a9-psc-rewritten" => "says that a page-state change is done after its first entry",
    DoubleFetch = "a9-double-fetch" => "changes each field of the GHCB once the guest has read it",
    NoMemory = "a10-no-memory" => "gives the guest no memory at all",
    LittleMemory = "a10-little-memory" => "gives the guest half of its memory",
    Replay = "a11-replay" => "answers the second guest message with the answer to the first",
    WrongSequence = "a11-sequence" => "changes the sequence number of the AMD-SP's answer",
    WrongVersion = "a11-version" => "changes the message version of the AMD-SP's answer",
    Altered = "a11-altered" => "flips a bit in the AMD-SP's answer",
    Status = "a11-status" => "says that the AMD-SP refused a guest message",
    Dropped = "a11-dropped" => "says that a guest message was answered, and answers nothing",
    Busy = "a11-busy" => "says three times that it is busy, and carries the message then",
    ReplyChanges = "a11-double-fetch" => "changes each byte of the AMD-SP's answer once the guest has read it",
    WrongId = "a12-wrong-id" => "puts another device at the slot of the weights disk",
    NoPlatform = "a12-no-platform" => "withholds VIRTIO_F_ACCESS_PLATFORM",
    RegistersOutside = "a12-registers-outside" => "says that virtio registers lie outside of the device",
    CapabilityCircle = "a12-capability-circle" => "makes the list of PCI capabilities a circle",
    Generation = "a12-config-changes" => "changes the device configuration whenever it is read",
    IndexJump = "a12-index-jump" => "moves the disk's used index past what was submitted",
    IdTooLarge = "a12-id-too-large" => "returns a descriptor that does not exist",
    IdInside = "a12-id-inside" => "returns the middle of a descriptor chain",
    TooLong = "a12-too-long" => "says that the disk wrote more than there was room for",
    ResetInFlight = "a12-reset-in-flight" => "resets the disk while it works on a request, with a clock that runs fast",
    Rewritten = "a12-descriptor-rewritten" => "rewrites the disk's descriptors once it has returned them",
    CardIndexJump = "a12-card-index-jump" => "moves the network card's used index past what was submitted",
    CardMac = "a12-card-mac" => "gives the network card a multicast address",
    BitFlip = "a13-bit-flip" => "flips one bit of the weights",
    Truncated = "a13-truncated" => "fails to read the second half of the weights",
    Silent = "a13-silent" => "never answers a read of the weights, with a clock that runs fast",
    Slow = "a13-slow" => "takes a tenth of a second for each read of the weights",
    SecondRead = "a13-second-read" => "gives other bytes to whoever reads a sector of the weights a second time",
    TimeStops = "a14-stopped" => "stops the time-stamp counter when the guest listens",
    TimeJumps = "a14-jumps" => "moves the time-stamp counter by more and more years, whenever a frame waits for the guest",
    TimeBackwards = "a14-backwards" => "lets the time-stamp counter run backwards",
    RandomStuck = "a15-stuck" => "RDSEED and RDRAND give one number for ever",
    RandomCycle = "a15-cycle" => "RDSEED and RDRAND give five numbers in turn",
    RandomFails = "a15-failing" => "RDSEED and RDRAND never have a number ready",
    NoRandom = "a15-none" => "says in the CPUID page that there are no RDSEED and RDRAND",
    NeverStarted = "a16-never" => "says that it started another vCPU and does not, with a clock that runs fast",
    StartRefused = "a16-refused" => "refuses to start another vCPU",
    LaunchVmsa = "a16-launch-vmsa" => "starts another vCPU from the VMSA of the launch, with a clock that runs fast",
    StartedTwice = "a16-twice" => "starts another vCPU a second time when the guest listens",
    NeverWoken = "a16-asleep" => "never wakes a vCPU that sleeps",
    ExtraDevices = "a18-extra-devices" => "adds PCI devices, an option ROM, fw_cfg files and SMBIOS tables, and watches who looks at them",
    Scribble = "a19-scribble" => "writes noise over all shared memory that no device works on, at every event",
    Search = "a20-search" => "searches the guest's memory for the canary while a request runs and after the session",
    DebugPolicy = "a21-debug-policy" => "launches the guest with a policy that allows debugging",
    MigrationPolicy = "a21-migration-policy" => "launches the guest with a policy that allows migration",
}

/// What [`Lie::Search`] looks for: whoever plays the client sends it.
pub const CANARY: &[u8] = b"kanarienvogel-9f27c1d8e6b45a03";

/// From this slot on of PCI bus 0 are the devices of [`Lie::ExtraDevices`], which no guest has a reason to look at.
pub const TRAP_SLOT: u8 = 0x18;

impl Lie {
    /// The lie of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|lie| lie.name() == name)
    }

    /// Whether all vCPUs must share one thread: the lie takes a page away for single instructions, while no other CPU may
    /// run.
    pub const fn needs_one_cpu(self) -> bool {
        matches!(self, Self::StaleLines | Self::DoubleFetch | Self::ReplyChanges)
    }

    /// Whether the processor's random number instructions must be the model's to answer, so that QEMU's must not have
    /// them.
    pub const fn needs_random_exits(self) -> bool {
        matches!(self, Self::RandomStuck | Self::RandomCycle | Self::RandomFails)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::MAX_SCENARIO_BYTES;

    #[test]
    fn names_are_those_of_rows_and_read_back() {
        let mut row = 0;
        for lie in Lie::ALL {
            assert_eq!(Lie::from_name(lie.name()), Some(*lie));
            assert!(lie.name().len() <= MAX_SCENARIO_BYTES, "{lie:?}");
            let number = lie.name()[1..].split('-').next().and_then(|digits| digits.parse::<u32>().ok());
            assert!(number >= Some(row), "{lie:?} is out of order");
            row = number.unwrap();
            assert!((1..=21).contains(&row), "{lie:?}");
        }
        assert_eq!(Lie::from_name("a6"), None);
    }
}
