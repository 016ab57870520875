//! What the host offers the guest, and in which form the guest accepts it.
//!
//! The host is hostile, so whatever it supplies is an [`Alleged`] value: it cannot be used before it was checked.
//! Hardware access is behind two traits, so that every driver runs on an ordinary host against a lying fake.

use core::fmt;

/// A value that the host claims. It can be checked, and only then read.
#[derive(Clone, Copy)]
#[must_use = "an allegation that is not checked says nothing"]
pub struct Alleged<T>(T);

impl<T: Copy> Alleged<T> {
    /// Wraps a value that was just copied from the host, once.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value as `check` understands it, or `None` if `check` refuses it.
    pub fn check<U>(self, check: impl FnOnce(T) -> Option<U>) -> Option<U> {
        check(self.0)
    }

    /// The value, if it is one that `holds` accepts.
    pub fn when(self, holds: impl FnOnce(T) -> bool) -> Option<T> {
        holds(self.0).then_some(self.0)
    }
}

impl<T: Copy + PartialOrd> Alleged<T> {
    /// The value, if it is at most `limit`.
    pub fn at_most(self, limit: T) -> Option<T> {
        self.when(|value| value <= limit)
    }

    /// Whether the value is `expected`.
    pub fn is(self, expected: T) -> bool {
        self.0 == expected
    }
}

impl<T> fmt::Debug for Alleged<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alleged")
    }
}

/// Width of one access to a port or to device memory, in rising order of powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two bytes.
    Word,
    /// Four bytes.
    Long,
    /// Eight bytes; device memory only.
    Quad,
}

impl Width {
    /// Bytes of one access.
    pub const fn bytes(self) -> u64 {
        1 << self as u64
    }

    /// The widest aligned access at `address` of which no byte lies beyond `left`; `None` if nothing is left.
    ///
    /// A copy in such steps reads and writes an aligned field as one, so that neither side ever sees half of an index
    /// that the other side is changing (VIRTIO 1.2 §2.7: the indexes are 16 bits wide and free-running).
    pub fn widest(address: usize, left: usize) -> Option<Self> {
        [Self::Quad, Self::Long, Self::Word, Self::Byte].into_iter().find(|width| {
            let bytes = width.bytes() as usize;
            bytes <= left && address.is_multiple_of(bytes)
        })
    }
}

/// The host refused or broke a request that a correct host serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFault;

/// Access to the host's ports and device memory by explicit GHCB calls.
pub trait HostIo {
    /// Reads an I/O port.
    fn port_read(&mut self, port: u16, width: Width) -> Result<Alleged<u32>, HostFault>;
    /// Writes an I/O port; bits above `width` are ignored.
    fn port_write(&mut self, port: u16, width: Width, value: u32) -> Result<(), HostFault>;
    /// Reads device memory at a guest-physical address aligned to `width`.
    fn mmio_read(&mut self, gpa: u64, width: Width) -> Result<Alleged<u64>, HostFault>;
    /// Writes device memory at a guest-physical address aligned to `width`.
    fn mmio_write(&mut self, gpa: u64, width: Width, value: u64) -> Result<(), HostFault>;
}

/// An access that does not lie within its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBounds;

/// A run of pages shared with the host. There are no references into it: bytes are copied, each of them once.
pub trait SharedBytes {
    /// Guest-physical address of the first byte, 4 KiB-aligned.
    fn gpa(&self) -> u64;
    /// Length in bytes.
    fn size(&self) -> usize;
    /// Copies out of the region.
    fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfBounds>;
    /// Copies into the region.
    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), OutOfBounds>;

    /// Copies a little-endian `u16` out of the region.
    fn read_u16(&self, offset: usize) -> Result<Alleged<u16>, OutOfBounds> {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes)?;
        Ok(Alleged::new(u16::from_le_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a12_an_aligned_field_is_one_access() {
        for (bytes, width) in [(1, Width::Byte), (2, Width::Word), (4, Width::Long), (8, Width::Quad)] {
            for address in (0x1000..0x1040).step_by(bytes) {
                assert_eq!(Width::widest(address, bytes), Some(width), "{address:#x}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_copy_takes_each_byte_once_in_aligned_steps(start in 0usize..64, length in 0usize..64) {
            let (mut at, end) = (start, start + length);
            while let Some(width) = Width::widest(at, end - at) {
                prop_assert!(at.is_multiple_of(width.bytes() as usize));
                at += width.bytes() as usize;
                prop_assert!(at <= end);
            }
            prop_assert_eq!(at, end);
        }
    }
}
