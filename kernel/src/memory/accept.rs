//! Taking memory over from the host.
//!
//! Each frame is taken once, as private or as shared, and never changes hands again (REQUIREMENTS A6, A7): the host
//! cannot swap a page that the guest refuses to validate a second time.

use super::layout::{FRAME, LIMIT};
use crate::fatal::{Fatal, OrFatal};
use crate::snp::ghcb::{CHANGES, PageChange, PageState};
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use inference::Workers;
use wire::termination::Termination;

const PAGE: u64 = 4096;
const WORDS: usize = (LIMIT / FRAME).div_ceil(64) as usize;

/// Which frames were taken: one bit each.
pub struct Frames([AtomicU64; WORDS]);

impl Frames {
    /// No frame is taken.
    #[expect(clippy::new_without_default, reason = "there is one, and it is a static")]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    fn take(&self, frame: u64) -> OrFatal<()> {
        let number = (frame / FRAME) as usize;
        let word = self.0.get(number / 64).ok_or(Fatal::new(Termination::MemoryLayout, frame))?;
        let bit = 1 << (number % 64);
        if word.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return Err(Fatal::new(Termination::Validation, frame));
        }
        Ok(())
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
pub trait Machine: Sync {
    /// Tells the host what pages become.
    fn change(&mut self, changes: &[PageChange]) -> OrFatal<()>;
    /// Maps a frame as private or shared, for the first time.
    fn map(&mut self, frame: u64, state: PageState) -> OrFatal<()>;
    /// Validates a page of 2 MiB or 4 KiB. Each CPU may do so, for pages of its own.
    fn validate(&self, page: u64, large: bool) -> Validation;
    /// Reads the first and the last cache line of each page of 4 KiB in a frame.
    fn touch(&self, frame: u64);
}

/// Makes frames private and valid, by all CPUs, and pushes out lines that the host may have left in the caches (REQUIREMENTS
/// A8, CVE-2025-38560). Processors that need no such thing say so by `COHERENCY_SFW_NO` (CPUID 0x8000_001f, `EBX[31]`), but
/// no manual says that the AMD-SP checks this bit of the host's page; a load a page is cheaper than the trust.
pub fn accept(
    frames: &Frames,
    machine: &mut impl Machine,
    workers: &impl Workers,
    range: Range<u64>,
) -> OrFatal<()> {
    for_batches(frames, machine, range, PageState::Private, |machine, batch| {
        let next = AtomicUsize::new(0);
        // Of the pages that failed, the last one that a CPU came to.
        let failed = AtomicU64::new(u64::MAX);
        workers.run(&|_| {
            while let Some(frame) = batch.get(next.fetch_add(1, Ordering::Relaxed)) {
                match validate(machine, frame.gpa) {
                    Ok(()) => machine.touch(frame.gpa),
                    Err(page) => return failed.store(page, Ordering::Relaxed),
                }
            }
        });
        match failed.into_inner() {
            u64::MAX => Ok(()),
            page => Err(Fatal::new(Termination::Validation, page)),
        }
    })
}

/// Validates a frame as one page of 2 MiB, or page by page if the host holds it so; the page that failed.
fn validate(machine: &impl Machine, frame: u64) -> Result<(), u64> {
    match machine.validate(frame, true) {
        Validation::Done => Ok(()),
        Validation::SizeMismatch => (frame..frame + FRAME).step_by(PAGE as usize).try_for_each(|page| {
            if machine.validate(page, false) == Validation::Done { Ok(()) } else { Err(page) }
        }),
        Validation::Unchanged | Validation::Failed => Err(frame),
    }
}

/// Makes frames shared that were never private, so there is no validation to take back.
pub fn share(frames: &Frames, machine: &mut impl Machine, range: Range<u64>) -> OrFatal<()> {
    for_batches(frames, machine, range, PageState::Shared, |_, _| Ok(()))
}

fn for_batches<M: Machine>(
    frames: &Frames,
    machine: &mut M,
    range: Range<u64>,
    state: PageState,
    mut finish: impl FnMut(&M, &[PageChange]) -> OrFatal<()>,
) -> OrFatal<()> {
    let mut batch = [PageChange { gpa: 0, large: true, state }; CHANGES];
    let mut next = range.start;
    while next < range.end {
        let count = ((range.end - next) / FRAME).min(CHANGES as u64) as usize;
        let batch = &mut batch[..count];
        for change in batch.iter_mut() {
            frames.take(next)?;
            change.gpa = next;
            next += FRAME;
        }
        // The host has no such memory, or will not give it: the machine is not the measured one.
        let refused = Fatal::new(Termination::MemoryLayout, batch[0].gpa);
        machine.change(batch).map_err(|_| refused)?;
        batch.iter().try_for_each(|change| machine.map(change.gpa, state))?;
        finish(machine, batch)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use inference::SingleThread;
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU64;

    /// The reverse map table of an honest host, with chosen faults.
    #[derive(Default)]
    struct Fake {
        private: BTreeSet<u64>,
        valid: Mutex<BTreeSet<u64>>,
        touched: AtomicU64,
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

        fn validate(&self, page: u64, large: bool) -> Validation {
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
            if self.already_valid == Some(page) || !self.valid.lock().unwrap().insert(page) {
                return Validation::Unchanged;
            }
            Validation::Done
        }

        fn touch(&self, frame: u64) {
            assert!(self.valid.lock().unwrap().contains(&frame));
            self.touched.fetch_add(1, Ordering::Relaxed);
        }
    }

    const RANGE: Range<u64> = 0x100_0000..0x100_0000 + 600 * FRAME;

    fn accepted(mut fake: Fake) -> (Result<(), Termination>, Fake) {
        let result = accept(&Frames::new(), &mut fake, &SingleThread, RANGE).map_err(|fatal| fatal.reason);
        (result, fake)
    }

    #[test]
    fn memory_is_taken_in_batches() {
        let (result, fake) = accepted(Fake::default());
        assert_eq!(result, Ok(()));
        assert_eq!(fake.calls, [253, 253, 94]);
        assert_eq!(fake.valid.lock().unwrap().len(), 600);
    }

    /// As many threads as a guest may have CPUs.
    struct Threads(usize);

    impl Workers for Threads {
        fn count(&self) -> usize {
            self.0
        }

        fn run(&self, task: &(dyn Fn(usize) + Sync)) {
            std::thread::scope(|scope| {
                for number in 0..self.0 {
                    scope.spawn(move || task(number));
                }
            });
        }
    }

    #[test]
    fn a6_several_cpus_validate_each_page_once() {
        for split in [false, true] {
            let mut fake = Fake { split, ..Fake::default() };
            let result = accept(&Frames::new(), &mut fake, &Threads(8), RANGE);
            assert_eq!(result, Ok(()), "no page was valid before");
            assert_eq!(fake.valid.into_inner().unwrap().len(), if split { 600 * 512 } else { 600 });
            let page = RANGE.start + 300 * FRAME;
            let mut fake = Fake { already_valid: Some(page), split, ..Fake::default() };
            let result = accept(&Frames::new(), &mut fake, &Threads(8), RANGE);
            assert_eq!(result, Err(Fatal::new(Termination::Validation, page)));
        }
    }

    #[test]
    fn a_split_frame_is_validated_page_by_page() {
        let (result, fake) = accepted(Fake { split: true, ..Fake::default() });
        assert_eq!(result, Ok(()));
        assert_eq!(fake.valid.lock().unwrap().len(), 600 * 512);
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
        let (frames, mut fake) = (Frames::new(), Fake::default());
        accept(&frames, &mut fake, &SingleThread, RANGE).unwrap();
        let again = RANGE.start..RANGE.start + FRAME;
        let error = accept(&frames, &mut Fake::default(), &SingleThread, again.clone()).unwrap_err();
        assert_eq!(error, Fatal::new(Termination::Validation, again.start));
        assert_eq!(
            share(&frames, &mut Fake::default(), again.clone()).unwrap_err().reason,
            Termination::Validation
        );
    }

    #[test]
    fn a7_shared_frames_were_never_valid() {
        let (frames, mut fake) = (Frames::new(), Fake::default());
        share(&frames, &mut fake, RANGE).unwrap();
        assert!(fake.valid.lock().unwrap().is_empty() && fake.private.is_empty());
    }

    #[test]
    fn a8_every_page_is_touched_once_it_is_valid() {
        for split in [false, true] {
            let (result, fake) = accepted(Fake { split, ..Fake::default() });
            assert_eq!(result, Ok(()));
            assert_eq!(fake.touched.into_inner(), 600);
        }
    }

    #[test]
    fn a10_a_host_without_the_memory_ends_the_vm_cleanly() {
        let (result, _) = accepted(Fake { refuse_changes: true, ..Fake::default() });
        assert_eq!(result, Err(Termination::MemoryLayout));
        let beyond = accept(&Frames::new(), &mut Fake::default(), &SingleThread, LIMIT..LIMIT + 64 * FRAME);
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
