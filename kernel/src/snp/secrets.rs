//! The secrets page: the key that the guest shares with the AMD-SP (SNP ABI, AMD 56860, §8.17.2.5).

use crate::fatal::{Fatal, OrFatal};
use wire::termination::Termination;
use zeroize::{Zeroize, Zeroizing};

/// Guest-physical address at which both containers ask for the page.
pub const GPA: u64 = 0x10_1000;
/// Bytes of the page.
pub const BYTES: usize = 4096;

const VERSION: core::ops::Range<usize> = 0..4;
const VMPCK0: core::ops::Range<usize> = 0x20..0x40;
const ALL_VMPCKS: core::ops::Range<usize> = 0x20..0xa0;

/// Takes VMPCK0 out of the page; after that the page holds no key of any VMPL.
pub fn take_vmpck0(page: &mut [u8; BYTES]) -> OrFatal<Zeroizing<[u8; 32]>> {
    let mut version = [0; 4];
    version.copy_from_slice(&page[VERSION]);
    let version = u32::from_le_bytes(version);
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&page[VMPCK0]);
    page[ALL_VMPCKS].zeroize();
    // Version 2 is the first of an SNP firmware that is still supported; an absent key would make every message forgeable.
    if version < 2 || key.iter().all(|byte| *byte == 0) {
        return Err(Fatal::new(Termination::GuestMessage, version.into()));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_taken_and_the_page_keeps_none() {
        let mut page = [0xaa; BYTES];
        page[VERSION].copy_from_slice(&3u32.to_le_bytes());
        page[VMPCK0].fill(0x11);
        assert_eq!(*take_vmpck0(&mut page).unwrap(), [0x11; 32]);
        assert!(page[ALL_VMPCKS].iter().all(|byte| *byte == 0));
        assert_eq!(page[0xa0], 0xaa);
        assert!(take_vmpck0(&mut page).is_err(), "a second time there is no key");
    }

    #[test]
    fn a_page_without_a_version_is_refused() {
        assert!(take_vmpck0(&mut [0; BYTES]).is_err());
    }
}
