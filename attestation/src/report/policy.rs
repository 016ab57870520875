//! What the firmware enforces for a guest, and what it says of its platform.

use core::fmt;

/// The guest policy (AMD 56860, table 9): what the firmware lets the host do with the guest, fixed at launch.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    /// The host may run other threads on the sibling of the guest's core.
    pub const SMT: u64 = 1 << 16;
    /// Reserved, must be one.
    pub const RESERVED_ONE: u64 = 1 << 17;
    /// A migration agent may be associated with the guest.
    pub const MIGRATE_MA: u64 = 1 << 18;
    /// The host may decrypt the guest's memory.
    pub const DEBUG: u64 = 1 << 19;
    /// The guest stays on one socket.
    pub const SINGLE_SOCKET: u64 = 1 << 20;
    /// CXL devices or memory may be populated.
    pub const CXL_ALLOW: u64 = 1 << 21;
    /// Memory must be encrypted with AES-256-XTS.
    pub const MEM_AES_256_XTS: u64 = 1 << 22;
    /// Running average power limit must be off: it is a power side channel.
    pub const RAPL_DIS: u64 = 1 << 23;
    /// The host must not be able to read ciphertext.
    pub const CIPHERTEXT_HIDING: u64 = 1 << 24;
    /// The host may not move or swap the guest's pages.
    pub const PAGE_SWAP_DISABLE: u64 = 1 << 25;
    /// Every bit that has a meaning here.
    pub const KNOWN: u64 = (1 << 26) - 1;

    /// The policy that every Cloister guest is launched with (REQUIREMENTS B3). The ABI minimum is 1.55, the first
    /// whose firmware knows ciphertext hiding and checks for aliased memory.
    pub const CLOISTER: Self = Self(
        0x0137
            | Self::RESERVED_ONE
            | Self::SINGLE_SOCKET
            | Self::MEM_AES_256_XTS
            | Self::RAPL_DIS
            | Self::CIPHERTEXT_HIDING,
    );

    /// True if every bit of `bits` is set.
    pub const fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }

    /// The lowest firmware ABI that may run the guest, as (major, minor).
    pub const fn abi(self) -> (u8, u8) {
        let [minor, major, ..] = self.0.to_le_bytes();
        (major, minor)
    }
}

impl fmt::Debug for GuestPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestPolicy({:#x})", self.0)
    }
}

/// What the platform is and has done (AMD 56860, table 23).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlatformInfo(pub u64);

impl PlatformInfo {
    /// SMT is on.
    pub const SMT_EN: u64 = 1 << 0;
    /// Transparent memory encryption is on.
    pub const TSME_EN: u64 = 1 << 1;
    /// Memory has error correction.
    pub const ECC_EN: u64 = 1 << 2;
    /// Running average power limit is off.
    pub const RAPL_DIS: u64 = 1 << 3;
    /// Ciphertext hiding is on.
    pub const CIPHERTEXT_HIDING_DRAM_EN: u64 = 1 << 4;
    /// Memory was checked for aliases since reset and none were found (BadRAM).
    pub const ALIAS_CHECK_COMPLETE: u64 = 1 << 5;
    /// Trusted I/O is on.
    pub const TIO_EN: u64 = 1 << 7;

    /// What a platform reports on which a guest with [`GuestPolicy::CLOISTER`] runs, and aliases were checked for.
    pub const CLOISTER: Self =
        Self(Self::ECC_EN | Self::RAPL_DIS | Self::CIPHERTEXT_HIDING_DRAM_EN | Self::ALIAS_CHECK_COMPLETE);

    /// True if every bit of `bits` is set.
    pub const fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }
}

impl fmt::Debug for PlatformInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlatformInfo({:#x})", self.0)
    }
}
