//! The inner loops, and the only `unsafe` code of the engine.
//!
//! [`Kernels`] is a table of functions, chosen once when a model is loaded: [`plain`] runs anywhere, [`avx2`] on
//! processors with AVX2, FMA and F16C. Every function of the second is tested against its twin in the first.
//! Each output element is computed by one fixed sequence of operations that depends on neither the number of
//! tokens in the batch nor the division among workers, so a result does not depend on who else is served.
#![allow(unsafe_code)]
#[cfg(target_arch = "x86_64")]
mod avx2;
pub(crate) mod bands;
pub(crate) mod plain;
#[cfg(all(feature = "cli", target_arch = "x86_64"))]
pub(crate) mod probe;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "cli"))]
pub(crate) mod threads;

use crate::encode::{Q8_BYTES, Q8_VALUES};
use crate::gguf::TensorType;
use bands::Band;
use core::fmt;

/// The rows of a weight matrix that one call multiplies, as they are stored.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) kind: TensorType,
    /// Elements in a row.
    pub(crate) width: usize,
    /// Whole rows, one after the other.
    pub(crate) data: &'a [u8],
}

impl<'a> Rows<'a> {
    /// Bytes of a row.
    fn bytes(&self) -> usize {
        // A `Rows` comes from a tensor whose rows fill whole blocks.
        self.kind.bytes(self.width).unwrap_or(0)
    }

    fn row(&self, index: usize) -> &'a [u8] {
        &self.data[index * self.bytes()..][..self.bytes()]
    }

    /// A row of a Q8_0 matrix as blocks.
    fn blocks(&self, index: usize) -> &'a [[u8; Q8_BYTES]] {
        self.row(index).as_chunks().0
    }
}

/// A block of a quantised vector, in the halves that a 256-bit register holds.
type QuantBlock = [[i16; 16]; 2];

/// The vectors that a matrix is multiplied with, one for each token of the batch.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// Elements of a vector.
    pub(crate) width: usize,
    /// All vectors, one after the other.
    pub(crate) values: &'a [f32],
    /// The same vectors in blocks of 32 with a scale each, for matrices of quantised types.
    pub(crate) quants: &'a [i16],
    pub(crate) scales: &'a [f32],
}

impl<'a> Inputs<'a> {
    fn values(&self, token: usize) -> &'a [f32] {
        &self.values[token * self.width..][..self.width]
    }

    fn quants(&self, token: usize) -> &'a [QuantBlock] {
        self.quants[token * self.width..][..self.width].as_chunks().0.as_chunks().0
    }

    fn scales(&self, token: usize) -> &'a [f32] {
        let blocks = self.width / Q8_VALUES;
        &self.scales[token * blocks..][..blocks]
    }
}

/// The functions for one kind of processor.
pub(crate) struct Kernels {
    /// For messages and tests.
    pub(crate) name: &'static str,
    /// Multiplies rows with vectors: row `t` of the output is the product with vector `t`.
    pub(crate) multiply: fn(Rows<'_>, Inputs<'_>, &mut Band<'_, f32>),
    /// The inner products of one vector with each of several, as many as there are scores, all scaled.
    pub(crate) scores: fn(&[f32], &[f32], f32, &mut [f32]),
    /// The sum of several vectors, each multiplied by its weight.
    pub(crate) weighted_sum: fn(&[f32], &[f32], &mut [f32]),
    /// Replaces scores by `exp(score - largest)`, divided by their sum.
    pub(crate) softmax: fn(&mut [f32]),
    /// Replaces each gate by `gate · sigmoid(gate) · up`.
    pub(crate) swiglu: fn(&mut [f32], &[f32]),
    /// The sum of squares.
    pub(crate) sum_of_squares: fn(&[f32]) -> f32,
    /// Quantises a vector of whole blocks to signed bytes, kept in 16 bits, and a scale for each block.
    pub(crate) quantise: fn(&[f32], &mut [i16], &mut [f32]),
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernels({})", self.name)
    }
}

/// The best functions for the processor this runs on.
#[cfg(test)]
fn detect() -> &'static Kernels {
    Isa::best().kernels().unwrap_or(&plain::KERNELS)
}

/// A set of instructions that the inner loops are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// What every processor has.
    Plain,
    /// AVX2 with FMA and F16C: Milan and its like.
    Avx2,
}

impl Isa {
    /// All of them, the best last.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Avx2];

    /// The best set for the processor that this runs on.
    #[must_use]
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.is_supported()).unwrap_or(Self::Plain)
    }

    /// Whether the processor that this runs on has it.
    #[must_use]
    pub fn is_supported(self) -> bool {
        self.kernels().is_some()
    }

    /// The functions, if the processor can run them.
    pub(crate) fn kernels(self) -> Option<&'static Kernels> {
        match self {
            Self::Plain => Some(&plain::KERNELS),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::kernels(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 => None,
        }
    }
}
