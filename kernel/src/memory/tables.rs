//! Whether the page tables, as they are, allow what they must and nothing else (APM vol. 2, §5.3).
//!
//! The guest looks at its own tables once, when all is set up, and does not serve if a rule is broken: no byte is both
//! writable and executable, code is where the image's code is, memory is shared exactly where it is meant to be, what was
//! frozen cannot be written, and the pages under the stacks are not there.

use super::layout::TABLE;
use crate::fatal::{Fatal, OrFatal};
use crate::snp::cpuid::C_BIT;
use core::ops::Range;
use wire::termination::Termination;

/// The entry means something.
pub const PRESENT: u64 = 1;
/// Ring 0 may write, as CR0.WP is set.
pub const WRITABLE: u64 = 1 << 1;
/// Ring 3 may, too.
const USER: u64 = 1 << 2;
/// The entry maps a frame.
pub const LARGE: u64 = 1 << 7;
/// The C-bit.
pub const PRIVATE: u64 = 1 << C_BIT;
/// Nobody may execute.
pub const NO_EXECUTE: u64 = 1 << 63;
/// Bits 50 to 12: an address below the C-bit.
pub const ADDRESS: u64 = 0x0007_ffff_ffff_f000;

/// What the tables must be like.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    /// Executable, and not writable.
    pub code: Range<u64>,
    /// Shared with the host; nothing else is.
    pub shared: [Range<u64>; 2],
    /// Not writable.
    pub frozen: [Range<u64>; 2],
    /// Pages that are not mapped.
    pub absent: &'a [u64],
}

impl Rules<'_> {
    /// Walks all tables below `root`. `read` gives the entry at an address. The number of pages and frames that are mapped.
    pub fn check(&self, root: u64, read: &impl Fn(u64) -> u64) -> OrFatal<u64> {
        self.table(root, 0, 39, read)
    }

    fn table(&self, table: u64, first: u64, shift: u32, read: &impl Fn(u64) -> u64) -> OrFatal<u64> {
        let mut mapped = 0;
        for index in 0..TABLE / 8 {
            let (entry, start) = (read(table + 8 * index), first + (index << shift));
            if entry & PRESENT == 0 {
                continue;
            }
            mapped += if shift == 12 || entry & LARGE != 0 {
                self.leaf(entry, start..start + (1 << shift))?;
                1
            } else if entry & (PRIVATE | USER) == PRIVATE && start < 1 << 47 {
                self.table(entry & ADDRESS, start, shift - 9, read)?
            } else {
                return Err(Fatal::new(Termination::PageTables, start));
            };
        }
        Ok(mapped)
    }

    fn leaf(&self, entry: u64, page: Range<u64>) -> OrFatal<()> {
        let (writable, executable) = (entry & WRITABLE != 0, entry & NO_EXECUTE == 0);
        let shared = entry & PRIVATE == 0;
        let touches = |range: &Range<u64>| range.start < page.end && page.start < range.end;
        let within = |range: &Range<u64>| range.start <= page.start && page.end <= range.end;
        let right = entry & ADDRESS == page.start
            && entry & USER == 0
            && !(writable && executable)
            && (if executable { within(&self.code) } else { !touches(&self.code) })
            && (if shared { self.shared.iter().any(within) } else { !self.shared.iter().any(touches) })
            && !(writable && self.frozen.iter().any(touches))
            && !self.absent.iter().any(|absent| page.contains(absent));
        if right { Ok(()) } else { Err(Fatal::new(Termination::PageTables, page.start)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// What it is, where its entry and its page are, and what becomes of the entry.
    type Breach = (&'static str, (u64, u64), fn(u64) -> u64);

    const FRAME: u64 = 2 << 20;
    const DATA: u64 = PRESENT | WRITABLE | PRIVATE | NO_EXECUTE;
    const DIRECTORY: u64 = 0x3000;
    const PAGES: u64 = 0x4000;

    /// Code in page 0x20_0000, data in 0x20_1000, a guard at 0x20_2000, a shared page at 0x20_3000; then a shared frame, a frozen
    /// one, and one of data.
    fn tables() -> BTreeMap<u64, u64> {
        let link = PRESENT | WRITABLE | PRIVATE;
        let mut tables = BTreeMap::from([
            (0x1000, 0x2000 | link),
            (0x2000, DIRECTORY | link),
            (DIRECTORY + 8, PAGES | link),
            (PAGES, FRAME | PRESENT | PRIVATE),
            (PAGES + 8, (FRAME + 0x1000) | DATA),
            (PAGES + 24, (FRAME + 0x3000) | DATA & !PRIVATE),
        ]);
        for (index, flags) in [(2, DATA & !PRIVATE), (3, DATA & !WRITABLE), (4, DATA)] {
            tables.insert(DIRECTORY + 8 * index, (index * FRAME) | flags | LARGE);
        }
        tables
    }

    fn checked(tables: &BTreeMap<u64, u64>) -> OrFatal<u64> {
        let rules = Rules {
            code: FRAME..FRAME + 0x1000,
            shared: [FRAME + 0x3000..FRAME + 0x4000, 2 * FRAME..3 * FRAME],
            frozen: [0..0, 3 * FRAME..4 * FRAME],
            absent: &[FRAME + 0x2000],
        };
        rules.check(0x1000, &|at| tables.get(&at).copied().unwrap_or(0))
    }

    #[test]
    fn what_is_mapped_as_it_must_be_is_counted() {
        assert_eq!(checked(&tables()), Ok(6));
    }

    #[test]
    fn every_breach_of_a_rule_ends_the_vm() {
        let (page, frame) =
            (|n: u64| (PAGES + 8 * n, FRAME + 0x1000 * n), |n: u64| (DIRECTORY + 8 * n, n * FRAME));
        let breaches: &[Breach] = &[
            ("writable code", page(0), |entry| entry | WRITABLE),
            ("code that cannot be executed", page(0), |entry| entry | NO_EXECUTE),
            ("code that the host can change", page(0), |entry| entry & !PRIVATE),
            ("executable data", page(1), |entry| entry & !NO_EXECUTE),
            ("executable constants", page(1), |entry| entry & !NO_EXECUTE & !WRITABLE),
            ("data that the host can read", page(1), |entry| entry & !PRIVATE),
            ("data for ring 3", page(1), |entry| entry | USER),
            ("another page's address", page(1), |entry| entry + 0x1000),
            ("a guard that is mapped", page(2), |_| (FRAME + 0x2000) | DATA),
            ("a private GHCB", page(3), |entry| entry | PRIVATE),
            ("a private device frame", frame(2), |entry| entry | PRIVATE),
            ("an executable shared frame", frame(2), |entry| entry & !NO_EXECUTE),
            ("writable weights", frame(3), |entry| entry | WRITABLE),
            ("an executable frame", frame(4), |entry| entry & !NO_EXECUTE),
            ("a shared heap", frame(4), |entry| entry & !PRIVATE),
        ];
        for (what, (at, address), change) in breaches {
            let mut tables = tables();
            let entry = tables.get(at).copied().unwrap_or(0);
            tables.insert(*at, change(entry));
            assert_eq!(checked(&tables), Err(Fatal::new(Termination::PageTables, *address)), "{what}");
        }
        for table in [0x1000, 0x2000, DIRECTORY + 8] {
            for change in [|entry| entry & !PRIVATE, |entry: u64| entry | USER] {
                let mut tables = tables();
                tables.entry(table).and_modify(|entry| *entry = change(*entry));
                assert!(checked(&tables).is_err(), "a table that is shared or of ring 3: {table:#x}");
            }
        }
    }
}
