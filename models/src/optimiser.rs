//! AdamW (Loshchilov and Hutter 2019) whose state can be saved, so that a run that was interrupted goes on as
//! if it had not been.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.98;
const EPSILON: f32 = 1e-8;
const WEIGHT_DECAY: f32 = 0.02;
/// The gradient's greatest norm; a longer one is shortened to it.
const CLIP: f32 = 1.0;

/// The optimiser and the weights that it moves.
pub struct AdamW {
    weights: Vec<Weight>,
    steps: u32,
    /// Steps that the running means know of.
    remembered: u32,
}

struct Weight {
    name: String,
    var: Var,
    /// The running means of the gradient and of its square.
    mean: Vec<f32>,
    square: Vec<f32>,
}

impl AdamW {
    /// An optimiser that has not moved yet.
    pub fn new(weights: Vec<(String, &Var)>) -> Self {
        let weight = |(name, var): (String, &Var)| {
            let zeros = vec![0f32; var.elem_count()];
            Weight { name, var: var.clone(), mean: zeros.clone(), square: zeros }
        };
        Self { weights: weights.into_iter().map(weight).collect(), steps: 0, remembered: 0 }
    }

    /// The steps that were made.
    pub fn steps(&self) -> usize {
        self.steps as usize
    }

    /// Forgets the running means: the next step is like a first one.
    pub fn forget(&mut self) {
        for weight in &mut self.weights {
            weight.mean.fill(0.0);
            weight.square.fill(0.0);
        }
        self.remembered = 0;
    }

    /// Moves the weights against the sum of the gradients.
    pub fn step(&mut self, gradients: &[GradStore], learning_rate: f32) -> Result<()> {
        let mut sums = Vec::with_capacity(self.weights.len());
        for weight in &self.weights {
            let mut sum = vec![0f32; weight.mean.len()];
            for gradient in gradients.iter().filter_map(|store| store.get(&weight.var)) {
                let gradient: Vec<f32> = gradient.flatten_all()?.to_vec1()?;
                sum.iter_mut().zip(gradient).for_each(|(sum, part)| *sum += part);
            }
            sums.push(sum);
        }
        let square: f32 = sums.iter().map(|sum| sum.iter().map(|x| x * x).sum::<f32>()).sum();
        let shorten = (CLIP / square.sqrt().max(f32::MIN_POSITIVE)).min(1.0);
        self.steps += 1;
        self.remembered += 1;
        let correct_mean = 1.0 / (1.0 - BETA1.powi(self.remembered as i32));
        let correct_square = 1.0 / (1.0 - BETA2.powi(self.remembered as i32));
        for (weight, gradient) in self.weights.iter_mut().zip(&sums) {
            let mut values: Vec<f32> = weight.var.flatten_all()?.to_vec1()?;
            let state = weight.mean.iter_mut().zip(&mut weight.square);
            for ((value, (mean, square)), gradient) in values.iter_mut().zip(state).zip(gradient) {
                let gradient = gradient * shorten;
                *mean = BETA1 * *mean + (1.0 - BETA1) * gradient;
                *square = BETA2 * *square + (1.0 - BETA2) * gradient * gradient;
                let direction = *mean * correct_mean / ((*square * correct_square).sqrt() + EPSILON);
                *value -= learning_rate * (direction + WEIGHT_DECAY * *value);
            }
            weight.var.set(&Tensor::from_vec(values, weight.var.shape(), &Device::Cpu)?)?;
        }
        Ok(())
    }

    /// The weights and the optimiser's state, by name.
    pub fn save(&self) -> Result<HashMap<String, Tensor>> {
        let mut tensors = HashMap::new();
        for Weight { name, var, mean, square } in &self.weights {
            tensors.insert(name.clone(), var.as_tensor().clone());
            tensors.insert(format!("{name}.mean"), Tensor::from_slice(mean, var.shape(), &Device::Cpu)?);
            tensors.insert(format!("{name}.square"), Tensor::from_slice(square, var.shape(), &Device::Cpu)?);
        }
        tensors.insert(STEPS.into(), Tensor::new(&[self.steps, self.remembered], &Device::Cpu)?);
        Ok(tensors)
    }

    /// Goes on where [`AdamW::save`] was called.
    pub fn load(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let get = |name: &str| tensors.get(name).with_context(|| format!("the checkpoint has no '{name}'"));
        for Weight { name, var, mean, square } in &mut self.weights {
            var.set(get(name)?)?;
            *mean = get(&format!("{name}.mean"))?.flatten_all()?.to_vec1()?;
            *square = get(&format!("{name}.square"))?.flatten_all()?.to_vec1()?;
        }
        let steps = get(STEPS)?.to_vec1::<u32>()?;
        let [steps, remembered] = steps[..] else { bail!("the checkpoint's '{STEPS}' are not two numbers") };
        (self.steps, self.remembered) = (steps, remembered);
        Ok(())
    }
}

const STEPS: &str = "steps";
