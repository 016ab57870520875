//! What the machine can do at most: the limits that the engine's figures are held against.
use inference::Workers;

/// Larger than any cache, so that all of it comes from memory.
const BYTES: usize = 512 << 20;

/// Memory to read.
pub struct ReadProbe(Vec<u64>);

impl ReadProbe {
    /// Fills the memory, so that each of its pages exists.
    pub fn new() -> Self {
        Self((0..(BYTES / 8) as u64).collect())
    }

    /// Bytes per second that all workers together read.
    pub fn bytes_per_second(&self, workers: &impl Workers) -> f64 {
        inference::read_bytes_per_second(&self.0, workers)
    }
}
