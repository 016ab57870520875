//! Taking memory over from the host.
//!
//! Each frame is taken once, as private or as shared, and never changes hands again (REQUIREMENTS A6, A7): the host
//! cannot swap a page that the guest refuses to validate a second time.

use super::layout::{FRAME, LIMIT};
use crate::fatal::{Fatal, OrFatal};
use crate::snp::ghcb::{CHANGES, PageChange, PageState};
use core::ops::Range;
use wire::termination::Termination;

const PAGE: u64 = 4096;
const WORDS: usize = (LIMIT / FRAME).div_ceil(64) as usize;

/// Which frames were taken: one bit each.
pub struct Frames([u64; WORDS]);

impl Frames {
    /// No frame is taken.
    pub const fn new() -> Self {
        Self([0; WORDS])
    }

    fn take(&mut self, frame: u64) -> OrFatal<()> {
        let number = (frame / FRAME) as usize;
        let word = self.0.get_mut(number / 64).ok_or(Fatal::new(Termination::MemoryLayout, frame))?;
        let bit = 1 << (number % 64);
        if *word & bit != 0 {
            return Err(Fatal::new(Termination::Validation, frame));
        }
        *word |= bit;
        Ok(())
    }
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

/// What PVALIDATE did (APM vol. 3, "PVALIDATE").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// The page is now valid.
    Done,
    /// The page was valid already.
    Unchanged,
    /// The page is 2 MiB here and 4 KiB in the reverse map table, or the other way round.
    SizeMismatch,
    /// Anything else.
    Failed,
}

impl Validation {
    const FAIL_SIZEMISMATCH: u32 = 6;

    /// From EAX and CF.
    pub const fn new(code: u32, unchanged: bool) -> Self {
        match (code, unchanged) {
            (0, false) => Self::Done,
            (0, true) => Self::Unchanged,
            (Self::FAIL_SIZEMISMATCH, _) => Self::SizeMismatch,
            _ => Self::Failed,
        }
    }
}

/// What this needs of the machine.
pub trait Machine {
    /// Tells the host what pages become.
    fn change(&mut self, changes: &[PageChange]) -> OrFatal<()>;
    /// Maps a frame as private or shared, for the first time.
    fn map(&mut self, frame: u64, state: PageState) -> OrFatal<()>;
    /// Validates a page of 2 MiB or 4 KiB.
    fn validate(&mut self, page: u64, large: bool) -> Validation;
    /// Reads the first and the last cache line of a page of 4 KiB.
    fn touch(&mut self, page: u64);
}

/// Makes frames private and valid. With `touch`, pushes out lines that the host may have left in the caches
/// (REQUIREMENTS A8, CVE-2025-38560).
pub fn accept(
    frames: &mut Frames,
    machine: &mut impl Machine,
    range: Range<u64>,
    touch: bool,
) -> OrFatal<()> {
    for_batches(frames, machine, range, PageState::Private, |machine, frame| {
        let pages = || (frame..frame + FRAME).step_by(PAGE as usize);
        match machine.validate(frame, true) {
            Validation::Done => {}
            Validation::SizeMismatch => {
                for page in pages() {
                    if machine.validate(page, false) != Validation::Done {
                        return Err(Fatal::new(Termination::Validation, page));
                    }
                }
            }
            Validation::Unchanged | Validation::Failed => {
                return Err(Fatal::new(Termination::Validation, frame));
            }
        }
        if touch {
            pages().for_each(|page| machine.touch(page));
        }
        Ok(())
    })
}

/// Makes frames shared that were never private, so there is no validation to take back.
pub fn share(frames: &mut Frames, machine: &mut impl Machine, range: Range<u64>) -> OrFatal<()> {
    for_batches(frames, machine, range, PageState::Shared, |_, _| Ok(()))
}

fn for_batches<M: Machine>(
    frames: &mut Frames,
    machine: &mut M,
    range: Range<u64>,
    state: PageState,
    mut finish: impl FnMut(&mut M, u64) -> OrFatal<()>,
) -> OrFatal<()> {
    let mut batch = [PageChange { gpa: 0, large: true, state }; CHANGES];
    let mut next = range.start;
    while next < range.end {
        let count = ((range.end - next) / FRAME).min(CHANGES as u64) as usize;
        for change in &mut batch[..count] {
            frames.take(next)?;
            change.gpa = next;
            next += FRAME;
        }
        // The host has no such memory, or will not give it: the machine is not the measured one.
        let refused = Fatal::new(Termination::MemoryLayout, batch[0].gpa);
        machine.change(&batch[..count]).map_err(|_| refused)?;
        for change in &batch[..count] {
            machine.map(change.gpa, state)?;
            finish(machine, change.gpa)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The reverse map table of an honest host, with chosen faults.
    #[derive(Default)]
    struct Fake {
        private: BTreeSet<u64>,
        valid: BTreeSet<u64>,
        touched: u64,
        split: bool,
        refuse_changes: bool,
        already_valid: Option<u64>,
        broken: Option<u64>,
        calls: Vec<usize>,
    }

    impl Machine for Fake {
        fn change(&mut self, changes: &[PageChange]) -> OrFatal<()> {
            assert!(changes.len() <= CHANGES);
            self.calls.push(changes.len());
            if self.refuse_changes {
                return Err(Fatal::new(Termination::GhcbProtocol, 0));
            }
            self.private.extend(changes.iter().filter(|c| c.state == PageState::Private).map(|c| c.gpa));
            Ok(())
        }

        fn map(&mut self, _: u64, _: PageState) -> OrFatal<()> {
            Ok(())
        }

        fn validate(&mut self, page: u64, large: bool) -> Validation {
            assert!(
                self.private.contains(&(page / FRAME * FRAME)),
                "the state is changed before the validation"
            );
            if large && self.split {
                return Validation::SizeMismatch;
            }
            if self.broken == Some(page) {
                return Validation::Failed;
            }
            if self.already_valid == Some(page) || !self.valid.insert(page) {
                return Validation::Unchanged;
            }
            Validation::Done
        }

        fn touch(&mut self, page: u64) {
            assert!(self.valid.contains(&page) || self.valid.contains(&(page / FRAME * FRAME)));
            self.touched += 1;
        }
    }

    const RANGE: Range<u64> = 0x100_0000..0x100_0000 + 600 * FRAME;

    fn accepted(mut fake: Fake) -> (Result<(), Termination>, Fake) {
        let result = accept(&mut Frames::new(), &mut fake, RANGE, false).map_err(|fatal| fatal.reason);
        (result, fake)
    }

    #[test]
    fn memory_is_taken_in_batches() {
        let (result, fake) = accepted(Fake::default());
        assert_eq!(result, Ok(()));
        assert_eq!(fake.calls, [253, 253, 94]);
        assert_eq!(fake.valid.len(), 600);
    }

    #[test]
    fn a_split_frame_is_validated_page_by_page() {
        let (result, fake) = accepted(Fake { split: true, ..Fake::default() });
        assert_eq!(result, Ok(()));
        assert_eq!(fake.valid.len(), 600 * 512);
    }

    #[test]
    fn a6_a_page_that_is_valid_already_ends_the_vm() {
        let page = RANGE.start + 7 * FRAME;
        let fake = Fake { already_valid: Some(page), ..Fake::default() };
        assert_eq!(accepted(fake).0, Err(Termination::Validation));
        let fake = Fake { already_valid: Some(page + PAGE), split: true, ..Fake::default() };
        assert_eq!(accepted(fake).0, Err(Termination::Validation));
        let fake = Fake { broken: Some(page), ..Fake::default() };
        assert_eq!(accepted(fake).0, Err(Termination::Validation));
    }

    #[test]
    fn a6_no_frame_is_taken_twice() {
        let (mut frames, mut fake) = (Frames::new(), Fake::default());
        accept(&mut frames, &mut fake, RANGE, false).unwrap();
        let again = RANGE.start..RANGE.start + FRAME;
        let error = accept(&mut frames, &mut Fake::default(), again.clone(), false).unwrap_err();
        assert_eq!(error, Fatal::new(Termination::Validation, again.start));
        assert_eq!(
            share(&mut frames, &mut Fake::default(), again.clone()).unwrap_err().reason,
            Termination::Validation
        );
    }

    #[test]
    fn a7_shared_frames_were_never_valid() {
        let (mut frames, mut fake) = (Frames::new(), Fake::default());
        share(&mut frames, &mut fake, RANGE).unwrap();
        assert!(fake.valid.is_empty() && fake.private.is_empty());
    }

    #[test]
    fn a8_every_page_is_touched_when_the_processor_needs_it() {
        let mut fake = Fake::default();
        accept(&mut Frames::new(), &mut fake, RANGE, true).unwrap();
        assert_eq!(fake.touched, 600 * 512);
        assert_eq!(accepted(Fake::default()).1.touched, 0);
    }

    #[test]
    fn a10_a_host_without_the_memory_ends_the_vm_cleanly() {
        let (result, _) = accepted(Fake { refuse_changes: true, ..Fake::default() });
        assert_eq!(result, Err(Termination::MemoryLayout));
        let beyond = accept(&mut Frames::new(), &mut Fake::default(), LIMIT..LIMIT + 64 * FRAME, false);
        assert_eq!(beyond.unwrap_err().reason, Termination::MemoryLayout);
    }

    #[test]
    fn results_of_the_instruction_are_told_apart() {
        assert_eq!(Validation::new(0, false), Validation::Done);
        assert_eq!(Validation::new(0, true), Validation::Unchanged);
        assert_eq!(Validation::new(6, true), Validation::SizeMismatch);
        assert_eq!(Validation::new(1, false), Validation::Failed);
    }
}
