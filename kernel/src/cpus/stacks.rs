//! Where a CPU's stacks lie: each with a page under it that is never mapped.

use core::ops::Range;

const PAGE: u64 = 4096;

/// Bytes of the area that holds the stacks of one CPU.
pub const AREA: u64 = 64 * PAGE;

/// The stacks of one CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stacks {
    /// The program's.
    pub main: Range<u64>,
    /// `#VC`'s.
    pub vc: Range<u64>,
    /// The double fault's.
    pub double_fault: Range<u64>,
    /// All other vectors'.
    pub others: Range<u64>,
}

impl Stacks {
    /// The stacks in the area at `start`.
    pub fn in_area(start: u64) -> Self {
        let pages = |first: u64, end: u64| start + first * PAGE..start + end * PAGE;
        Self { main: pages(1, 49), vc: pages(50, 54), double_fault: pages(55, 59), others: pages(60, 64) }
    }

    /// The pages that are not mapped.
    pub fn guards(&self) -> [u64; 4] {
        [&self.main, &self.vc, &self.double_fault, &self.others].map(|stack| stack.start - PAGE)
    }

    /// Whether an access to `address` ran out of one of the stacks.
    pub fn is_guard(&self, address: u64) -> bool {
        self.guards().contains(&(address & !(PAGE - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_of_an_area_is_a_guard_or_of_one_stack() {
        let stacks = Stacks::in_area(0x40_0000);
        for page in (0x40_0000..0x40_0000 + AREA).step_by(PAGE as usize) {
            let uses = [&stacks.main, &stacks.vc, &stacks.double_fault, &stacks.others]
                .iter()
                .filter(|stack| stack.contains(&page))
                .count()
                + usize::from(stacks.is_guard(page + 8));
            assert_eq!(uses, 1, "{page:#x}");
        }
        assert!(!stacks.is_guard(0x40_0000 - 1) && !stacks.is_guard(0x40_0000 + AREA));
    }
}
