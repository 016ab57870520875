//! Logistic regression over standardised features, and the area under its ROC curve on examples that it has not seen.

use super::{FEATURES, moments};
use std::ops::Range;

/// Steps of gradient descent, and how long each is.
const STEPS: usize = 3000;
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

/// Trains on half of the examples, drawn in pairs of both classes, and gives the area under the curve for the others: 1 tells
/// the classes apart, 0.5 is a coin.
pub fn auc(examples: &[Example]) -> f64 {
    let (train, test): (Vec<_>, Vec<_>) =
        examples.iter().enumerate().partition(|(index, _)| index / 2 % 2 == 0);
    let strip = |half: Vec<(usize, _)>| half.into_iter().map(|(_, example)| example).collect();
    let (train, test): (Vec<&Example>, Vec<&Example>) = (strip(train), strip(test));
    let scales: Vec<(f64, f64)> = (0..FEATURES)
        .map(|at| moments(&train.iter().map(|example| example.features[at]).collect::<Vec<_>>()))
        .collect();
    let standard = |example: &Example| -> Vec<f64> {
        let scaled = example.features.iter().zip(&scales);
        // What does not vary in training says nothing.
        scaled
            .map(|(value, (mean, spread))| if *spread > 1e-12 { (value - mean) / spread } else { 0.0 })
            .collect()
    };
    let inputs: Vec<(Vec<f64>, f64)> =
        train.iter().map(|example| (standard(example), f64::from(u8::from(example.is_second)))).collect();
    let (mut weights, mut bias) = ([0.0; FEATURES], 0.0);
    let score = |input: &[f64], weights: &[f64; FEATURES], bias: f64| {
        bias + input.iter().zip(weights).map(|(value, weight)| value * weight).sum::<f64>()
    };
    for _ in 0..STEPS {
        let (mut slope, mut bias_slope) = ([0.0; FEATURES], 0.0);
        for (input, expected) in &inputs {
            let error = 1.0 / (1.0 + (-score(input, &weights, bias)).exp()) - expected;
            bias_slope += error;
            slope.iter_mut().zip(input).for_each(|(slope, value)| *slope += error * value);
        }
        let count = inputs.len() as f64;
        bias -= RATE * bias_slope / count;
        for (weight, slope) in weights.iter_mut().zip(slope) {
            *weight -= RATE * (slope / count + DECAY * *weight);
        }
    }
    let scores = |second: bool| -> Vec<f64> {
        let of = test.iter().filter(|example| example.is_second == second);
        of.map(|example| score(&standard(example), &weights, bias)).collect()
    };
    area(&scores(false), &scores(true))
}

/// The share of pairs in which the second class scores higher; a tie counts half (Mann and Whitney).
fn area(first: &[f64], second: &[f64]) -> f64 {
    let pairs = first.iter().flat_map(|low| second.iter().map(move |high| (low, high)));
    let won = |(low, high): (&f64, &f64)| match high.total_cmp(low) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    };
    pairs.map(won).sum::<f64>() / (first.len() * second.len()) as f64
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
        assert!(auc(&examples(2000.0)) > 0.99);
        assert!((0.6..0.95).contains(&auc(&examples(300.0))));
        // Twice the standard error for 200 against 200 is 0.06.
        assert!((0.4..0.6).contains(&auc(&examples(0.0))));
        let same: Vec<Example> =
            (0..40).map(|i| Example { features: [1.0; FEATURES], is_second: i % 2 == 1 }).collect();
        assert_eq!(auc(&same), 0.5);
        let others: Vec<Example> = examples(2000.0).iter().map(|example| example.only(4..6)).collect();
        assert!(auc(&others) < 0.6);
    }

    #[test]
    fn areas_are_shares_of_pairs() {
        assert_eq!(area(&[1.0, 2.0], &[3.0]), 1.0);
        assert_eq!(area(&[1.0, 3.0], &[2.0, 1.0]), 0.375);
    }
}
