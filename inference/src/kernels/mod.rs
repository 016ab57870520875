//! The inner loops, and the only `unsafe` code of the engine.
//!
//! [`Kernels`] is a table of functions, chosen once when a model is loaded. Every function is written once, over the
//! vectors of [`simd`], and compiled for each set of instructions: [`plain`] runs anywhere, [`avx2`] on every processor
//! that has SEV-SNP, [`avx512`] on the newer ones. All give the same bits, and the tests hold them to that.
//! Each output element is computed by one fixed sequence of operations that depends on neither the number of
//! tokens in the batch nor the division among workers, so a result does not depend on who else is served.
#![allow(unsafe_code)]
#![allow(
    clippy::needless_range_loop,
    reason = "several arrays share an index, and what iterators inline is not sure"
)]
pub(crate) mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod bands;
mod detect;
pub(crate) mod elementwise;
pub(crate) mod exp;
mod format;
pub(crate) mod matrix;
pub(crate) mod pack;
#[cfg(feature = "plain")]
mod plain;
#[cfg(all(feature = "cli", target_arch = "x86_64"))]
pub(crate) mod probe;
pub(crate) mod simd;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "cli"))]
pub(crate) mod threads;

pub use detect::Isa;

use attention::{Head, Queries};
use bands::Band;
use core::fmt;
use elementwise::Task;
use matrix::Inputs;
use pack::Packed;
use simd::Simd;

/// What it costs to multiply several tokens together, in terms of one token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Price {
    /// So many take the time of
    pub(crate) tokens: usize,
    /// this many.
    pub(crate) cost: f32,
}

impl Price {
    /// Of so many tokens.
    pub(crate) fn of(self, tokens: usize) -> f32 {
        if tokens < 2 { 1.0 } else { tokens.div_ceil(self.tokens) as f32 * self.cost }
    }
}

/// The functions for one kind of processor.
pub(crate) struct Kernels {
    /// For messages and tests.
    pub(crate) name: &'static str,
    /// Multiplies the rows that the band has as columns: row `t` of the output is the product with vector `t`. The
    /// bytes are working memory, [`matrix::PANEL_BYTES`] of them.
    pub(crate) multiply: fn(Packed<'_>, Inputs<'_>, &mut Band<'_, f32>, &mut [u8]),
    /// Computes the attention of queries to a head, for each token at a multiple of the stride. The last floats are
    /// working memory, [`attention::scratch_len`] of them.
    pub(crate) attend: fn(Head<'_>, &Queries<'_>, &mut [f32], usize, &mut [f32]),
    pub(crate) elementwise: fn(Task<'_>),
    /// Of quantised weights that lie in a cache, which is the least favourable case.
    pub(crate) price: Price,
}

impl Kernels {
    /// Of instructions that whoever uses the table has.
    const fn of<S: Simd>(name: &'static str, cost: f32) -> Self {
        Self {
            name,
            price: Price { tokens: S::FEW, cost },
            multiply: matrix::multiply::<S>,
            attend: attention::run::<S>,
            elementwise: elementwise::<S>,
        }
    }
}

fn elementwise<S: Simd>(task: Task<'_>) {
    // SAFETY: this is reachable through a table only, which `detect` hands out only on a processor that has these
    // instructions.
    unsafe { S::elementwise(task) }
}

impl fmt::Debug for Kernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernels({})", self.name)
    }
}

/// The functions of [`Simd`] that are loops, compiled for these instructions, with so many groups and tokens at once.
#[cfg(target_arch = "x86_64")]
macro_rules! compiled {
    ($features:literal, $groups:literal, $few:literal, $many:literal) => {
        const TILE_GROUPS: usize = $groups;
        const FEW: usize = $few;
        const MANY: usize = $many;

        $crate::kernels::compiled!(@format $features, one, quantised, 1, 1);
        $crate::kernels::compiled!(@format $features, few, quantised, $groups, $few);
        $crate::kernels::compiled!(@format $features, many, quantised, $groups, $many);
        $crate::kernels::compiled!(@float $features, one_float, 1, 1);
        $crate::kernels::compiled!(@float $features, tile_float, $groups, 1);
        $crate::kernels::compiled!(@float $features, many_float, $groups, $many);

        unsafe fn unpack<F: Format>(tiles: *const u8, count: usize, panel: *mut u8) {
            #[target_feature(enable = $features)]
            unsafe fn compiled<F: Format>(tiles: *const u8, count: usize, panel: *mut u8) {
                // SAFETY: the caller vouches for the job and for the instructions.
                unsafe { $crate::kernels::matrix::unpack::<Chosen, F>(tiles, count, panel) }
            }
            // SAFETY: the caller vouches for the job and for the instructions.
            unsafe { compiled::<F>(tiles, count, panel) }
        }

        unsafe fn attend(job: &$crate::kernels::attention::Job<'_>) {
            #[target_feature(enable = $features)]
            unsafe fn compiled(job: &$crate::kernels::attention::Job<'_>) {
                // SAFETY: the caller vouches for the job and for the instructions.
                unsafe { $crate::kernels::attention::attend::<Chosen>(job) }
            }
            // SAFETY: the caller vouches for the job and for the instructions.
            unsafe { compiled(job) }
        }

        unsafe fn elementwise(task: $crate::kernels::elementwise::Task<'_>) {
            #[target_feature(enable = $features)]
            unsafe fn compiled(task: $crate::kernels::elementwise::Task<'_>) {
                // SAFETY: the caller vouches for the job and for the instructions.
                unsafe { $crate::kernels::elementwise::run::<Chosen>(task) }
            }
            // SAFETY: the caller vouches for the job and for the instructions.
            unsafe { compiled(task) }
        }
    };
    (@format $features:literal, $name:ident, $inner:ident, $groups:literal, $tokens:literal) => {
        unsafe fn $name<F: Format>(job: &$crate::kernels::matrix::Job<'_>, group: usize, token: usize) {
            #[target_feature(enable = $features)]
            unsafe fn compiled<F: Format>(job: &$crate::kernels::matrix::Job<'_>, group: usize, token: usize) {
                // SAFETY: the caller vouches for the job and for the instructions.
                unsafe { $crate::kernels::matrix::$inner::<Chosen, F, $groups, $tokens>(job, group, token) }
            }
            // SAFETY: the caller vouches for the job and for the instructions.
            unsafe { compiled::<F>(job, group, token) }
        }
    };
    (@float $features:literal, $name:ident, $groups:literal, $tokens:literal) => {
        unsafe fn $name<const K: u32>(job: &$crate::kernels::matrix::Job<'_>, group: usize, token: usize) {
            #[target_feature(enable = $features)]
            unsafe fn compiled<const K: u32>(
                job: &$crate::kernels::matrix::Job<'_>,
                group: usize,
                token: usize,
            ) {
                // SAFETY: the caller vouches for the job and for the instructions.
                unsafe { $crate::kernels::matrix::floats::<Chosen, K, $groups, $tokens>(job, group, token) }
            }
            // SAFETY: the caller vouches for the job and for the instructions.
            unsafe { compiled::<K>(job, group, token) }
        }
    };
}
#[cfg(target_arch = "x86_64")]
use compiled;
