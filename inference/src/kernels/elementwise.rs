//! What is done to vectors element by element, and their quantisation.
use super::exp::exps;
use super::simd::{BLOCK, Block, ROWS, Simd, array};
use crate::math::sqrt;

/// One such operation.
pub(crate) enum Task<'a> {
    /// Scales a vector to a mean square of one, and each of its elements by its weight.
    Normalise { x: &'a mut [f32], weights: &'a [f32], epsilon: f32 },
    /// Quantises a vector of whole blocks.
    Quantise { x: &'a [f32], out: &'a mut [Block] },
    /// Replaces each gate by `gate · sigmoid(gate) · up`.
    Swiglu { gates: &'a mut [f32], ups: &'a [f32] },
    /// Adds one vector to another.
    Add { to: &'a mut [f32], x: &'a [f32] },
    /// Brings memory nearer that is read soon.
    Fetch(&'a [u8]),
}

#[inline(always)]
pub(super) unsafe fn run<S: Simd>(task: Task<'_>) {
    // SAFETY: the caller has the instructions of `S`.
    unsafe {
        match task {
            Task::Normalise { x, weights, epsilon } => {
                let mut squares = S::splat(0.0);
                for part in parts(x.len()) {
                    let x = load::<S>(x, part);
                    squares = S::fma(x, x, squares);
                }
                let mean = S::sum(squares) / x.len() as f32;
                let scale = S::splat(1.0 / sqrt(mean + epsilon));
                for part in parts(x.len().min(weights.len())) {
                    let scaled = S::mul(load::<S>(x, part), scale);
                    store::<S>(S::mul(scaled, load::<S>(weights, part)), x, part);
                }
            }
            Task::Quantise { x, out } => {
                for (x, out) in x.as_chunks::<BLOCK>().0.iter().zip(out) {
                    quantise::<S>(x, out);
                }
            }
            Task::Swiglu { gates, ups } => {
                for part in parts(gates.len().min(ups.len())) {
                    let gate = load::<S>(gates, part);
                    let sigmoid = S::add(S::splat(1.0), exps::<S>(S::sub(S::splat(0.0), gate)));
                    store::<S>(S::mul(S::div(gate, sigmoid), load::<S>(ups, part)), gates, part);
                }
            }
            Task::Fetch(bytes) => bytes.chunks(64).for_each(|line| S::prefetch(line.as_ptr())),
            Task::Add { to, x } => {
                for part in parts(to.len().min(x.len())) {
                    store::<S>(S::add(load::<S>(to, part), load::<S>(x, part)), to, part);
                }
            }
        }
    }
}

/// A block of smaller elements counts as zeros: with their step, products of scales could be too small for a number
/// of full precision.
const SMALLEST: f32 = 1e-20;

/// Quantises to 127 steps on either side of zero. The scale is not rounded to half precision, as it is where blocks are
/// stored.
#[inline(always)]
unsafe fn quantise<S: Simd>(x: &[f32; BLOCK], out: &mut Block) {
    // SAFETY: the caller has the instructions of `S`; the block has two vectors.
    unsafe {
        let halves = [S::load(x.as_ptr()), S::load(x.as_ptr().add(ROWS))];
        let largest = S::largest(S::max(S::abs(halves[0]), S::abs(halves[1])));
        let (scale, inverse) =
            if largest > SMALLEST { (largest / 127.0, 127.0 / largest) } else { (0.0, 0.0) };
        let inverse = S::splat(inverse);
        let limit = S::splat(127.0);
        let halves = array!(2, halves[0], half => {
            S::max(S::min(S::mul(halves[half], inverse), limit), S::splat(-127.0))
        });
        S::block(halves, scale, out);
    }
}

/// Sixteen elements of vectors, or what is left of them.
#[derive(Clone, Copy)]
struct Part {
    first: usize,
    count: usize,
}

/// The parts of a vector: sixteen elements each, and the rest.
fn parts(len: usize) -> impl Iterator<Item = Part> {
    (0..len).step_by(ROWS).map(move |first| Part { first, count: (len - first).min(ROWS) })
}

/// The elements, followed by zeros.
#[inline(always)]
unsafe fn load<S: Simd>(from: &[f32], part: Part) -> S::F {
    let from = &from[part.first..][..part.count];
    // SAFETY: the caller has the instructions of `S`; sixteen elements are there, or have been copied.
    unsafe {
        if part.count == ROWS {
            return S::load(from.as_ptr());
        }
        let mut lanes = [0.0; ROWS];
        lanes[..part.count].copy_from_slice(from);
        S::load(lanes.as_ptr())
    }
}

#[inline(always)]
unsafe fn store<S: Simd>(vector: S::F, to: &mut [f32], part: Part) {
    let to = &mut to[part.first..][..part.count];
    // SAFETY: the caller has the instructions of `S`; there is room for sixteen elements.
    unsafe {
        if part.count == ROWS {
            return S::store(vector, to.as_mut_ptr());
        }
        let mut lanes = [0.0; ROWS];
        S::store(vector, lanes.as_mut_ptr());
        to.copy_from_slice(&lanes[..part.count]);
    }
}
