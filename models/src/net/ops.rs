//! The decoder's fused operations, each with its own backward pass.
//!
//! Candle's autograd composes these from a dozen element-wise nodes; on a CPU the passes over memory
//! then cost more than the matrix products. Each operation here reads its input once forward and once
//! backward, and recomputes what it would otherwise have to keep.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};

/// Added to the mean square in every RMSNorm.
pub const NORM_EPSILON: f32 = 1e-5;

/// `e^x` to about 2 units in the last place, without branches, so that loops over it vectorise.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
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

pub(super) fn read<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&data[start..end]),
        _ => bail!("a fused operation needs contiguous f32 input"),
    }
}

pub(super) fn values(tensor: &Tensor) -> Result<Vec<f32>> {
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
pub(super) fn sum(values: impl ExactSizeIterator<Item = f32>) -> f32 {
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

#[cfg(test)]
pub(super) mod tests {
    use candle_core::{Device, Var};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    pub fn random(rows: usize, columns: usize, seed: u64) -> Var {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f32> = (0..rows * columns).map(|_| random.random_range(-1.5..1.5)).collect();
        Var::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    }

    /// Compares the gradient of a scalar function with differences of its values, at every seventh element.
    pub fn check_gradient(input: &Var, function: impl Fn(&Tensor) -> Tensor) {
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
    pub fn scalar(output: &Tensor) -> Tensor {
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
}
