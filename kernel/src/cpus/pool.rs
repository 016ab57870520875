//! The worker pool: tasks that all CPUs run together, and what CPUs do that have none.
//!
//! A task is a closure and the numbers below the count of CPUs; whoever is free takes the next number, the asking CPU
//! too. So a CPU that the host keeps away, wakes late or never wakes costs speed and nothing else: its numbers are taken by
//! others. Only a number that was already taken is waited for, and a host that stops a CPU in the middle of it could as
//! well stop the CPU that waits. Everything that decides lies in private memory; a wake-up that nobody asked for finds
//! nothing to do and the CPU rests again (REQUIREMENTS A2, A16).
//!
//! A CPU without work waits for a bounded while, wipes what it left on its stack and in its registers, and halts.

use super::MAX;
use crate::fatal::{Fatal, OrFatal};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use wire::termination::Termination;

/// Turns for which a CPU without work waits before it halts: about a millisecond, which is longer than any pause between
/// two tasks while an answer is generated.
const PATIENCE: u32 = if cfg!(test) { 16 } else { 1 << 13 };
/// A CPU that was woken and is not awake after so many further tasks is woken again: the host may have seen the
/// wake-up before the halt.
const WAKE_AGAIN: u32 = 64;

/// `Cpu::state`: has work or looks for it.
const AWAKE: u32 = 0;
/// `Cpu::state`: halts, or is about to. Above it, the tasks since it was woken are counted.
const ASLEEP: u32 = 1;

/// What the pool needs of the processor.
pub trait Processor: Sync {
    /// Tells the processor that this is a loop that waits.
    fn pause(&self);
    /// Halts this CPU until [`Self::wake`], or until the host likes.
    fn halt(&self);
    /// Makes CPU number `cpu` go on if it halts.
    fn wake(&self, cpu: usize);
    /// Wipes this CPU's registers and unused stack, and forgets what it knows of the page tables.
    fn tidy(&self);
}

type Task = dyn Fn(usize) + Sync;

/// A task in the hands of its pool.
struct Lent(UnsafeCell<Option<*const Task>>);

// SAFETY: it is written by the one CPU that holds `Pool::busy`, while no number of a task is free; it is read by CPUs that
// took a number of the task that was then published. What it points to is `Sync`.
unsafe impl Sync for Lent {}

struct Cpu {
    arrived: AtomicBool,
    state: AtomicU32,
    tidied: AtomicU64,
}

/// The pool.
pub struct Pool {
    /// CPUs; 1 until the others have arrived.
    count: AtomicUsize,
    task: Lent,
    /// The task's next number; none is free from the count on.
    next: AtomicUsize,
    /// Numbers of the task that are done.
    done: AtomicUsize,
    /// There is a task.
    busy: AtomicBool,
    /// How often all CPUs had to tidy up.
    rounds: AtomicU64,
    cpus: [Cpu; MAX],
}

impl Pool {
    /// A pool of the asking CPU.
    #[expect(clippy::new_without_default, reason = "there is one, and it is a static")]
    pub const fn new() -> Self {
        Self {
            count: AtomicUsize::new(1),
            task: Lent(UnsafeCell::new(None)),
            next: AtomicUsize::new(usize::MAX),
            done: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            cpus: [const {
                Cpu {
                    arrived: AtomicBool::new(false),
                    state: AtomicU32::new(AWAKE),
                    tidied: AtomicU64::new(0),
                }
            }; MAX],
        }
    }

    /// CPUs that compute.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Has the others started by `create` and waits until all have arrived, for as long as `patience` says.
    pub fn start(
        &self,
        count: usize,
        mut create: impl FnMut(usize) -> OrFatal<()>,
        mut patience: impl FnMut() -> bool,
    ) -> OrFatal<()> {
        let others = self.cpus.get(1..count).ok_or(Fatal::new(Termination::CpuStart, count as u64))?;
        (1..count).try_for_each(&mut create)?;
        for (number, cpu) in (1..).zip(others) {
            while !cpu.arrived.load(Ordering::Acquire) {
                if !patience() {
                    return Err(Fatal::new(Termination::CpuStart, number));
                }
            }
        }
        self.count.store(count, Ordering::Release);
        Ok(())
    }

    /// What CPU number `number` does first: it may do so once.
    pub fn arrive(&self, number: usize) -> OrFatal<()> {
        match self.cpus.get(number) {
            Some(cpu) if number != 0 && !cpu.arrived.swap(true, Ordering::AcqRel) => Ok(()),
            _ => Err(Fatal::new(Termination::CpuStart, number as u64)),
        }
    }

    /// Calls `task` with each number below [`Self::count`], on all CPUs, and returns when all calls have. Inside of a task,
    /// the asking CPU makes all calls.
    pub fn run(&self, task: &(dyn Fn(usize) + Sync), processor: &impl Processor) {
        let count = self.count();
        if count == 1 || self.busy.swap(true, Ordering::Acquire) {
            return (0..count).for_each(task);
        }
        // SAFETY: the lifetime only. The pointer is used by CPUs that took a number, and this call returns after all of those
        // are done; after that no number is free. The cell is this CPU's to write: it holds `busy`, and no number is free.
        unsafe {
            *self.task.0.get() =
                Some(core::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Task>(task))
        };
        self.done.store(0, Ordering::Relaxed);
        self.next.store(0, Ordering::SeqCst);
        self.wake(count, processor);
        while self.work(count) {}
        while self.done.load(Ordering::Acquire) != count {
            processor.pause();
        }
        self.busy.store(false, Ordering::Release);
    }

    /// Has every CPU but the asking one [`Processor::tidy`] before it takes another number, and waits for those that are awake:
    /// the others do so before they halt, and when they wake.
    pub fn tidy(&self, processor: &impl Processor) {
        let round = self.rounds.fetch_add(1, Ordering::SeqCst) + 1;
        for cpu in &self.cpus[1..self.count()] {
            while cpu.state.load(Ordering::SeqCst) == AWAKE && cpu.tidied.load(Ordering::Acquire) != round {
                processor.pause();
            }
        }
    }

    /// What CPU number `number` does for ever. It has arrived.
    pub fn serve(&self, number: usize, processor: &impl Processor) -> ! {
        let cpu = &self.cpus[number];
        let mut idle = 0;
        loop {
            let round = self.rounds.load(Ordering::SeqCst);
            if cpu.tidied.load(Ordering::Relaxed) != round {
                processor.tidy();
                cpu.tidied.store(round, Ordering::Release);
            }
            if self.work(self.count()) {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle < PATIENCE {
                processor.pause();
                continue;
            }
            idle = 0;
            processor.tidy();
            cpu.state.store(ASLEEP, Ordering::SeqCst);
            // Whoever asks from here on sees that this CPU sleeps; whoever asked before is seen here.
            if self.next.load(Ordering::SeqCst) >= self.count() {
                processor.halt();
            }
            cpu.state.store(AWAKE, Ordering::SeqCst);
        }
    }

    /// Takes a number and does it, if one is free.
    fn work(&self, count: usize) -> bool {
        let take = |next| (next < count).then(|| next + 1);
        let Ok(number) = self.next.fetch_update(Ordering::AcqRel, Ordering::SeqCst, take) else {
            return false;
        };
        // SAFETY: the number is one of the task that is in the cell, and its owner waits until it is done.
        if let Some(task) = unsafe { *self.task.0.get() } {
            // SAFETY: as above.
            unsafe { (*task)(number) };
        }
        self.done.fetch_add(1, Ordering::AcqRel);
        true
    }

    fn wake(&self, count: usize, processor: &impl Processor) {
        for (number, cpu) in self.cpus.iter().enumerate().take(count).skip(1) {
            let state = cpu.state.load(Ordering::SeqCst);
            // The CPU itself may have woken meanwhile; then this changes nothing.
            let counted = state != AWAKE
                && cpu
                    .state
                    .compare_exchange(state, state % WAKE_AGAIN + 1, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok();
            if counted && state == ASLEEP {
                processor.wake(number);
            }
        }
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
