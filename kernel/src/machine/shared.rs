//! Memory shared with the host: copied from and to, never referenced.

use kernel::host::{OutOfBounds, SharedBytes};

/// A run of shared pages. It has one owner: it cannot be cloned, only split.
pub struct SharedRun {
    start: u64,
    size: usize,
}

impl SharedRun {
    /// Takes over shared pages.
    ///
    /// # Safety
    /// The pages are mapped without the C-bit, and nobody else uses them.
    pub const unsafe fn new(start: u64, size: usize) -> Self {
        Self { start, size }
    }

    /// Cuts off the first `size` bytes, rounded up to whole pages.
    pub fn take(&mut self, size: usize) -> Option<Self> {
        let size = size.checked_next_multiple_of(4096).filter(|size| *size <= self.size)?;
        let taken = Self { start: self.start, size };
        self.start += size as u64;
        self.size -= size;
        Some(taken)
    }

    /// Fills the run with zeros.
    pub fn clear(&mut self) {
        for offset in (0..self.size).step_by(8) {
            // SAFETY: within the run, which is mapped and ours; `start` and `offset` are multiples of 8.
            unsafe { ((self.start as usize + offset) as *mut u64).write_volatile(0) };
        }
    }

    fn check(&self, offset: usize, length: usize) -> Result<usize, OutOfBounds> {
        let end = offset.checked_add(length).ok_or(OutOfBounds)?;
        if end <= self.size { Ok(self.start as usize + offset) } else { Err(OutOfBounds) }
    }
}

impl SharedBytes for SharedRun {
    fn gpa(&self) -> u64 {
        self.start
    }

    fn size(&self) -> usize {
        self.size
    }

    fn read(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfBounds> {
        let mut from = self.check(offset, out.len())?;
        let (longs, bytes) = out.as_chunks_mut::<8>();
        for long in longs {
            // SAFETY: within the run; x86 reads unaligned words, and volatile means once.
            *long = unsafe { (from as *const [u8; 8]).read_volatile() };
            from += 8;
        }
        for byte in bytes {
            // SAFETY: within the run.
            *byte = unsafe { (from as *const u8).read_volatile() };
            from += 1;
        }
        Ok(())
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let mut to = self.check(offset, bytes.len())?;
        let (longs, bytes) = bytes.as_chunks::<8>();
        for long in longs {
            // SAFETY: within the run.
            unsafe { (to as *mut [u8; 8]).write_volatile(*long) };
            to += 8;
        }
        for byte in bytes {
            // SAFETY: within the run.
            unsafe { (to as *mut u8).write_volatile(*byte) };
            to += 1;
        }
        Ok(())
    }
}
