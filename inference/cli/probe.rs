//! What the machine can do at most: the limits that the engine's figures are held against.
use core::hint::black_box;
use inference::Workers;
use std::time::Instant;

/// Larger than any cache, so that all of it comes from memory.
const BYTES: usize = 512 << 20;

/// Memory to read.
pub struct ReadProbe(Vec<u64>);

impl ReadProbe {
    /// Fills the memory, so that each of its pages exists.
    pub fn new() -> Self {
        Self((0..(BYTES / 8) as u64).collect())
    }

    /// Bytes per second that all workers together read, the best of several passes.
    pub fn bytes_per_second(&self, workers: &impl Workers) -> f64 {
        let part = self.0.len() / workers.count();
        let pass = |_| {
            let start = Instant::now();
            workers.run(&|worker| {
                black_box(sum(&self.0[worker * part..][..part]));
            });
            (part * workers.count() * 8) as f64 / start.elapsed().as_secs_f64()
        };
        (0..4).map(pass).fold(0.0, f64::max)
    }
}

/// Adds in independent lanes, so that the loads alone decide how long it takes.
fn sum(values: &[u64]) -> u64 {
    let mut lanes = [0_u64; 32];
    for values in values.as_chunks::<32>().0 {
        for (lane, value) in lanes.iter_mut().zip(values) {
            *lane = lane.wrapping_add(*value);
        }
    }
    lanes.into_iter().fold(0, u64::wrapping_add)
}
