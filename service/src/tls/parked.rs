//! The slot through which decrypted application data reaches a connection.
//!
//! rustls copies each decrypted record into a `Vec` of its own and frees it without wiping. So a decrypter never gives
//! the plaintext to rustls: it parks it here and leaves zeros of the same length in its place. rustls stops after
//! every record of application data, and the connection takes the real bytes before it goes on.

use crate::wipe::WipedBuffer;
use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

/// Longest plaintext of one record (RFC 8446 §5.1).
pub(crate) const MAX_PLAINTEXT: usize = 1 << 14;

/// Room for one record. Atomics because rustls wants ciphers to be `Sync`; a service uses it from one thread at a time.
pub(crate) struct Parked {
    length: AtomicUsize,
    bytes: Box<[AtomicU8]>,
}

/// The record before was not taken, or this one is longer than a record can be.
pub(super) struct Occupied;

impl Parked {
    pub(super) fn new() -> Self {
        Self { length: AtomicUsize::new(0), bytes: (0..MAX_PLAINTEXT).map(|_| AtomicU8::new(0)).collect() }
    }

    /// Moves `plaintext` into the slot; zeros stay behind.
    pub(super) fn park(&self, plaintext: &mut [u8]) -> Result<(), Occupied> {
        if self.length.load(Relaxed) != 0 || plaintext.len() > self.bytes.len() {
            return Err(Occupied);
        }
        self.length.store(plaintext.len(), Relaxed);
        for (slot, byte) in self.bytes.iter().zip(plaintext) {
            slot.store(core::mem::take(byte), Relaxed);
        }
        Ok(())
    }

    /// Moves the record out of the slot to the end of `buffer`.
    pub(crate) fn take(&self, buffer: &mut WipedBuffer) {
        let length = self.length.swap(0, Relaxed);
        for (slot, byte) in self.bytes.iter().zip(buffer.push_zeros(length)) {
            *byte = slot.swap(0, Relaxed);
        }
    }

    /// Whether no byte of any record is left.
    #[cfg(test)]
    pub(super) fn is_wiped(&self) -> bool {
        self.length.load(Relaxed) == 0 && self.bytes.iter().all(|byte| byte.load(Relaxed) == 0)
    }

    /// Wipes a record that nobody will take.
    pub(crate) fn discard(&self) {
        let length = self.length.swap(0, Relaxed);
        for slot in self.bytes.iter().take(length) {
            slot.store(0, Relaxed);
        }
    }
}

impl fmt::Debug for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parked({} bytes)", self.length.load(Relaxed))
    }
}
