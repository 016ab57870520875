//! Logistic regression over standardised features, and the area under its ROC curve on examples that it has not seen.

use super::{FEATURES, moments};
use std::ops::Range;

/// Parts of the examples, each of which is tested on once.
const FOLDS: usize = 10;
/// Steps of gradient descent, and how long each is.
const STEPS: usize = 1000;
const RATE: f64 = 0.3;
/// Weight decay, so that a few hundred examples are not learned by heart.
const DECAY: f64 = 1e-3;

/// One exchange, and which of the two classes it is of.
pub struct Example {
    pub features: [f64; FEATURES],
    pub is_second: bool,
}

impl Example {
    /// The same with all other features left out.
    pub fn only(&self, kept: Range<usize>) -> Self {
        let mut features = [0.0; FEATURES];
        features[kept.clone()].copy_from_slice(&self.features[kept]);
        Self { features, is_second: self.is_second }
    }
}

/// Area under the ROC curve on examples that the classifier has not seen: 1 tells the classes apart, 0.5 is a coin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Auc {
    /// The mean over the folds.
    pub area: f64,
    /// Half the width of its 95 % confidence interval.
    pub margin: f64,
}

/// Trains on all folds but one and tests on that one, in turns. The interval is that of LeDell, Petersen and van der Laan
/// (2015): within a fold, the variance of the shares of pairs that each example wins (DeLong and others, 1988).
pub fn auc(examples: &[Example]) -> Auc {
    let (mut area, mut variance, mut folds) = (0.0, 0.0, 0.0);
    for fold in 0..FOLDS {
        // Both classes in each fold, as evenly as they come.
        let (mut train, mut test, mut seen) = (Vec::new(), Vec::new(), [0; 2]);
        for example in examples {
            let place = &mut seen[usize::from(example.is_second)];
            *place += 1;
            if *place % FOLDS == fold { test.push(example) } else { train.push(example) }
        }
        let line = Line::train(&train);
        let scores = |second: bool| -> Vec<f64> {
            test.iter().filter(|example| example.is_second == second).map(|e| line.score(e)).collect()
        };
        let [first, second] = [scores(false), scores(true)];
        if first.is_empty() || second.is_empty() {
            continue;
        }
        let won: Vec<f64> = second.iter().map(|high| share_below(&first, *high)).collect();
        let lost: Vec<f64> = first.iter().map(|low| 1.0 - share_below(&second, *low)).collect();
        let spread = |shares: &[f64]| moments(shares).1.powi(2) / shares.len() as f64;
        (area, folds) = (area + moments(&won).0, folds + 1.0);
        variance += spread(&won) + spread(&lost);
    }
    Auc { area: area / folds, margin: 1.96 * f64::sqrt(variance) / folds }
}

/// What training finds: a weight for each feature, standardised as in training.
struct Line {
    scales: Vec<(f64, f64)>,
    weights: [f64; FEATURES],
    bias: f64,
}

impl Line {
    fn train(examples: &[&Example]) -> Self {
        let column = |at: usize| examples.iter().map(|e| e.features[at]).collect::<Vec<_>>();
        let scales = (0..FEATURES).map(|at| moments(&column(at))).collect();
        let mut line = Self { scales, weights: [0.0; FEATURES], bias: 0.0 };
        let inputs: Vec<_> =
            examples.iter().map(|e| (line.standard(e), f64::from(u8::from(e.is_second)))).collect();
        for _ in 0..STEPS {
            let (mut slope, mut bias_slope) = ([0.0; FEATURES], 0.0);
            for (input, expected) in &inputs {
                let error = 1.0 / (1.0 + (-line.sum(input)).exp()) - expected;
                bias_slope += error;
                slope.iter_mut().zip(input).for_each(|(slope, value)| *slope += error * value);
            }
            let count = inputs.len() as f64;
            line.bias -= RATE * bias_slope / count;
            for (weight, slope) in line.weights.iter_mut().zip(slope) {
                *weight -= RATE * (slope / count + DECAY * *weight);
            }
        }
        line
    }

    fn score(&self, example: &Example) -> f64 {
        self.sum(&self.standard(example))
    }

    fn standard(&self, example: &Example) -> [f64; FEATURES] {
        // What does not vary in training says nothing.
        std::array::from_fn(|at| match self.scales[at] {
            (mean, spread) if spread > 1e-12 => (example.features[at] - mean) / spread,
            _ => 0.0,
        })
    }

    fn sum(&self, input: &[f64; FEATURES]) -> f64 {
        self.bias + input.iter().zip(&self.weights).map(|(value, weight)| value * weight).sum::<f64>()
    }
}

/// The share of `scores` below `score`; a tie counts half. Its mean is the area under the curve (Mann and Whitney).
fn share_below(scores: &[f64], score: f64) -> f64 {
    let won = |low: &f64| match score.total_cmp(low) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    };
    scores.iter().map(won).sum::<f64>() / scores.len() as f64
}

#[cfg(test)]
mod tests {
    use super::super::chats::Dice;
    use super::*;

    fn examples(separation: f64) -> Vec<Example> {
        let mut dice = Dice::new(1);
        let example = |index: usize| {
            let mut features = [0.0; FEATURES];
            features.iter_mut().for_each(|value| *value = dice.below(1000) as f64);
            features[3] += if index % 2 == 1 { separation } else { 0.0 };
            Example { features, is_second: index % 2 == 1 }
        };
        (0..800).map(example).collect()
    }

    #[test]
    fn what_differs_is_found_and_what_does_not_is_not() {
        assert!(auc(&examples(2000.0)).area > 0.99);
        let between = auc(&examples(300.0));
        assert!((0.6..0.95).contains(&between.area) && between.margin < 0.06, "{between:?}");
        let none = auc(&examples(0.0));
        // Hanley and McNeil's margin for 400 against 400 is 0.04.
        assert!((none.area - 0.5).abs() < 0.08 && (0.03..0.05).contains(&none.margin), "{none:?}");
        let same: Vec<Example> =
            (0..40).map(|i| Example { features: [1.0; FEATURES], is_second: i % 2 == 1 }).collect();
        assert_eq!(auc(&same), Auc { area: 0.5, margin: 0.0 });
        let others: Vec<Example> = examples(2000.0).iter().map(|example| example.only(4..6)).collect();
        assert!(auc(&others).area < 0.6);
    }

    #[test]
    fn areas_are_shares_of_pairs() {
        assert_eq!(share_below(&[1.0, 2.0], 3.0), 1.0);
        assert_eq!(share_below(&[1.0, 3.0], 2.0), 0.5);
        assert_eq!(share_below(&[1.0, 3.0], 1.0), 0.25);
    }
}
