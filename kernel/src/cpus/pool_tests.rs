use super::*;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// Threads as CPUs, on a host of a chosen kind.
#[derive(Default)]
struct Fake {
    /// Wake-ups that wait.
    bells: Mutex<BTreeSet<usize>>,
    rung: Condvar,
    /// The host never wakes anyone.
    deaf: bool,
    /// The host wakes everyone all the time.
    restless: bool,
    wakes: AtomicUsize,
    tidied: AtomicUsize,
    halts: AtomicUsize,
}

thread_local!(static NUMBER: std::cell::Cell<usize> = const { std::cell::Cell::new(0) });

impl Processor for Fake {
    fn pause(&self) {
        thread::yield_now();
    }

    fn halt(&self) {
        self.halts.fetch_add(1, Ordering::SeqCst);
        if self.restless {
            return thread::sleep(Duration::from_millis(1));
        }
        let number = NUMBER.get();
        let mut bells = self.bells.lock().unwrap();
        while !bells.remove(&number) {
            bells = self.rung.wait(bells).unwrap();
        }
    }

    fn wake(&self, cpu: usize) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        if !self.deaf {
            self.bells.lock().unwrap().insert(cpu);
            self.rung.notify_all();
        }
    }

    fn tidy(&self) {
        self.tidied.fetch_add(1, Ordering::SeqCst);
    }
}

/// A pool of `count` CPUs; the threads end with the test's process.
fn pool(count: usize, fake: Fake) -> (&'static Pool, &'static Fake) {
    let (pool, fake): (&Pool, &Fake) = (Box::leak(Box::new(Pool::new())), Box::leak(Box::new(fake)));
    let create = |number| {
        thread::spawn(move || {
            NUMBER.set(number);
            pool.arrive(number).unwrap();
            pool.serve(number, fake)
        });
        Ok(())
    };
    let patience = || {
        thread::yield_now();
        true
    };
    pool.start(count, create, patience).unwrap();
    (pool, fake)
}

fn runs_right(pool: &Pool, fake: &Fake, tasks: usize) {
    for task in 0..tasks {
        let calls: Vec<AtomicUsize> = (0..pool.count()).map(|_| AtomicUsize::new(0)).collect();
        let count = |number: usize| {
            calls[number].fetch_add(task + 1, Ordering::Relaxed);
        };
        pool.run(&count, fake);
        assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == task + 1), "each number once");
    }
}

fn sleepers(pool: &Pool) -> usize {
    pool.cpus[1..pool.count()].iter().filter(|cpu| cpu.state.load(Ordering::SeqCst) != AWAKE).count()
}

#[test]
fn each_number_is_called_once_by_any_number_of_cpus() {
    for count in [1, 2, 3, 8] {
        let (pool, fake) = pool(count, Fake::default());
        assert_eq!(pool.count(), count);
        runs_right(pool, fake, 300);
    }
}

#[test]
fn idle_cpus_halt_tidy_and_are_woken_by_work() {
    let (pool, fake) = pool(4, Fake::default());
    for _ in 0..5 {
        while !pool.cpus[1..4].iter().all(|cpu| cpu.state.load(Ordering::SeqCst) == ASLEEP) {
            thread::yield_now();
        }
        let before = fake.wakes.load(Ordering::SeqCst);
        runs_right(pool, fake, 1);
        assert!(fake.wakes.load(Ordering::SeqCst) >= before + 3);
        assert!(fake.tidied.load(Ordering::SeqCst) >= 3);
    }
}

#[test]
fn a16_cpus_that_the_host_never_wakes_cost_speed_only() {
    let (pool, fake) = pool(4, Fake { deaf: true, ..Fake::default() });
    while sleepers(pool) < 3 {
        thread::yield_now();
    }
    runs_right(pool, fake, 10 * WAKE_AGAIN as usize);
    assert!(fake.wakes.load(Ordering::SeqCst) >= 3 * 10, "they are called again");
    pool.tidy(fake);
}

#[test]
fn a2_wake_ups_out_of_the_blue_change_nothing() {
    let (pool, fake) = pool(4, Fake { restless: true, ..Fake::default() });
    while fake.halts.load(Ordering::SeqCst) < 20 {
        thread::yield_now();
    }
    runs_right(pool, fake, 200);
}

#[test]
fn everyone_tidies_before_the_next_task() {
    let (pool, fake) = pool(4, Fake::default());
    for _ in 0..50 {
        let before = fake.tidied.load(Ordering::SeqCst);
        runs_right(pool, fake, 1);
        let awake = 3 - sleepers(pool);
        pool.tidy(fake);
        assert!(fake.tidied.load(Ordering::SeqCst) >= before + awake);
    }
}

#[test]
fn a_task_inside_of_a_task_is_done_by_its_cpu() {
    let (pool, fake) = pool(3, Fake::default());
    let calls = AtomicUsize::new(0);
    let inner = |_: usize| {
        calls.fetch_add(1, Ordering::Relaxed);
    };
    pool.run(&|_| pool.run(&inner, fake), fake);
    assert_eq!(calls.load(Ordering::Relaxed), 9);
}

#[test]
fn a16_a_cpu_that_never_starts_ends_the_vm() {
    let pool = Pool::new();
    pool.arrive(1).unwrap();
    let mut left = 1_000;
    let patience = || {
        left -= 1;
        left > 0
    };
    let result = pool.start(3, |_| Ok(()), patience);
    assert_eq!(result, Err(Fatal::new(Termination::CpuStart, 2)));
    assert_eq!(pool.count(), 1);
}

#[test]
fn a16_a_cpu_that_cannot_be_created_ends_the_vm() {
    let refused = Fatal::new(Termination::CpuStart, 1);
    assert_eq!(Pool::new().start(2, |_| Err(refused), || true), Err(refused));
    assert!(Pool::new().start(MAX + 1, |_| Ok(()), || true).is_err());
    assert_eq!(Pool::new().start(1, |_| Err(refused), || false), Ok(()));
}

#[test]
fn a16_a_cpu_that_starts_twice_or_was_not_asked_for_ends_the_vm() {
    let pool = Pool::new();
    assert_eq!(pool.arrive(5), Ok(()));
    for number in [5, 0, MAX, usize::MAX] {
        assert_eq!(pool.arrive(number), Err(Fatal::new(Termination::CpuStart, number as u64)));
    }
}
