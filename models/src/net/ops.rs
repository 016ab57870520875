//! The decoder's fused operations, each with its own backward pass.
//!
//! Candle's autograd composes these from a dozen element-wise nodes; on a CPU the passes over memory
//! then cost more than the matrix products. Each operation here reads its input once forward and once
//! backward, and recomputes what it would otherwise have to keep.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// Elements per attention head; a constant, so that the inner loops have a fixed length.
pub const HEAD: usize = 32;

/// Added to the mean square in every RMSNorm.
pub const NORM_EPSILON: f32 = 1e-5;

/// `e^x` to about 2 units in the last place, without branches, so that loops over it vectorise.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2^23 leaves round(x / ln 2) in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let series = 1.0
        + r * (1.0
            + r * (0.5 + r * (0.166_666_67 + r * (0.041_666_67 + r * (0.008_333_34 + r * 0.001_388_9)))));
    series * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000))
}

fn read<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&data[start..end]),
        _ => bail!("a fused operation needs contiguous f32 input"),
    }
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

/// Root-mean-square normalisation of the rows of `x`, scaled by a weight vector.
pub struct RmsNorm;

impl RmsNorm {
    fn scale(row: &[f32]) -> f32 {
        let square: f32 = sum(row.iter().map(|x| x * x));
        1.0 / (square / row.len() as f32 + NORM_EPSILON).sqrt()
    }
}

/// A sum in 16 lanes, which the compiler may keep in vector registers.
#[inline(always)]
fn sum(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let mut lanes = [0f32; 16];
    for (i, value) in values.enumerate() {
        lanes[i % 16] += value;
    }
    lanes.iter().sum()
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (read(x, xl)?, read(w, wl)?);
        let mut y = vec![0f32; x.len()];
        for (x, y) in x.chunks_exact(w.len()).zip(y.chunks_exact_mut(w.len())) {
            let scale = Self::scale(x);
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = x * scale * w;
            }
        }
        Ok((CpuStorage::F32(y), xl.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (xs, ws, gs) = (values(x)?, values(w)?, values(grad)?);
        let width = ws.len();
        let mut dx = vec![0f32; xs.len()];
        let mut dw = vec![0f32; width];
        for ((x, g), dx) in xs.chunks_exact(width).zip(gs.chunks_exact(width)).zip(dx.chunks_exact_mut(width))
        {
            let scale = Self::scale(x);
            let dot = sum(x.iter().zip(g).zip(&ws).map(|((x, g), w)| x * g * w));
            let pull = dot * scale * scale * scale / width as f32;
            for i in 0..width {
                dx[i] = g[i] * ws[i] * scale - x[i] * pull;
                dw[i] += g[i] * x[i] * scale;
            }
        }
        let device = x.device();
        Ok((Some(Tensor::from_vec(dx, x.shape(), device)?), Some(Tensor::from_vec(dw, w.shape(), device)?)))
    }
}

/// `silu(gate) * up` for rows that hold the gate first and the up-projection after it.
pub struct SwiGlu;

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = read(x, xl)?;
        let (rows, width) = xl.shape().dims2()?;
        let half = width / 2;
        let mut y = vec![0f32; rows * half];
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(half)) {
            let (gate, up) = x.split_at(half);
            for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
                *y = g / (1.0 + exp(-g)) * u;
            }
        }
        Ok((CpuStorage::F32(y), (rows, half).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (xs, gs) = (values(x)?, values(grad)?);
        let width = x.dim(1)?;
        let half = width / 2;
        let mut dx = vec![0f32; xs.len()];
        for ((x, g), dx) in xs.chunks_exact(width).zip(gs.chunks_exact(half)).zip(dx.chunks_exact_mut(width))
        {
            let (gate, up) = x.split_at(half);
            let (dgate, dup) = dx.split_at_mut(half);
            for i in 0..half {
                let sigmoid = 1.0 / (1.0 + exp(-gate[i]));
                dup[i] = g[i] * gate[i] * sigmoid;
                dgate[i] = g[i] * up[i] * sigmoid * (1.0 + gate[i] * (1.0 - sigmoid));
            }
        }
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

/// The weighted sum of the cross-entropies of rows of logits against their target tokens.
pub struct CrossEntropy {
    /// The token that each row should have predicted.
    pub targets: Vec<u32>,
    /// What a row's loss is multiplied with.
    pub weight: f32,
}

impl CrossEntropy {
    fn normaliser(row: &[f32]) -> (f32, f32) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        (max, sum(row.iter().map(|x| exp(x - max))))
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = xl.shape().dims2()?.1;
        let mut loss = 0f32;
        for (row, &target) in read(x, xl)?.chunks_exact(width).zip(&self.targets) {
            let (max, total) = Self::normaliser(row);
            loss += max + total.ln() - row[target as usize];
        }
        Ok((CpuStorage::F32(vec![loss * self.weight]), Shape::from(())))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let factor = grad.to_scalar::<f32>()? * self.weight;
        let mut dx = values(x)?;
        for (row, &target) in dx.chunks_exact_mut(x.dim(1)?).zip(&self.targets) {
            let (max, total) = Self::normaliser(row);
            for x in row.iter_mut() {
                *x = exp(*x - max) / total * factor;
            }
            row[target as usize] -= factor;
        }
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

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
    use candle_core::{Device, Var};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn random(rows: usize, columns: usize, seed: u64) -> Var {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f32> = (0..rows * columns).map(|_| random.random_range(-1.5..1.5)).collect();
        Var::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    }

    /// Compares the gradient of a scalar function with differences of its values, at every seventh element.
    fn check_gradient(input: &Var, function: impl Fn(&Tensor) -> Tensor) {
        let gradients = function(input.as_tensor()).backward().unwrap();
        let gradient = values(gradients.get(input).unwrap()).unwrap();
        let start = values(input).unwrap();
        for i in (0..start.len()).step_by(7) {
            let at = |delta: f32| {
                let mut moved = start.clone();
                moved[i] += delta;
                let moved = Tensor::from_vec(moved, input.shape(), &Device::Cpu).unwrap();
                function(&moved).to_scalar::<f32>().unwrap()
            };
            let difference = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!(
                (gradient[i] - difference).abs() < 2e-2 * (1.0 + difference.abs()),
                "{i}: {} {difference}",
                gradient[i]
            );
        }
    }

    /// A scalar that depends on every element of the output in its own way.
    fn scalar(output: &Tensor) -> Tensor {
        let (rows, columns) = output.dims2().unwrap();
        (output * random(rows, columns, 99).as_tensor()).unwrap().sum_all().unwrap()
    }

    #[test]
    fn exp_agrees_with_the_standard_library() {
        for i in -8000..=8000 {
            let x = i as f32 / 100.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-6, "{x}");
        }
    }

    #[test]
    fn the_norms_gradients_are_its_slopes() {
        let weight = random(1, 24, 2).flatten_all().unwrap();
        check_gradient(&random(5, 24, 1), |x| scalar(&x.apply_op2(&weight, RmsNorm).unwrap()));
        let x = random(5, 24, 1);
        check_gradient(&random(1, 24, 2), |w| {
            scalar(&x.as_tensor().apply_op2(&w.flatten_all().unwrap(), RmsNorm).unwrap())
        });
    }

    #[test]
    fn the_gates_gradient_is_its_slope() {
        check_gradient(&random(3, 20, 3), |x| scalar(&x.apply_op1(SwiGlu).unwrap()));
    }

    #[test]
    fn the_losss_gradient_is_its_slope() {
        check_gradient(&random(3, 11, 4), |x| {
            x.apply_op1(CrossEntropy { targets: vec![0, 10, 4], weight: 0.5 }).unwrap()
        });
    }

    fn attention(sequences: &[Range<usize>]) -> CausalAttention {
        let rope = Arc::new(Rope::new(16, 10_000.0));
        CausalAttention { heads: 2, kv_heads: 1, sequences: sequences.into(), rope }
    }

    #[test]
    fn attentions_gradient_is_its_slope() {
        check_gradient(&random(9, 4 * HEAD, 5), |x| scalar(&x.apply_op1(attention(&[0..4, 4..9])).unwrap()));
    }

    #[test]
    fn sequences_do_not_see_each_other_nor_their_own_future() {
        let whole = random(9, 4 * HEAD, 6);
        let both = whole.apply_op1(attention(&[0..4, 4..9])).unwrap();
        let second = whole.narrow(0, 4, 5).unwrap().contiguous().unwrap();
        let alone = second.apply_op1(attention(&[0..5])).unwrap();
        assert_eq!(values(&both.narrow(0, 4, 5).unwrap()).unwrap(), values(&alone).unwrap());
        let shorter =
            second.narrow(0, 0, 3).unwrap().contiguous().unwrap().apply_op1(attention(&[0..3])).unwrap();
        assert_eq!(values(&alone.narrow(0, 0, 3).unwrap()).unwrap(), values(&shorter).unwrap());
    }
}
