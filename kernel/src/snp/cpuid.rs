//! The CPUID page: the answers that the AMD-SP checked at launch (REQUIREMENTS A5).
//!
//! `cpuid` itself is intercepted and the host answers it, so the guest never executes it for a decision: every fact
//! comes from this page. Layout: SNP ABI (AMD 56860), §8.17.2.6, "CPUID page". The AMD-SP checks the leaves of
//! the processor; what the host put at 0x4000_0000 and above is unchecked and is used for timeouts only.

use crate::fatal::{Fatal, OrFatal};
use wire::termination::Termination;

/// Guest-physical address at which both containers ask for the page.
pub const GPA: u64 = 0x10_0000;
/// Bytes of the page.
pub const BYTES: usize = 4096;
/// Bit of a page-table entry that makes a page private.
pub const C_BIT: u32 = 51;

const MAX_ENTRIES: usize = 64;
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = 48;

/// The state components that the guest may enable: x87, SSE, AVX, and the three of AVX-512.
const XCR0_KNOWN: u64 = 0b1110_0111;
const XCR0_BASE: u64 = 0b011;
const XCR0_AVX: u64 = 0b100;
const XCR0_AVX512: u64 = 0b1110_0000;
/// The legacy area and the XSAVE header (APM vol. 2, §11.5.2).
const XSAVE_BASE_BYTES: u32 = 576;

/// The four registers of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    leaf: u32,
    subleaf: u32,
    xcr0: u64,
    xss: u64,
    answer: Registers,
}

/// The page's answers, copied once and checked.
#[derive(Debug)]
pub struct CpuidTable {
    entries: [Entry; MAX_ENTRIES],
    count: usize,
    xcr0: u64,
}

impl CpuidTable {
    /// Copies the page and checks that its answers fit together.
    pub fn new(page: &[u8; BYTES]) -> OrFatal<Self> {
        let malformed = |value| Fatal::new(Termination::CpuidPage, value);
        let count = word(page, 0) as usize;
        if count == 0 || count > MAX_ENTRIES {
            return Err(malformed(count as u64));
        }
        let mut table = Self { entries: [Entry::default(); MAX_ENTRIES], count, xcr0: 0 };
        for (index, entry) in table.entries[..count].iter_mut().enumerate() {
            let at = HEADER_BYTES + index * ENTRY_BYTES;
            *entry = Entry {
                leaf: word(page, at),
                subleaf: word(page, at + 4),
                xcr0: long(page, at + 8),
                xss: long(page, at + 16),
                answer: Registers {
                    eax: word(page, at + 24),
                    ebx: word(page, at + 28),
                    ecx: word(page, at + 32),
                    edx: word(page, at + 36),
                },
            };
        }
        table.check_unique()?;
        let c_bit = table.leaf(0x8000_001f, 0)?.ebx & 0x3f;
        if c_bit != C_BIT {
            return Err(Fatal::new(Termination::CBit, c_bit.into()));
        }
        table.xcr0 = table.extended_states()?;
        Ok(table)
    }

    /// The answer to `cpuid` with this EAX and ECX.
    pub fn leaf(&self, leaf: u32, subleaf: u32) -> OrFatal<Registers> {
        self.find(leaf, subleaf)
            .ok_or(Fatal::new(Termination::CpuidLeaf, u64::from(leaf) << 32 | u64::from(subleaf)))
    }

    /// Like [`Self::leaf`], for a leaf that need not be there.
    pub fn find(&self, leaf: u32, subleaf: u32) -> Option<Registers> {
        let subleaf = if is_indexed(leaf) { subleaf } else { 0 };
        let answer =
            |subleaf| self.entries().find(|e| e.leaf == leaf && e.subleaf == subleaf).map(|e| e.answer);
        // Leaf 7 says in EAX how many subleaves it has; those beyond are zeros (APM vol. 3, §E.3.6).
        answer(subleaf).or_else(|| (leaf == 7 && answer(0)?.eax < subleaf).then_some(Registers::default()))
    }

    /// The answer that the instruction gives to code: the page's, with the bit that mirrors CR4 (APM vol. 3, §E.3.2).
    pub fn instruction(&self, leaf: u32, subleaf: u32) -> OrFatal<Registers> {
        let mut answer = self.leaf(leaf, subleaf)?;
        if leaf == 1 && self.xcr0 != 0 {
            answer.ecx |= 1 << 27;
        }
        Ok(answer)
    }

    /// The extended states to enable in XCR0; 0 if the processor has no XSAVE.
    pub const fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// Whether the processor has it.
    pub fn has(&self, Feature(leaf, register, bit): Feature) -> bool {
        self.find(leaf, 0).is_some_and(|answer| register(answer) >> bit & 1 == 1)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        // Leaf 0xd tells sizes for several XCR0 values; only those for the reset value are fixed facts.
        self.entries[..self.count]
            .iter()
            .filter(|e| e.leaf != 0xd || e.subleaf > 1 || (e.xcr0 <= 3 && e.xss == 0))
    }

    fn check_unique(&self) -> OrFatal<()> {
        for (index, entry) in self.entries().enumerate() {
            let twin = |other: &Entry| other.leaf == entry.leaf && other.subleaf == entry.subleaf;
            if self.entries().skip(index + 1).any(twin) {
                return Err(Fatal::new(Termination::CpuidPage, entry.leaf.into()));
            }
        }
        Ok(())
    }

    /// Which states may be enabled, after a look at their sizes: a wrong size is a buffer overrun in code that trusts it.
    fn extended_states(&self) -> OrFatal<u64> {
        if !self.has(Feature::XSAVE) {
            return Ok(0);
        }
        let base = self.leaf(0xd, 0)?;
        let supported = u64::from(base.eax) | u64::from(base.edx) << 32;
        let inconsistent = Fatal::new(Termination::CpuidPage, 0xd);
        let mut states = supported & XCR0_KNOWN;
        if !self.has(Feature::AVX512) || states & XCR0_AVX512 != XCR0_AVX512 {
            states &= !XCR0_AVX512;
        }
        if !self.has(Feature::AVX) {
            states &= !XCR0_AVX & !XCR0_AVX512;
        }
        if states & XCR0_BASE != XCR0_BASE || base.ecx < XSAVE_BASE_BYTES {
            return Err(inconsistent);
        }
        for state in 2..8 {
            if states >> state & 1 == 0 {
                continue;
            }
            let area = self.leaf(0xd, state)?;
            // Sizes of AVX, opmask, upper halves of ZMM0-15, and ZMM16-31 (APM vol. 2, §11.5.2).
            let size = [0, 0, 256, 0, 0, 64, 512, 1024][state as usize];
            let end = area.ebx.checked_add(area.eax).ok_or(inconsistent)?;
            if area.eax != size || area.ebx < XSAVE_BASE_BYTES || end > base.ecx {
                return Err(inconsistent);
            }
        }
        Ok(states)
    }
}

/// A fact that the guest asks the processor for: leaf, register and bit (APM vol. 3, §E.3).
#[derive(Clone, Copy, Debug)]
pub struct Feature(u32, fn(Registers) -> u32, u32);

impl Feature {
    /// XSAVE and XCR0.
    pub const XSAVE: Self = Self(1, |r| r.ecx, 26);
    /// 256-bit vectors.
    pub const AVX: Self = Self(1, |r| r.ecx, 28);
    /// RDRAND.
    pub const RDRAND: Self = Self(1, |r| r.ecx, 30);
    /// Supervisor-mode execution prevention.
    pub const SMEP: Self = Self(7, |r| r.ebx, 7);
    /// 512-bit vectors.
    pub const AVX512: Self = Self(7, |r| r.ebx, 16);
    /// RDSEED.
    pub const RDSEED: Self = Self(7, |r| r.ebx, 18);
    /// Supervisor-mode access prevention.
    pub const SMAP: Self = Self(7, |r| r.ebx, 20);
    /// User-mode instruction prevention.
    pub const UMIP: Self = Self(7, |r| r.ecx, 2);
}

/// Leaves whose answer depends on ECX (APM vol. 3, appendix E).
const fn is_indexed(leaf: u32) -> bool {
    matches!(leaf, 4 | 7 | 0xb | 0xd | 0xf | 0x10 | 0x12 | 0x14 | 0x17 | 0x18 | 0x1d | 0x1e | 0x1f)
        || matches!(leaf, 0x8000_001d | 0x8000_0020 | 0x8000_0026)
}

fn word(page: &[u8; BYTES], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&page[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn long(page: &[u8; BYTES], at: usize) -> u64 {
    u64::from(word(page, at)) | u64::from(word(page, at + 4)) << 32
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One line of a page: leaf, subleaf, and the four registers.
    pub(crate) type Line = (u32, u32, [u32; 4]);

    /// What a processor with AVX-512 says, as far as the guest asks.
    pub(crate) const GENOA: &[Line] = &[
        (0, 0, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
        (1, 0, [0x00a1_0f11, 0, 1 << 26 | 1 << 28 | 1 << 30, 0]),
        (7, 0, [1, 1 << 7 | 1 << 16 | 1 << 18 | 1 << 20, 1 << 2, 0]),
        (0xd, 0, [0xe7, 0x240, 0x980, 0]),
        (0xd, 1, [0xf, 0x240, 0, 0]),
        (0xd, 2, [256, 0x240, 0, 0]),
        (0xd, 5, [64, 0x340, 0, 0]),
        (0xd, 6, [512, 0x380, 0, 0]),
        (0xd, 7, [1024, 0x580, 0, 0]),
        (0x8000_001f, 0, [0x1a, 51 | 1 << 6, 509, 1]),
    ];

    pub(crate) fn page(lines: &[Line]) -> [u8; BYTES] {
        let mut page = [0; BYTES];
        page[..4].copy_from_slice(&(lines.len() as u32).to_le_bytes());
        for (index, (leaf, subleaf, answer)) in lines.iter().enumerate() {
            let at = HEADER_BYTES + index * ENTRY_BYTES;
            page[at..at + 4].copy_from_slice(&leaf.to_le_bytes());
            page[at + 4..at + 8].copy_from_slice(&subleaf.to_le_bytes());
            page[at + 8] = u8::from(*leaf == 0xd && *subleaf < 2);
            for (i, register) in answer.iter().enumerate() {
                page[at + 24 + 4 * i..at + 28 + 4 * i].copy_from_slice(&register.to_le_bytes());
            }
        }
        page
    }

    fn with(leaf: u32, subleaf: u32, change: impl Fn(&mut [u32; 4])) -> Result<CpuidTable, Termination> {
        let mut lines = GENOA.to_vec();
        for line in &mut lines {
            if (line.0, line.1) == (leaf, subleaf) {
                change(&mut line.2);
            }
        }
        CpuidTable::new(&page(&lines)).map_err(|fatal| fatal.reason)
    }

    #[test]
    fn a_plain_page_is_read() {
        let table = CpuidTable::new(&page(GENOA)).unwrap();
        assert_eq!(table.xcr0(), 0xe7);
        assert!(table.has(Feature::RDSEED) && table.has(Feature::SMEP));
        assert_eq!(table.leaf(0, 77).unwrap().eax, 0x10, "ECX means nothing to leaf 0");
        assert_eq!(table.instruction(1, 0).unwrap().ecx >> 27 & 1, 1, "OSXSAVE mirrors CR4");
    }

    #[test]
    fn a4_another_c_bit_is_refused() {
        assert_eq!(with(0x8000_001f, 0, |r| r[1] = 47).err(), Some(Termination::CBit));
    }

    #[test]
    fn a5_unknown_cpuid_leaf_ends_the_vm() {
        let table = CpuidTable::new(&page(GENOA)).unwrap();
        assert_eq!(table.leaf(0x16, 0), Err(Fatal::new(Termination::CpuidLeaf, 0x16 << 32)));
        assert_eq!(table.leaf(7, 1), Err(Fatal::new(Termination::CpuidLeaf, 7 << 32 | 1)), "EAX promises it");
        assert_eq!(table.leaf(7, 2), Ok(Registers::default()), "beyond the last subleaf");
    }

    #[test]
    fn a5_inconsistent_xsave_sizes_are_refused() {
        assert_eq!(with(0xd, 2, |r| r[0] = 255).err(), Some(Termination::CpuidPage));
        assert_eq!(with(0xd, 7, |r| r[1] = 0x581).err(), Some(Termination::CpuidPage));
        assert_eq!(with(0xd, 7, |r| r[1] = u32::MAX).err(), Some(Termination::CpuidPage));
        assert_eq!(with(0xd, 0, |r| r[2] = 0x23f).err(), Some(Termination::CpuidPage));
        assert_eq!(with(0xd, 0, |r| r[0] = 0xe6).err(), Some(Termination::CpuidPage));
        assert_eq!(with(0xd, 6, |r| r[1] = 0x200).err(), Some(Termination::CpuidPage));
    }

    #[test]
    fn a5_malformed_pages_are_refused() {
        for count in [0u32, 65, u32::MAX] {
            let mut bytes = page(GENOA);
            bytes[..4].copy_from_slice(&count.to_le_bytes());
            assert_eq!(
                CpuidTable::new(&bytes).err().map(|f| f.reason),
                Some(Termination::CpuidPage),
                "{count}"
            );
        }
        let twice: Vec<Line> = GENOA.iter().copied().chain([(7, 0, [0; 4])]).collect();
        assert_eq!(CpuidTable::new(&page(&twice)).err().map(|f| f.reason), Some(Termination::CpuidPage));
    }

    #[test]
    fn states_that_the_features_do_not_cover_stay_off() {
        assert_eq!(with(7, 0, |r| r[1] &= !(1 << 16)).unwrap().xcr0(), 7);
        assert_eq!(with(1, 0, |r| r[2] &= !(1 << 28)).unwrap().xcr0(), 3);
        assert_eq!(with(1, 0, |r| r[2] &= !(1 << 26)).unwrap().xcr0(), 0);
    }
}
