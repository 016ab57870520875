//! The keys and values of all sessions: one arena, a fixed part of it for each session.
use crate::config::Config;
use crate::error::LimitsError;
use crate::memory::Buffer;
use zeroize::Zeroize;

/// Keys and values by session, layer, head and position; those of a head lie together.
pub(crate) struct Cache {
    keys: Buffer<f32>,
    values: Buffer<f32>,
    layers: usize,
    heads: usize,
    head_length: usize,
    positions: usize,
}

/// What a session stored at its first positions, kept for others.
pub(crate) struct Saved {
    keys: Buffer<f32>,
    values: Buffer<f32>,
    positions: usize,
}

impl Cache {
    pub(crate) fn new(config: &Config, sessions: usize, positions: usize) -> Result<Self, LimitsError> {
        let (layers, heads, head_length) = (config.block_count, config.head_count_kv, config.head_length);
        let factors = [sessions, layers, heads, positions, head_length];
        let (keys, values) = (Buffer::zeros(&factors)?, Buffer::zeros(&factors)?);
        Ok(Self { keys, values, layers, heads, head_length, positions })
    }

    /// Where the positions of a head begin.
    fn start(&self, session: usize, layer: usize, head: usize) -> usize {
        ((session * self.layers + layer) * self.heads + head) * self.positions * self.head_length
    }

    /// Stores the keys and values of all heads at a position.
    pub(crate) fn store(
        &mut self,
        session: usize,
        layer: usize,
        position: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let length = self.head_length;
        for (head, (key, value)) in keys.chunks_exact(length).zip(values.chunks_exact(length)).enumerate() {
            let start = self.start(session, layer, head) + position * length;
            self.keys[start..start + length].copy_from_slice(key);
            self.values[start..start + length].copy_from_slice(value);
        }
    }

    /// The keys and values of a head at the first so many positions.
    pub(crate) fn head(
        &self,
        session: usize,
        layer: usize,
        head: usize,
        positions: usize,
    ) -> (&[f32], &[f32]) {
        let start = self.start(session, layer, head);
        let range = start..start + positions * self.head_length;
        (&self.keys[range.clone()], &self.values[range])
    }

    /// A copy of what a session stored at the first so many positions.
    pub(crate) fn save(&self, session: usize, positions: usize) -> Result<Saved, LimitsError> {
        let factors = [self.layers, self.heads, positions, self.head_length];
        let (mut keys, mut values) = (Buffer::zeros(&factors)?, Buffer::zeros(&factors)?);
        let parts = positions * self.head_length;
        let copies = keys.chunks_exact_mut(parts).zip(values.chunks_exact_mut(parts));
        for (index, (keys, values)) in copies.enumerate() {
            let head = self.head(session, index / self.heads, index % self.heads, positions);
            keys.copy_from_slice(head.0);
            values.copy_from_slice(head.1);
        }
        Ok(Saved { keys, values, positions })
    }

    /// Stores a copy's first so many positions as those of a session.
    pub(crate) fn restore(&mut self, saved: &Saved, session: usize, positions: usize) {
        let part = saved.positions * self.head_length;
        let len = positions.min(saved.positions) * self.head_length;
        let copies = saved.keys.chunks_exact(part).zip(saved.values.chunks_exact(part));
        for (index, (keys, values)) in copies.enumerate() {
            let start = self.start(session, index / self.heads, index % self.heads);
            self.keys[start..start + len].copy_from_slice(&keys[..len]);
            self.values[start..start + len].copy_from_slice(&values[..len]);
        }
    }

    /// Overwrites what a session stored at the first so many positions.
    pub(crate) fn wipe(&mut self, session: usize, positions: usize) {
        for layer in 0..self.layers {
            for head in 0..self.heads {
                let start = self.start(session, layer, head);
                let range = start..start + positions * self.head_length;
                self.keys[range.clone()].zeroize();
                self.values[range].zeroize();
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn is_wiped(&self) -> bool {
        self.keys.iter().chain(self.values.iter()).all(|value| *value == 0.0)
    }
}
