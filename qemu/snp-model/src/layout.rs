//! Where memory is: the guest's, as q35 places it, and the machine's under it, for which launcher and model must agree.
//!
//! QEMU gives a q35 machine of 2.75 GiB or more its first 2 GiB from address 0 and the rest from 4 GiB on (`pc_q35_init`).
//! The model always runs on such a machine, whatever the guest's size:
//!
//! | host-physical, from | to | holds |
//! |---|---|---|
//! | 0 | 2 GiB | the guest's pages below 2 GiB while they are shared |
//! | 4 GiB | [`Layout::private_base`] | the guest's pages above 4 GiB while they are shared |
//! | [`Layout::private_base`] | [`Layout::model_base`] | all of the guest's RAM while it is private |
//! | [`Layout::model_base`] | end | the model |
//!
//! So a shared page is where the guest's own address says, and devices reach it. A guest of 2 to 2.75 GiB has RAM from
//! 2 GiB on that its own q35 puts there and the model's has not: it can be private only.

use core::ops::Range;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// From this size on q35 puts RAM above 4 GiB.
const SPLIT: u64 = 0xB000_0000;
/// What is below then.
const LOW: u64 = 2 * GIB;
/// Where RAM goes on.
pub const HIGH_START: u64 = 4 * GIB;
/// End of the model's map of host-physical memory.
pub const HOST_END: u64 = 512 * GIB;
/// The ROMs and the video memory of a PC, which is no RAM of the machine; pages there are private or nothing.
const LEGACY: Range<u64> = 0xA_0000..0x10_0000;

/// A guest's RAM, and where the model keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    low: u64,
    high: u64,
}

impl Layout {
    /// The RAM of a guest with `bytes` of it.
    pub const fn of(bytes: u64) -> Self {
        let low = if bytes < SPLIT { bytes } else { LOW };
        Self { low, high: bytes - low }
    }

    /// Bytes of RAM.
    pub const fn bytes(self) -> u64 {
        self.low + self.high
    }

    /// Guest-physical addresses of all RAM; the second range may be empty.
    pub const fn ranges(self) -> [Range<u64>; 2] {
        [0..self.low, HIGH_START..HIGH_START + self.high]
    }

    /// The number of a byte of RAM, counted without the hole below 4 GiB; `None` if there is no RAM.
    pub const fn index(self, gpa: u64) -> Option<u64> {
        if gpa < self.low {
            Some(gpa)
        } else if gpa >= HIGH_START && gpa - HIGH_START < self.high {
            Some(self.low + (gpa - HIGH_START))
        } else {
            None
        }
    }

    /// Bytes of RAM from `gpa` to the next hole; 0 if there is none.
    pub const fn run_from(self, gpa: u64) -> u64 {
        if gpa < self.low {
            self.low - gpa
        } else if gpa >= HIGH_START && gpa - HIGH_START < self.high {
            HIGH_START + self.high - gpa
        } else {
            0
        }
    }

    /// Host-physical address of a guest-physical one while its page is shared.
    pub fn shared(self, gpa: u64) -> Option<u64> {
        let there = gpa < LOW && !LEGACY.contains(&gpa) || gpa >= HIGH_START;
        self.index(gpa).filter(|_| there).map(|_| gpa)
    }

    /// Host-physical address of a guest-physical one while its page is private.
    pub fn private(self, gpa: u64) -> Option<u64> {
        Some(self.private_base() + self.index(gpa)?)
    }

    /// Where private RAM begins.
    pub const fn private_base(self) -> u64 {
        HIGH_START + self.high
    }

    /// Where the model begins.
    pub const fn model_base(self) -> u64 {
        self.private_base() + self.bytes()
    }

    /// Bytes that the model has for itself: heap, RMP, and nested tables for RAM in pages of 4 KiB twice.
    pub const fn model_bytes(self) -> u64 {
        (256 * MIB + self.bytes() / 128).next_multiple_of(MIB)
    }

    /// RAM of the machine in MiB, for QEMU's `-m`.
    pub const fn machine_mib(self) -> u64 {
        let bytes = LOW + (self.model_base() - HIGH_START) + self.model_bytes();
        (if bytes < SPLIT { SPLIT } else { bytes }) / MIB
    }

    /// Whether the model can run such a guest.
    pub const fn fits(self) -> bool {
        self.bytes().is_multiple_of(2 * MIB) && self.model_base() + self.model_bytes() <= HOST_END
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_is_where_q35_puts_it() {
        let small = Layout::of(1024 * MIB);
        assert_eq!(small.index(GIB - 1), Some(GIB - 1));
        assert_eq!(small.index(GIB), None);
        assert_eq!(small.index(HIGH_START), None);
        let below = Layout::of(SPLIT - 2 * MIB);
        assert_eq!(below.index(SPLIT - 2 * MIB - 1), Some(SPLIT - 2 * MIB - 1));
        let large = Layout::of(16 * GIB);
        assert_eq!(large.index(LOW), None);
        assert_eq!(large.index(HIGH_START), Some(LOW));
        assert_eq!(large.index(18 * GIB - 1), Some(16 * GIB - 1));
        assert_eq!(large.index(18 * GIB), None);
        assert_eq!((large.run_from(0), large.run_from(LOW), large.run_from(17 * GIB)), (LOW, 0, GIB));
    }

    #[test]
    fn shared_pages_keep_their_address_and_never_meet_private_ones() {
        for gib in [1, 2, 3, 4, 16, 240] {
            let layout = Layout::of(gib * GIB);
            assert!(layout.fits());
            let machine = layout.machine_mib() * MIB;
            for gpa in [0, 0x9_F000, 0xA_0000, 0x10_0000, GIB - 0x1000, LOW, HIGH_START, HIGH_START + GIB] {
                if let Some(shared) = layout.shared(gpa) {
                    assert_eq!(shared, gpa);
                    assert!(shared < LOW || shared < layout.private_base());
                }
                if let Some(private) = layout.private(gpa) {
                    assert!((layout.private_base()..layout.model_base()).contains(&private));
                }
                assert_eq!(layout.private(gpa).is_some(), layout.index(gpa).is_some());
            }
            assert!(machine >= SPLIT && machine - LOW + HIGH_START >= layout.model_base() + 256 * MIB);
        }
        let between = Layout::of(2560 * MIB);
        assert!(between.shared(LOW).is_none() && between.private(LOW).is_some());
        assert!(!Layout::of(256 * GIB).fits() && !Layout::of(3 * MIB).fits());
    }
}
