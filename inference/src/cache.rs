//! The keys and values of all sessions: one arena, a fixed part of it for each session.
use crate::config::Config;
use crate::encode::f32_to_f16;
use crate::error::LimitsError;
use crate::kernels::attention::{Head, padded};
use crate::kernels::simd::ROWS;
use crate::memory::Buffer;
use core::ops::Range;
use zeroize::Zeroize;

/// Keys and values by session, layer, head and position, in half precision and in the order that attention reads.
pub(crate) struct Cache {
    keys: Buffer<u16>,
    values: Buffer<u16>,
    layers: usize,
    heads: usize,
    head_length: usize,
    /// A multiple of the positions in a tile of keys.
    positions: usize,
}

/// What a session stored at its first positions, kept for others.
pub(crate) struct Saved {
    keys: Buffer<u16>,
    values: Buffer<u16>,
    positions: usize,
}

impl Cache {
    pub(crate) fn new(config: &Config, sessions: usize, positions: usize) -> Result<Self, LimitsError> {
        let (layers, heads, head_length) = (config.block_count, config.head_count_kv, config.head_length);
        let positions = positions.next_multiple_of(ROWS);
        let keys = Buffer::zeros(&[sessions, layers, heads, positions, head_length])?;
        let values = Buffer::zeros(&[sessions, layers, heads, positions, padded(head_length)])?;
        Ok(Self { keys, values, layers, heads, head_length, positions })
    }

    /// The place of a head among all heads of all layers and sessions.
    fn index(&self, session: usize, layer: usize, head: usize) -> usize {
        (session * self.layers + layer) * self.heads + head
    }

    fn keys(&self, index: usize) -> Range<usize> {
        let len = self.positions * self.head_length;
        index * len..(index + 1) * len
    }

    fn values(&self, index: usize) -> Range<usize> {
        let len = self.positions * padded(self.head_length);
        index * len..(index + 1) * len
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
            let index = self.index(session, layer, head);
            let (keys, values) = (self.keys(index), self.values(index));
            let tile = &mut self.keys[keys][position / ROWS * ROWS * length..][..ROWS * length];
            for (lanes, element) in tile.chunks_exact_mut(ROWS).zip(key) {
                lanes[position % ROWS] = f32_to_f16(*element);
            }
            let place = &mut self.values[values][position * padded(length)..][..length];
            for (place, element) in place.iter_mut().zip(value) {
                *place = f32_to_f16(*element);
            }
        }
    }

    /// The keys and values of a head.
    pub(crate) fn head(&self, session: usize, layer: usize, head: usize) -> Head<'_> {
        let index = self.index(session, layer, head);
        let (keys, values) = (&self.keys[self.keys(index)], &self.values[self.values(index)]);
        Head { keys, values, length: self.head_length }
    }

    /// A copy of what a session stored at the first so many positions.
    pub(crate) fn save(&self, session: usize, positions: usize) -> Result<Saved, LimitsError> {
        let positions = positions.next_multiple_of(ROWS);
        let lengths = [self.head_length, padded(self.head_length)].map(|length| positions * length);
        let [mut keys, mut values] = [
            Buffer::zeros(&[self.layers, self.heads, lengths[0]])?,
            Buffer::zeros(&[self.layers, self.heads, lengths[1]])?,
        ];
        let copies = keys.chunks_exact_mut(lengths[0]).zip(values.chunks_exact_mut(lengths[1]));
        for (index, (keys, values)) in copies.enumerate() {
            let head = self.head(session, index / self.heads, index % self.heads);
            keys.copy_from_slice(&head.keys[..lengths[0]]);
            values.copy_from_slice(&head.values[..lengths[1]]);
        }
        Ok(Saved { keys, values, positions })
    }

    /// Stores a copy's first so many positions as those of a session, and what is in the last one's tile.
    pub(crate) fn restore(&mut self, saved: &Saved, session: usize, positions: usize) {
        let positions = positions.next_multiple_of(ROWS).min(saved.positions);
        let lengths = [self.head_length, padded(self.head_length)];
        let parts = lengths.map(|length| saved.positions * length);
        let lengths = lengths.map(|length| positions * length);
        let copies = saved.keys.chunks_exact(parts[0]).zip(saved.values.chunks_exact(parts[1]));
        for (index, (saved_keys, saved_values)) in copies.enumerate() {
            let index = self.index(session, index / self.heads, index % self.heads);
            let (keys, values) = (self.keys(index), self.values(index));
            self.keys[keys][..lengths[0]].copy_from_slice(&saved_keys[..lengths[0]]);
            self.values[values][..lengths[1]].copy_from_slice(&saved_values[..lengths[1]]);
        }
    }

    /// Overwrites what a session stored at the first so many positions.
    pub(crate) fn wipe(&mut self, session: usize, positions: usize) {
        let positions = positions.next_multiple_of(ROWS);
        for layer in 0..self.layers {
            for head in 0..self.heads {
                let index = self.index(session, layer, head);
                let (keys, values) = (self.keys(index), self.values(index));
                self.keys[keys][..positions * self.head_length].zeroize();
                self.values[values][..positions * padded(self.head_length)].zeroize();
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn is_wiped(&self) -> bool {
        self.keys.iter().chain(self.values.iter()).all(|value| *value == 0)
    }
}
