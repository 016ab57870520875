//! Who computes: one or several processors.

/// Processors that run a task together.
///
/// The engine divides its work by [`Workers::count`] and gives the same results for any number of them.
pub trait Workers {
    /// How many there are: at least one, and always the same number. More than 64 are not used.
    fn count(&self) -> usize;

    /// Calls the task once with each number below [`Workers::count`], at the same time where there are several, and
    /// returns when all calls have.
    fn run(&self, task: &(dyn Fn(usize) + Sync));
}

/// The processor that asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleThread;

impl Workers for SingleThread {
    fn count(&self) -> usize {
        1
    }

    fn run(&self, task: &(dyn Fn(usize) + Sync)) {
        task(0);
    }
}

impl<W: Workers + ?Sized> Workers for &W {
    fn count(&self) -> usize {
        W::count(self)
    }

    fn run(&self, task: &(dyn Fn(usize) + Sync)) {
        W::run(self, task);
    }
}
