//! Page-state changes, as both GHCB protocols write them (GHCB §2.5.1 and §4.1.6).

use crate::rmp::{LARGE_BYTES, Size};

/// Entries that fit into the GHCB's shared buffer behind the header of 8 bytes.
pub const MAX_ENTRIES: u16 = 253;

/// What is asked of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Give it to the guest.
    Private,
    /// Give it to the hypervisor.
    Shared,
    /// Split a 2 MiB entry.
    Smash,
    /// Join 512 entries.
    Unsmash,
}

impl Operation {
    fn from_bits(bits: u64) -> Option<Self> {
        match bits {
            1 => Some(Self::Private),
            2 => Some(Self::Shared),
            3 => Some(Self::Smash),
            4 => Some(Self::Unsmash),
            _ => None,
        }
    }
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Guest-physical address of the page.
    pub gpa: u64,
    /// Its size.
    pub size: Size,
    /// What is asked.
    pub operation: Operation,
}

/// The request of the GHCB MSR protocol (`GHCBInfo` 0x014): GFN in bits 51:12, operation in 55:52, the rest
/// zero. It can only ask for 4 KiB to become private or shared.
pub fn from_msr(value: u64) -> Option<Change> {
    let operation = Operation::from_bits(value >> 52 & 0xF)?;
    let simple = matches!(operation, Operation::Private | Operation::Shared);
    (simple && value >> 56 == 0).then_some(Change {
        gpa: value & 0xF_FFFF_FFFF_F000,
        size: Size::Small,
        operation,
    })
}

/// The header of the list in the shared buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Next entry to process.
    pub current: u16,
    /// Last entry.
    pub end: u16,
}

impl Header {
    /// Reads the header; `None` if it points past the buffer or backwards.
    pub fn parse(word: u64) -> Option<Self> {
        let header = Self { current: word as u16, end: (word >> 16) as u16 };
        (header.end < MAX_ENTRIES && header.current <= header.end).then_some(header)
    }
}

/// One entry of the list: current page in bits 11:0, GFN in 51:12, operation in 55:52, page size in bit 56.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is asked.
    pub change: Change,
    /// Its first 4 KiB page that is not done yet.
    pub current_page: u16,
}

impl Entry {
    /// Reads an entry; `None` if it asks for something undefined or misaligned.
    pub fn parse(word: u64) -> Option<Self> {
        let operation = Operation::from_bits(word >> 52 & 0xF)?;
        let size = if word >> 56 & 1 == 1 { Size::Large } else { Size::Small };
        let gpa = word & 0xF_FFFF_FFFF_F000;
        let current_page = (word & 0xFFF) as u16;
        let pages = (size.bytes() / Size::Small.bytes()) as u16;
        // Smash and unsmash speak of 2 MiB pages whatever the size bit says.
        let about_large = size == Size::Large || matches!(operation, Operation::Smash | Operation::Unsmash);
        let aligned = !about_large || gpa.is_multiple_of(LARGE_BYTES);
        let sound = word >> 57 == 0 && aligned && current_page <= pages;
        sound.then_some(Self { change: Change { gpa, size, operation }, current_page })
    }

    /// The entry's word once it is done: the current page stands behind the last.
    pub fn done(word: u64, size: Size) -> u64 {
        word & !0xFFF | (size.bytes() / Size::Small.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_msr_protocol_asks_for_4_kib() {
        let change = |operation| Some(Change { gpa: 0x1234_5000, size: Size::Small, operation });
        assert_eq!(from_msr(1 << 52 | 0x1234_5000 | 0x014), change(Operation::Private));
        assert_eq!(from_msr(2 << 52 | 0x1234_5000 | 0x014), change(Operation::Shared));
        for bad in [0, 3 << 52, 15 << 52, 1 << 56 | 1 << 52, 1 << 63 | 1 << 52] {
            assert_eq!(from_msr(bad | 0x1234_5014), None, "{bad:#x}");
        }
    }

    #[test]
    fn a_list_stays_in_its_buffer() {
        assert_eq!(Header::parse(252 << 16), Some(Header { current: 0, end: 252 }));
        assert_eq!(Header::parse(7 << 16 | 7), Some(Header { current: 7, end: 7 }));
        assert_eq!(Header::parse(253 << 16), None);
        assert_eq!(Header::parse(7 << 16 | 8), None);
    }

    #[test]
    fn entries_are_defined_and_aligned() {
        let large = 1 << 56 | 1 << 52 | 0x20_0000;
        let entry = Entry::parse(large).unwrap();
        assert_eq!(entry.change, Change { gpa: 0x20_0000, size: Size::Large, operation: Operation::Private });
        assert_eq!(Entry::done(large, Size::Large) & 0xFFF, 512);
        assert_eq!(Entry::done(2 << 52 | 0x3000, Size::Small), 2 << 52 | 0x3001);
        for bad in [0, large | 0x1000, large | 1 << 57, large | 0x201, 5 << 52, 1 << 52 | 2, 3 << 52 | 0x3000]
        {
            assert_eq!(Entry::parse(bad), None, "{bad:#x}");
        }
    }
}
