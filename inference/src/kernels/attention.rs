//! Attention in one pass over keys and values, with a running maximum and sum of each query's softmax (Milakov and
//! Gimelshein, <https://arxiv.org/abs/1805.02867>; Dao and others, <https://arxiv.org/abs/2205.14135>).
//!
//! Positions are taken in blocks that begin at multiples of [`POSITIONS`], and what a query may not see adds exact
//! zeros. So a query's result depends neither on the queries beside it nor on where its batch began.
use super::exp::exps;
use super::simd::{ROWS, Simd, array};
use core::marker::PhantomData;

/// Positions that are scored before the softmax is brought up to date.
const POSITIONS: usize = 128;
/// Queries that are taken together at most.
const QUERIES: usize = 6;

/// Where the keys and values of one head of a session are, in half precision: keys in tiles of sixteen positions, in
/// which the same element of all lies together; values one after the other, each padded to whole vectors.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) keys: &'a [u16],
    pub(crate) values: &'a [u16],
    /// Elements of a head.
    pub(crate) length: usize,
}

/// Elements that a value takes.
pub(crate) const fn padded(length: usize) -> usize {
    length.next_multiple_of(ROWS)
}

/// Floats that a worker needs.
pub(crate) const fn scratch_len(length: usize) -> usize {
    QUERIES * (POSITIONS + padded(length))
}

/// Queries of neighbouring tokens of a session that share a key-value head.
pub(crate) struct Queries<'a> {
    /// From the first query of the first token on.
    pub(crate) values: &'a [f32],
    /// Elements from a token's to the next token's.
    pub(crate) stride: usize,
    /// Heads of a token, one after the other.
    pub(crate) group: usize,
    /// Position of the first token.
    pub(crate) position: usize,
    /// Tokens.
    pub(crate) tokens: usize,
    /// Of how many positions up to its own a token sees the keys.
    pub(crate) window: usize,
    /// What inner products are multiplied with.
    pub(crate) scale: f32,
}

pub(crate) struct Job<'a> {
    keys: *const u16,
    values: *const u16,
    length: usize,
    queries: *const f32,
    stride: usize,
    group: usize,
    position: usize,
    rows: usize,
    window: usize,
    scale: f32,
    out: *mut f32,
    out_stride: usize,
    scratch: *mut f32,
    borrow: PhantomData<&'a mut [f32]>,
}

/// Computes the attention of queries; a token's results lie as its queries do, `out_stride` elements from token to
/// token.
pub(super) fn run<S: Simd>(
    head: Head<'_>,
    queries: &Queries<'_>,
    out: &mut [f32],
    out_stride: usize,
    scratch: &mut [f32],
) {
    let Queries { values, stride, group, position, tokens, window, scale } = *queries;
    if tokens == 0 || group == 0 || head.length == 0 {
        return;
    }
    let (positions, own) = (position + tokens, group * head.length);
    assert!(head.keys.len() >= positions.next_multiple_of(ROWS) * head.length);
    assert!(head.values.len() >= positions * padded(head.length));
    assert!(values.len() >= (tokens - 1) * stride + own && out.len() >= (tokens - 1) * out_stride + own);
    assert!(scratch.len() >= scratch_len(head.length) && window > 0);
    let job = Job {
        keys: head.keys.as_ptr(),
        values: head.values.as_ptr(),
        length: head.length,
        queries: values.as_ptr(),
        stride,
        group,
        position,
        rows: tokens * group,
        window,
        scale,
        out: out.as_mut_ptr(),
        out_stride,
        scratch: scratch.as_mut_ptr(),
        borrow: PhantomData,
    };
    // SAFETY: keys and values of all positions up to the last token's, queries, room for results and working memory
    // were asserted to be there. `S` is what the processor has, because its table was handed out.
    unsafe { S::attend(&job) }
}

/// Attends for all rows of a job.
///
/// # Safety
/// The processor has the instructions, and the pointers are valid as [`run`] makes them.
#[inline(always)]
pub(super) unsafe fn attend<S: Simd>(job: &Job<'_>) {
    let mut row = 0;
    // The scores of six rows are held by registers where there are 32 of them.
    macro_rules! tiles {
        ($($rows:literal)*) => {$(
            while job.rows - row >= $rows && ($rows < QUERIES || S::TILE_GROUPS == 2) {
                // SAFETY: the caller's; rows are below the job's.
                unsafe { tile::<S, $rows>(job, row) };
                row += $rows;
            }
        )*};
    }
    tiles!(6 4 2 1);
}

#[inline(always)]
unsafe fn tile<S: Simd, const Q: usize>(job: &Job<'_>, first: usize) {
    let padded = padded(job.length);
    // Which positions a row sees.
    let seen = |q: usize| {
        let position = job.position + (first + q) / job.group;
        (position + 1).saturating_sub(job.window)..position + 1
    };
    let place =
        |q: usize, stride: usize| (first + q) / job.group * stride + (first + q) % job.group * job.length;
    let (begin, end) = (seen(0).start / POSITIONS * POSITIONS, seen(Q - 1).end);
    let mut largest = [f32::NEG_INFINITY; Q];
    let mut total = [0.0_f32; Q];
    // SAFETY: the caller's. `place` is a row's own part of queries and results; scratch has `POSITIONS` scores and a
    // padded vector for each of `QUERIES` rows; keys are read to the end of the last tile of sixteen positions that
    // holds one before `end`, and values before `end`.
    unsafe {
        let queries = array!(Q, job.queries, q => job.queries.add(place(q, job.stride)));
        let scores = job.scratch;
        let sums = job.scratch.add(QUERIES * POSITIONS);
        for at in (0..Q * padded).step_by(ROWS) {
            S::store(S::splat(0.0), sums.add(at));
        }
        for base in (begin..end).step_by(POSITIONS) {
            let count = (end - base).min(POSITIONS);
            let vectors = count.div_ceil(ROWS);
            let mut vector = 0;
            while vector + 2 <= vectors && S::TILE_GROUPS == 2 {
                score::<S, Q, 2>(job, queries, base, vector, scores);
                vector += 2;
            }
            while vector < vectors {
                score::<S, Q, 1>(job, queries, base, vector, scores);
                vector += 1;
            }
            let mut factors = [0.0; Q];
            for q in 0..Q {
                let scores = scores.add(q * POSITIONS);
                let seen = seen(q);
                // Below and from these places on, scores of this block are not seen.
                let low = seen.start.saturating_sub(base).min(vectors * ROWS);
                let high = seen.end.saturating_sub(base).min(vectors * ROWS);
                let hide = |value: f32| {
                    (0..low).chain(high..vectors * ROWS).for_each(|at| scores.add(at).write(value));
                };
                hide(f32::NEG_INFINITY);
                let mut most = S::splat(largest[q]);
                for vector in 0..vectors {
                    most = S::max(S::load(scores.add(vector * ROWS)), most);
                }
                let most = S::largest(most);
                for vector in 0..vectors {
                    let at = scores.add(vector * ROWS);
                    S::store(exps::<S>(S::sub(S::load(at), S::splat(most))), at);
                }
                hide(0.0);
                let mut sum = S::splat(0.0);
                for vector in 0..vectors {
                    sum = S::add(sum, S::load(scores.add(vector * ROWS)));
                }
                let mut lanes = [0.0; ROWS];
                S::store(exps::<S>(S::splat(largest[q] - most)), lanes.as_mut_ptr());
                factors[q] = lanes[0];
                largest[q] = most;
                total[q] = total[q] * factors[q] + S::sum(sum);
            }
            let vectors = padded / ROWS;
            let mut vector = 0;
            while vector + 4 <= vectors && S::TILE_GROUPS == 2 {
                weigh::<S, Q, 4>(job, base, count, vector, factors, sums);
                vector += 4;
            }
            while vector < vectors {
                weigh::<S, Q, 1>(job, base, count, vector, factors, sums);
                vector += 1;
            }
        }
        for q in 0..Q {
            let out = job.out.add(place(q, job.out_stride));
            let inverse = 1.0 / total[q];
            for at in 0..job.length {
                out.add(at).write(sums.add(q * padded + at).read() * inverse);
            }
        }
    }
}

/// The inner products of `Q` queries with `16 P` keys.
#[inline(always)]
unsafe fn score<S: Simd, const Q: usize, const P: usize>(
    job: &Job<'_>,
    queries: [*const f32; Q],
    base: usize,
    vector: usize,
    scores: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let keys = job.keys.add((base + vector * ROWS) * job.length);
        let mut sums = [[S::splat(0.0); P]; Q];
        for element in 0..job.length {
            let zero = S::splat(0.0);
            let keys = array!(P, zero, p => S::from_f16(keys.add((p * job.length + element) * ROWS).cast()));
            for q in 0..Q {
                let query = S::splat(*queries[q].add(element));
                for p in 0..P {
                    sums[q][p] = S::fma(keys[p], query, sums[q][p]);
                }
            }
        }
        for q in 0..Q {
            for p in 0..P {
                let scaled = S::mul(sums[q][p], S::splat(job.scale));
                S::store(scaled, scores.add(q * POSITIONS + (vector + p) * ROWS));
            }
        }
    }
}

/// Adds to `16 D` elements of `Q` results the values of a block, each times its weight.
#[inline(always)]
unsafe fn weigh<S: Simd, const Q: usize, const D: usize>(
    job: &Job<'_>,
    base: usize,
    count: usize,
    vector: usize,
    factors: [f32; Q],
    sums: *mut f32,
) {
    let padded = padded(job.length);
    // SAFETY: the caller's; weights are where the scores were.
    unsafe {
        let place = |q: usize, d: usize| sums.wrapping_add(q * padded + (vector + d) * ROWS);
        let mut results = [[S::splat(0.0); D]; Q];
        for q in 0..Q {
            for d in 0..D {
                results[q][d] = S::mul(S::load(place(q, d)), S::splat(factors[q]));
            }
        }
        let mut values = job.values.add(base * padded + vector * ROWS);
        let mut weights = job.scratch;
        for _ in 0..count {
            let columns = array!(D, S::splat(0.0), d => S::from_f16(values.add(d * ROWS).cast()));
            for q in 0..Q {
                let weight = S::splat(*weights.add(q * POSITIONS));
                for d in 0..D {
                    results[q][d] = S::fma(columns[d], weight, results[q][d]);
                }
            }
            values = values.add(padded);
            weights = weights.add(1);
        }
        for q in 0..Q {
            for d in 0..D {
                S::store(results[q][d], place(q, d));
            }
        }
    }
}
