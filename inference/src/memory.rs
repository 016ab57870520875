//! Buffers that are allocated once, with an error where there is no room, and overwritten after use.
use crate::error::LimitsError;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use zeroize::{DefaultIsZeroes, Zeroize};

/// A buffer of fixed length that may hold what was derived from a user's text. Dropping it wipes it.
pub(crate) struct Buffer<T: DefaultIsZeroes>(Vec<T>);

impl<T: DefaultIsZeroes> Buffer<T> {
    /// A buffer of zeros whose length is the product of these.
    pub(crate) fn zeros(factors: &[usize]) -> Result<Self, LimitsError> {
        let len = factors.iter().try_fold(1_usize, |product, factor| product.checked_mul(*factor));
        let len = len.ok_or(LimitsError::Memory)?;
        let mut elements = reserve(len)?;
        elements.resize(len, T::default());
        Ok(Self(elements))
    }
}

impl<T: DefaultIsZeroes> Buffer<T> {
    /// Overwrites the contents with zeros, in a way that is not optimised away.
    pub(crate) fn wipe(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl<T: DefaultIsZeroes> Drop for Buffer<T> {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl<T: DefaultIsZeroes> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: DefaultIsZeroes> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// An empty list with room for so many elements.
pub(crate) fn reserve<T>(len: usize) -> Result<Vec<T>, LimitsError> {
    let mut elements = Vec::new();
    elements.try_reserve_exact(len).map_err(|_| LimitsError::Memory)?;
    Ok(elements)
}
