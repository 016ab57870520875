//! Memory shared with the host: copied from and to, never referenced.

use kernel::host::{OutOfBounds, SharedBytes, Width};

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
        // SAFETY: the run is mapped and ours. Nothing is read, and a host that meanwhile writes changes what it may change anyway.
        unsafe { (self.start as *mut u8).write_bytes(0, self.size) };
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
        let (mut from, mut rest) = (self.check(offset, out.len())?, out);
        // As below, for long copies of which all but the end is of this width.
        if from.is_multiple_of(8) {
            let (words, end) = rest.as_chunks_mut();
            for word in words {
                // SAFETY: within the run and aligned; volatile means once.
                *word = unsafe { (from as *const u64).read_volatile() }.to_le_bytes();
                from += 8;
            }
            rest = end;
        }
        while let Some(width) = Width::widest(from, rest.len()) {
            // SAFETY: within the run and aligned; volatile means once.
            let value = unsafe {
                match width {
                    Width::Byte => (from as *const u8).read_volatile().into(),
                    Width::Word => (from as *const u16).read_volatile().into(),
                    Width::Long => (from as *const u32).read_volatile().into(),
                    Width::Quad => (from as *const u64).read_volatile(),
                }
            };
            let (piece, next) = rest.split_at_mut(width.bytes() as usize);
            piece.copy_from_slice(&value.to_le_bytes()[..piece.len()]);
            from += piece.len();
            rest = next;
        }
        Ok(())
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let (mut to, mut rest) = (self.check(offset, bytes.len())?, bytes);
        if to.is_multiple_of(8) {
            let (words, end) = rest.as_chunks();
            for word in words {
                // SAFETY: within the run and aligned.
                unsafe { (to as *mut u64).write_volatile(u64::from_le_bytes(*word)) };
                to += 8;
            }
            rest = end;
        }
        while let Some(width) = Width::widest(to, rest.len()) {
            let (piece, next) = rest.split_at(width.bytes() as usize);
            let mut value = [0; 8];
            value[..piece.len()].copy_from_slice(piece);
            let value = u64::from_le_bytes(value);
            // SAFETY: within the run and aligned.
            unsafe {
                match width {
                    Width::Byte => (to as *mut u8).write_volatile(value as u8),
                    Width::Word => (to as *mut u16).write_volatile(value as u16),
                    Width::Long => (to as *mut u32).write_volatile(value as u32),
                    Width::Quad => (to as *mut u64).write_volatile(value),
                }
            }
            to += piece.len();
            rest = next;
        }
        Ok(())
    }
}
