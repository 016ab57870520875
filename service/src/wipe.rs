//! Byte buffers that keep nothing of what has left them (REQUIREMENTS A20).
//!
//! A `Vec` that grows leaves its old bytes behind in freed memory, and one that is drained leaves them past its
//! length. [`WipedBuffer`] overwrites both, and everything when it is dropped.

use alloc::vec::Vec;
use core::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A queue of bytes: appended at the end, consumed from the front, wiped as it goes.
#[derive(Default)]
pub struct WipedBuffer(Vec<u8>);

impl WipedBuffer {
    /// An empty buffer; allocates nothing.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The bytes that are queued.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The bytes that are queued, for work in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// How many bytes are queued.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Appends `count` zeros and returns them for writing.
    pub fn push_zeros(&mut self, count: usize) -> &mut [u8] {
        self.reserve(count);
        let start = self.0.len();
        self.0.resize(start + count, 0);
        &mut self.0[start..]
    }

    /// Drops what lies past the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        if let Some(tail) = self.0.get_mut(length..) {
            tail.zeroize();
        }
        self.0.truncate(length);
    }

    /// Drops the first `count` bytes, or all there are.
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.0.len());
        let rest = self.0.len() - count;
        self.0.copy_within(count.., 0);
        self.truncate(rest);
    }

    /// Drops everything and gives the memory back.
    pub fn clear(&mut self) {
        self.0.zeroize();
        self.0 = Vec::new();
    }

    fn reserve(&mut self, more: usize) {
        let needed = self.0.len().saturating_add(more);
        if needed > self.0.capacity() {
            let mut grown = Vec::with_capacity(needed.max(self.0.capacity().saturating_mul(2)));
            grown.extend_from_slice(&self.0);
            self.0.zeroize();
            self.0 = grown;
        }
    }
}

impl Drop for WipedBuffer {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for WipedBuffer {}

/// Formatting into the buffer never fails; it is for numbers and fixed text.
impl fmt::Write for WipedBuffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// Shows the length only (REQUIREMENTS E7).
impl fmt::Debug for WipedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WipedBuffer({} bytes)", self.0.len())
    }
}

/// How much stack below the caller is overwritten: what TLS and the key exchange need at their deepest.
const STACK: usize = 32 * 1024;

/// Overwrites the stack below the caller's frame, where secrets that were passed by value have left copies.
#[inline(never)]
pub(crate) fn stack() {
    let mut below = [0u8; STACK];
    below.zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_queue() {
        let mut buffer = WipedBuffer::new();
        buffer.push(b"one ");
        buffer.push(b"two");
        buffer.consume(2);
        assert_eq!(buffer.as_slice(), b"e two");
        buffer.push_zeros(2).copy_from_slice(b"!?");
        assert_eq!(buffer.as_slice(), b"e two!?");
        buffer.truncate(3);
        assert_eq!(buffer.as_slice(), b"e t");
        buffer.consume(99);
        assert!(buffer.is_empty());
    }

    #[test]
    fn e7_debug_shows_no_bytes() {
        let mut buffer = WipedBuffer::new();
        buffer.push(b"canary");
        assert_eq!(alloc::format!("{buffer:?}"), "WipedBuffer(6 bytes)");
    }
}
