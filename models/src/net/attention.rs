//! Causal attention as one operation, with its backward pass.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::ops::{exp, read, sum, values};

/// Elements per attention head; a constant, so that the inner loops have a fixed length.
pub const HEAD: usize = 32;

/// The sines and cosines of rotary position embedding, for neighbouring pairs of elements: GGUF's
/// `llama` architecture pairs them so, and the export then needs no permutation.
pub struct Rope {
    table: Vec<[(f32, f32); HEAD / 2]>,
}

impl Rope {
    /// Tables for `positions` positions.
    pub fn new(positions: usize, base: f64) -> Self {
        let row = |position: usize| {
            std::array::from_fn(|pair| {
                let angle = position as f64 / base.powf(2.0 * pair as f64 / HEAD as f64);
                (angle.cos() as f32, angle.sin() as f32)
            })
        };
        Self { table: (0..positions).map(row).collect() }
    }

    fn rotate(&self, head: &mut [f32], position: usize, direction: f32) {
        for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(&self.table[position]) {
            let (a, b, sin) = (pair[0], pair[1], sin * direction);
            pair[0] = a * cos - b * sin;
            pair[1] = a * sin + b * cos;
        }
    }
}

/// Causal attention with grouped queries and rotary positions over sequences that lie end to end.
///
/// A row of the input holds the queries of all heads, then the keys, then the values. No padding:
/// each sequence attends within its own rows only.
pub struct CausalAttention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// The rows of each sequence.
    pub sequences: Arc<[Range<usize>]>,
    /// Position tables, at least as long as the longest sequence.
    pub rope: Arc<Rope>,
}

type Row = [f32; HEAD];

/// The keys and values of one head over one sequence, with the keys' and values' transposes.
struct KeyValues {
    keys: Vec<Row>,
    values: Vec<Row>,
    keys_by_element: Vec<f32>,
    values_by_element: Vec<f32>,
}

impl CausalAttention {
    fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * HEAD
    }

    fn load(&self, rows: &[f32], sequence: &Range<usize>, offset: usize, rotate: bool) -> Vec<Row> {
        let width = self.width();
        let load = |(position, row): (usize, usize)| {
            let mut head = [0f32; HEAD];
            head.copy_from_slice(&rows[row * width + offset..][..HEAD]);
            if rotate {
                self.rope.rotate(&mut head, position, 1.0);
            }
            head
        };
        sequence.clone().enumerate().map(load).collect()
    }

    fn key_values(&self, rows: &[f32], sequence: &Range<usize>, group: usize) -> KeyValues {
        let keys = self.load(rows, sequence, (self.heads + group) * HEAD, true);
        let values = self.load(rows, sequence, (self.heads + self.kv_heads + group) * HEAD, false);
        KeyValues { keys_by_element: transpose(&keys), values_by_element: transpose(&values), keys, values }
    }
}

fn transpose(rows: &[Row]) -> Vec<f32> {
    let mut out = vec![0f32; rows.len() * HEAD];
    for (i, row) in rows.iter().enumerate() {
        for (c, value) in row.iter().enumerate() {
            out[c * rows.len() + i] = *value;
        }
    }
    out
}

/// `out[j] = Σ_c left[c] · columns[c][j]` for the first `out.len()` columns.
#[inline(always)]
fn products(left: &Row, columns: &[f32], length: usize, out: &mut [f32]) {
    out.fill(0.0);
    let n = out.len();
    for (block, left) in left.chunks_exact(8).enumerate() {
        let column = |c: usize| &columns[(block * 8 + c) * length..][..n];
        let [a, b, c, d] = [column(0), column(1), column(2), column(3)];
        let [e, f, g, h] = [column(4), column(5), column(6), column(7)];
        for j in 0..n {
            out[j] += (left[0] * a[j] + left[1] * b[j])
                + (left[2] * c[j] + left[3] * d[j])
                + ((left[4] * e[j] + left[5] * f[j]) + (left[6] * g[j] + left[7] * h[j]));
        }
    }
}

/// `Σ_j weights[j] · rows[j]`.
#[inline(always)]
fn combine(weights: &[f32], rows: &[Row]) -> Row {
    let mut even = [0f32; HEAD];
    let mut odd = [0f32; HEAD];
    let (weight_pairs, row_pairs) = (weights.chunks_exact(2), rows.chunks_exact(2));
    if let ([weight], [row]) = (weight_pairs.remainder(), row_pairs.remainder()) {
        for c in 0..HEAD {
            even[c] = weight * row[c];
        }
    }
    for (weight, row) in weight_pairs.zip(row_pairs) {
        for c in 0..HEAD {
            even[c] += weight[0] * row[0][c];
            odd[c] += weight[1] * row[1][c];
        }
    }
    std::array::from_fn(|c| even[c] + odd[c])
}

/// The attention weights of one query over the positions up to its own.
#[inline(always)]
fn attend(query: &Row, kv: &KeyValues, weights: &mut [f32]) {
    products(query, &kv.keys_by_element, kv.keys.len(), weights);
    let scale = 1.0 / (HEAD as f32).sqrt();
    let max = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for weight in weights.iter_mut() {
        *weight = exp((*weight - max) * scale);
    }
    let total = sum(weights.iter().copied());
    for weight in weights.iter_mut() {
        *weight /= total;
    }
}

impl CustomOp1 for CausalAttention {
    fn name(&self) -> &'static str {
        "causal-attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let rows = read(x, xl)?;
        let count = xl.shape().dims2()?.0;
        let out_width = self.heads * HEAD;
        let mut out = vec![0f32; count * out_width];
        let mut weights = vec![0f32; self.sequences.iter().map(|s| s.len()).max().unwrap_or(0)];
        for sequence in self.sequences.iter() {
            for group in 0..self.kv_heads {
                let kv = self.key_values(rows, sequence, group);
                for head in group * self.heads / self.kv_heads..(group + 1) * self.heads / self.kv_heads {
                    let queries = self.load(rows, sequence, head * HEAD, true);
                    for (i, query) in queries.iter().enumerate() {
                        let weights = &mut weights[..=i];
                        attend(query, &kv, weights);
                        let result = combine(weights, &kv.values[..=i]);
                        out[(sequence.start + i) * out_width + head * HEAD..][..HEAD]
                            .copy_from_slice(&result);
                    }
                }
            }
        }
        Ok((CpuStorage::F32(out), (count, out_width).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (rows, grads) = (values(x)?, values(grad)?);
        let (width, out_width) = (self.width(), self.heads * HEAD);
        let scale = 1.0 / (HEAD as f32).sqrt();
        let mut dx = vec![0f32; rows.len()];
        let longest = self.sequences.iter().map(|s| s.len()).max().unwrap_or(0);
        let (mut weights, mut dweights) = (vec![0f32; longest], vec![0f32; longest]);
        for sequence in self.sequences.iter() {
            for group in 0..self.kv_heads {
                let kv = self.key_values(&rows, sequence, group);
                let mut dkeys = vec![[0f32; HEAD]; sequence.len()];
                let mut dvalues = vec![[0f32; HEAD]; sequence.len()];
                for head in group * self.heads / self.kv_heads..(group + 1) * self.heads / self.kv_heads {
                    let queries = self.load(&rows, sequence, head * HEAD, true);
                    for (i, query) in queries.iter().enumerate() {
                        let row = sequence.start + i;
                        let mut dout = [0f32; HEAD];
                        dout.copy_from_slice(&grads[row * out_width + head * HEAD..][..HEAD]);
                        let (weights, dweights) = (&mut weights[..=i], &mut dweights[..=i]);
                        attend(query, &kv, weights);
                        products(&dout, &kv.values_by_element, kv.values.len(), dweights);
                        let mean = sum(weights.iter().zip(dweights.iter()).map(|(w, d)| w * d));
                        for (dweight, weight) in dweights.iter_mut().zip(weights.iter()) {
                            *dweight = (*dweight - mean) * weight * scale;
                        }
                        for j in 0..=i {
                            for c in 0..HEAD {
                                dkeys[j][c] += dweights[j] * query[c];
                                dvalues[j][c] += weights[j] * dout[c];
                            }
                        }
                        let mut dquery = combine(dweights, &kv.keys[..=i]);
                        self.rope.rotate(&mut dquery, i, -1.0);
                        dx[row * width + head * HEAD..][..HEAD].copy_from_slice(&dquery);
                    }
                }
                for (i, (dkey, dvalue)) in dkeys.iter_mut().zip(&dvalues).enumerate() {
                    self.rope.rotate(dkey, i, -1.0);
                    let row = &mut dx[(sequence.start + i) * width..][..width];
                    row[(self.heads + group) * HEAD..][..HEAD].copy_from_slice(dkey);
                    row[(self.heads + self.kv_heads + group) * HEAD..][..HEAD].copy_from_slice(dvalue);
                }
            }
        }
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ops::tests::{check_gradient, random, scalar};
    use super::*;

    /// Attention over sequences of these lengths.
    fn attention(lengths: &[usize]) -> CausalAttention {
        let mut end = 0;
        let span = |length: &usize| {
            end += length;
            end - length..end
        };
        let sequences = lengths.iter().map(span).collect();
        CausalAttention { heads: 2, kv_heads: 1, sequences, rope: Arc::new(Rope::new(16, 10_000.0)) }
    }

    #[test]
    fn attentions_gradient_is_its_slope() {
        check_gradient(&random(9, 4 * HEAD, 5), |x| scalar(&x.apply_op1(attention(&[4, 5])).unwrap()));
    }

    #[test]
    fn sequences_do_not_see_each_other_nor_their_own_future() {
        let whole = random(9, 4 * HEAD, 6);
        let both = whole.apply_op1(attention(&[4, 5])).unwrap();
        let second = whole.narrow(0, 4, 5).unwrap().contiguous().unwrap();
        let alone = second.apply_op1(attention(&[5])).unwrap();
        assert_eq!(values(&both.narrow(0, 4, 5).unwrap()).unwrap(), values(&alone).unwrap());
        let shorter =
            second.narrow(0, 0, 3).unwrap().contiguous().unwrap().apply_op1(attention(&[3])).unwrap();
        assert_eq!(values(&alone.narrow(0, 0, 3).unwrap()).unwrap(), values(&shorter).unwrap());
    }
}
