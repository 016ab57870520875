//! Workers that are threads of an operating system, for the programs that run on a host.
//!
//! A forward pass hands out hundreds of tasks of some microseconds each, so a worker that has finished looks for the
//! next task for a while before it sleeps.
use crate::workers::Workers;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::vec::Vec;

/// Looks before a waiting thread lets others run, and before it sleeps.
const SPINS: u32 = 4_000;
const YIELDS: u32 = 1_000;
/// In the count of rounds: the threads shall end.
const STOP: usize = usize::MAX;

type Task<'a> = &'a (dyn Fn(usize) + Sync);

/// A fixed number of threads, of which the one that asks is the first.
pub struct Threads {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// The task of the current round. Set before `round` changes, and read by helpers after.
    task: Mutex<Option<Task<'static>>>,
    /// Signalled after `round` has changed, if anybody sleeps.
    changed: Condvar,
    /// Helpers that sleep, or are about to and will look at `round` once more.
    sleepers: AtomicUsize,
    /// How many tasks have been handed out.
    round: AtomicUsize,
    /// Helpers that have not finished the current task.
    busy: AtomicUsize,
    /// Helpers whose task panicked.
    panicked: AtomicUsize,
}

impl Threads {
    /// Starts so many workers; at least one, which is the thread that calls [`Workers::run`].
    ///
    /// # Errors
    /// When the operating system gives no more threads.
    pub fn new(count: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            task: Mutex::new(None),
            changed: Condvar::new(),
            sleepers: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicUsize::new(0),
        });
        let mut threads = Self { shared, helpers: Vec::new() };
        for worker in 1..count {
            let shared = Arc::clone(&threads.shared);
            let builder = std::thread::Builder::new().name(std::format!("engine-{worker}"));
            threads.helpers.push(builder.spawn(move || shared.help(worker))?);
        }
        Ok(threads)
    }
}

impl Shared {
    fn help(&self, worker: usize) {
        let mut seen = 0;
        loop {
            seen = self.wait_for_change(seen);
            if seen == STOP {
                return;
            }
            let task = *self.task.lock().unwrap_or_else(PoisonError::into_inner);
            let run = std::panic::AssertUnwindSafe(|| task.into_iter().for_each(|task| task(worker)));
            if std::panic::catch_unwind(run).is_err() {
                self.panicked.fetch_add(1, Ordering::Relaxed);
            }
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits until there is another round than this one.
    fn wait_for_change(&self, seen: usize) -> usize {
        let changed = || Some(self.round.load(Ordering::SeqCst)).filter(|round| *round != seen);
        spin(|| changed().is_some());
        if let Some(round) = changed() {
            return round;
        }
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let round = loop {
            match changed() {
                Some(round) => break round,
                None => task = self.changed.wait(task).unwrap_or_else(PoisonError::into_inner),
            }
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        round
    }

    fn announce(&self, task: Option<Task<'static>>, round: usize) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = task;
        self.round.store(round, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // Whoever has counted itself holds the lock until it waits, or sees the round.
            let _lock = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            self.changed.notify_all();
        }
    }
}

/// Looks again and again for a while whether something has happened.
fn spin(happened: impl Fn() -> bool) {
    for _ in 0..SPINS {
        if happened() {
            return;
        }
        core::hint::spin_loop();
    }
    for _ in 0..YIELDS {
        if happened() {
            return;
        }
        std::thread::yield_now();
    }
}

impl Workers for Threads {
    fn count(&self) -> usize {
        self.helpers.len() + 1
    }

    fn run(&self, task: Task<'_>) {
        if self.helpers.is_empty() {
            return task(0);
        }
        /// Waits for the helpers, also when the caller's own part of the task panics.
        struct Join<'a>(&'a Shared);
        impl Drop for Join<'_> {
            fn drop(&mut self) {
                let done = || self.0.busy.load(Ordering::Acquire) == 0;
                spin(done);
                while !done() {
                    std::thread::yield_now();
                }
            }
        }
        // SAFETY: only the lifetime changes. The helpers call the task between the announcement and their decrement
        // of `busy`, and `Join` does not let this function end, not even by a panic, before `busy` is zero; helpers
        // that see the round later find `busy` counting them, because each decrements it exactly once a round.
        let lasting = unsafe { core::mem::transmute::<Task<'_>, Task<'static>>(task) };
        self.shared.busy.store(self.helpers.len(), Ordering::Relaxed);
        let round = self.shared.round.load(Ordering::Relaxed).wrapping_add(1) % STOP;
        self.shared.announce(Some(lasting), round);
        {
            let _join = Join(&self.shared);
            task(0);
        }
        assert_eq!(self.shared.panicked.load(Ordering::Relaxed), 0, "a worker panicked");
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.announce(None, STOP);
        for helper in self.helpers.drain(..) {
            // A helper catches the panics of its tasks and has none of its own.
            let _ = helper.join();
        }
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Threads({})", self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::{Threads, Workers};
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::vec::Vec;

    #[test]
    fn each_worker_is_called_once_a_task() {
        for count in [0, 1, 2, 5] {
            let threads = Threads::new(count).unwrap();
            assert_eq!(threads.count(), count.max(1));
            let calls: Vec<AtomicUsize> = (0..count.max(1)).map(|_| AtomicUsize::new(0)).collect();
            for round in 1..=500 {
                threads.run(&|worker| {
                    calls[worker].fetch_add(1, Ordering::Relaxed);
                });
                assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == round));
            }
        }
    }

    #[test]
    fn workers_that_sleep_wake_up() {
        let threads = Threads::new(2).unwrap();
        for _ in 0..3 {
            std::thread::sleep(core::time::Duration::from_millis(50));
            let calls = AtomicUsize::new(0);
            threads.run(&|_| {
                calls.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(calls.into_inner(), 2);
        }
    }

    #[test]
    #[should_panic(expected = "a worker panicked")]
    fn a_panic_of_a_worker_reaches_the_caller() {
        Threads::new(2).unwrap().run(&|worker| assert_eq!(worker, 0));
    }
}
