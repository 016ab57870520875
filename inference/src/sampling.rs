//! The choice of the next token from its logits.
use crate::error::LimitsError;
use crate::kernels::exp::exp;
use crate::memory::reserve;
use crate::random::Random;
use alloc::vec::Vec;
use core::cmp::Ordering;
#[cfg(feature = "host")]
use core::fmt;
use zeroize::Zeroize;

/// The repetition penalty looks back over so many tokens, as llama.cpp does by default.
const PENALTY_WINDOW: usize = 64;

/// The longest and shortest of what makes sense: beyond these, sampling is noise.
const TEMPERATURES: core::ops::RangeInclusive<f32> = 0.0..=2.0;
const PENALTIES: core::ops::RangeInclusive<f32> = 0.1..=10.0;

/// How tokens are chosen. The default takes the likeliest each time.
///
/// The filters apply in the order of llama.cpp's default chain: repetition penalty, `top_k`, `top_p`, `min_p`,
/// temperature. [`Sampling::check`] says whether all values are in range; a scheduler that is given one that is not
/// switches that filter off, and takes the likeliest token where the temperature is not a positive number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this, at most 2; 0 takes the likeliest token.
    pub temperature: f32,
    /// Keep the likeliest tokens that together have this probability; 1 keeps all, and 0 is out of range.
    pub top_p: f32,
    /// Keep so many of the likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep tokens with at least this share, up to 1, of the likeliest one's probability; 0 keeps all.
    pub min_p: f32,
    /// Divides positive logits, and multiplies negative ones, of the last 64 tokens, by 0.1 to 10; 1 changes nothing.
    pub repetition_penalty: f32,
    /// The same seed gives the same choices.
    pub seed: u64,
}

/// Which value is out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplingError {
    /// [`Sampling::temperature`].
    Temperature,
    /// [`Sampling::top_p`].
    TopP,
    /// [`Sampling::min_p`].
    MinP,
    /// [`Sampling::repetition_penalty`].
    RepetitionPenalty,
}

#[cfg(feature = "host")]
impl fmt::Display for SamplingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Temperature => "the temperature must be from 0 to 2",
            Self::TopP => "top_p must be above 0 and at most 1",
            Self::MinP => "min_p must be from 0 to 1",
            Self::RepetitionPenalty => "the repetition penalty must be from 0.1 to 10",
        })
    }
}

#[cfg(feature = "host")]
impl core::error::Error for SamplingError {}

impl Sampling {
    /// Whether every value is in its range.
    ///
    /// # Errors
    /// Names the first that is not; NaN never is.
    pub fn check(&self) -> Result<(), SamplingError> {
        let rules = [
            (TEMPERATURES.contains(&self.temperature), SamplingError::Temperature),
            (self.top_p > 0.0 && self.top_p <= 1.0, SamplingError::TopP),
            ((0.0..=1.0).contains(&self.min_p), SamplingError::MinP),
            (PENALTIES.contains(&self.repetition_penalty), SamplingError::RepetitionPenalty),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, error)| Err(error))
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// A token that can still be chosen.
#[derive(Clone, Copy, Default)]
struct Candidate {
    token: u32,
    logit: f32,
    /// Not normalised.
    probability: f32,
}

impl zeroize::DefaultIsZeroes for Candidate {}

/// Working memory for any sampler of a model; wiped with the other buffers.
pub(crate) struct Candidates(Vec<Candidate>);

impl Candidates {
    pub(crate) fn new(vocabulary: usize) -> Result<Self, LimitsError> {
        Ok(Self(reserve(vocabulary)?))
    }

    pub(crate) fn wipe(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
impl Candidates {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Candidates {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// The choices of one generation.
pub(crate) struct Sampler {
    sampling: Sampling,
    random: Random,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling) -> Self {
        Self { sampling, random: Random::new(sampling.seed) }
    }

    /// Chooses a token. The logits are changed; `before` are the tokens so far.
    pub(crate) fn choose(&mut self, logits: &mut [f32], before: &[u32], candidates: &mut Candidates) -> u32 {
        let Sampling { temperature, top_p, top_k, min_p, repetition_penalty, .. } = self.sampling;
        if repetition_penalty > 0.0 && repetition_penalty.is_finite() && repetition_penalty != 1.0 {
            penalise(logits, &before[before.len().saturating_sub(PENALTY_WINDOW)..], repetition_penalty);
        }
        // Written so that a temperature that is not a number is 0 as well.
        if !(temperature > 0.0 && temperature.is_finite()) {
            return likeliest(logits);
        }

        let candidates = &mut candidates.0;
        candidates.clear();
        let numbered = logits.iter().zip(0_u32..).filter(|(logit, _)| !logit.is_nan());
        candidates.extend(numbered.map(|(logit, token)| Candidate {
            token,
            logit: *logit,
            probability: 0.0,
        }));
        keep_top_k(candidates, top_k);
        let first = candidates.iter().copied().min_by(order);
        // Beside an infinite logit no other has a probability.
        let Some(first) = first.filter(|first| first.logit.is_finite()) else { return likeliest(logits) };
        let filtered = top_p < 1.0 || min_p > 0.0;
        for candidate in candidates.iter_mut().filter(|_| filtered) {
            candidate.probability = exp(candidate.logit - first.logit);
        }
        keep_top_p(candidates, top_p);
        if min_p > 0.0 && min_p <= 1.0 {
            // The first has probability 1 here.
            candidates.retain(|candidate| candidate.probability >= min_p);
        }
        for candidate in candidates.iter_mut() {
            candidate.probability = exp((candidate.logit - first.logit) / temperature);
        }
        let total: f64 = candidates.iter().map(|candidate| f64::from(candidate.probability)).sum();
        let mut left = self.random.unit() * total;
        for candidate in candidates.iter() {
            left -= f64::from(candidate.probability);
            if left < 0.0 {
                return candidate.token;
            }
        }
        // Rounding can leave a hair; it belongs to the last.
        candidates.last().map_or(first.token, |last| last.token)
    }
}

/// The token with the largest logit; of equal ones the first.
fn likeliest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, logit) in (0..).zip(logits) {
        if *logit > best.1 {
            best = (token, *logit);
        }
    }
    best.0
}

/// Applies the penalty once to each token that occurs.
fn penalise(logits: &mut [f32], recent: &[u32], penalty: f32) {
    for (index, token) in recent.iter().enumerate() {
        if recent[..index].contains(token) {
            continue;
        }
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
}

/// The likeliest first, equal ones in the order of their tokens.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then_with(|| a.token.cmp(&b.token))
}

/// Drops all but so many of the likeliest.
fn keep_top_k(candidates: &mut Vec<Candidate>, top_k: u32) {
    let top_k = top_k as usize;
    if top_k > 0 && top_k < candidates.len() {
        candidates.select_nth_unstable_by(top_k - 1, order);
        candidates.truncate(top_k);
    }
}

/// Drops what comes after the likeliest tokens that together reach `top_p`.
fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f32) {
    if !(0.0..1.0).contains(&top_p) {
        return;
    }
    let total: f64 = candidates.iter().map(|candidate| f64::from(candidate.probability)).sum();
    let goal = total * f64::from(top_p);
    // A few of a large vocabulary are nearly always enough, so only as many are sorted as are needed.
    let (mut sorted, mut sum) = (0, 0.0);
    while sorted < candidates.len() {
        let next = candidates.len().min((sorted * 8).max(64));
        if next < candidates.len() {
            candidates[sorted..].select_nth_unstable_by(next - sorted - 1, order);
        }
        candidates[sorted..next].sort_unstable_by(order);
        for index in sorted..next {
            sum += f64::from(candidates[index].probability);
            if sum >= goal {
                candidates.truncate(index + 1);
                return;
            }
        }
        sorted = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// How often each token is chosen, of 20,000.
    fn counts(sampling: Sampling, logits: &[f32]) -> Vec<u32> {
        let mut counts = vec![0; logits.len()];
        let mut sampler = Sampler::new(sampling);
        let mut candidates = Candidates::new(logits.len()).unwrap();
        for _ in 0..20_000 {
            counts[sampler.choose(&mut logits.to_vec(), &[], &mut candidates) as usize] += 1;
        }
        counts
    }

    const LOGITS: [f32; 5] = [0.0, 2.0, 1.0, -1.0, 1.5];
    const WARM: Sampling =
        Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, repetition_penalty: 1.0, seed: 5 };

    #[test]
    fn the_default_takes_the_likeliest_and_of_equals_the_first() {
        let choose = |logits: &[f32]| {
            Sampler::new(Sampling::default()).choose(
                &mut logits.to_vec(),
                &[],
                &mut Candidates::new(8).unwrap(),
            )
        };
        assert_eq!(choose(&LOGITS), 1);
        assert_eq!(choose(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(choose(&[f32::NAN, 3.0, f32::NAN]), 1);
        assert_eq!(choose(&[f32::NAN, f32::NEG_INFINITY]), 0);
    }

    #[test]
    fn choices_have_the_probabilities_of_the_softmax() {
        for temperature in [0.5, 1.0, 2.0] {
            let counts = counts(Sampling { temperature, ..WARM }, &LOGITS);
            let weights = LOGITS.map(|logit| libm::exp(f64::from(logit / temperature)));
            let total: f64 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(weights) {
                // The standard deviation is at most 71.
                assert!((f64::from(*count) - 20_000.0 * weight / total).abs() < 350.0, "{counts:?}");
            }
        }
    }

    #[test]
    fn filters_keep_what_they_say() {
        let kept = |sampling| counts(sampling, &LOGITS).iter().map(|count| *count > 0).collect::<Vec<_>>();
        assert_eq!(kept(Sampling { top_k: 2, ..WARM }), [false, true, false, false, true]);
        // The likeliest three have 0.47, 0.28 and 0.17.
        assert_eq!(kept(Sampling { top_p: 0.7, ..WARM }), [false, true, false, false, true]);
        assert_eq!(kept(Sampling { top_p: 0.8, ..WARM }), [false, true, true, false, true]);
        assert_eq!(kept(Sampling { top_p: 0.0, ..WARM }), [false, true, false, false, false]);
        // exp(1 - 2) is 0.37 of the likeliest.
        assert_eq!(kept(Sampling { min_p: 0.36, ..WARM }), [false, true, true, false, true]);
        assert_eq!(kept(Sampling { min_p: 1.0, ..WARM }), [false, true, false, false, false]);
        let odd = Sampling { top_p: f32::NAN, min_p: -3.0, repetition_penalty: f32::NAN, ..WARM };
        assert_eq!(kept(odd), [true; 5]);
    }

    #[test]
    fn top_p_of_many_tokens_keeps_those_that_sorting_all_would() {
        let mut random = Random::new(3);
        for (len, spread, top_p) in
            [(63, 1.0, 0.5), (64, 4.0, 0.9), (5000, 0.5, 0.95), (5000, 8.0, 0.99), (700, 0.0, 0.3)]
        {
            let logits = (0..len).map(|_| random.unit() as f32 * spread);
            let mut all: Vec<Candidate> = (0..)
                .zip(logits)
                .map(|(token, logit)| Candidate { token, logit, probability: exp(logit) })
                .collect();
            let mut kept = all.clone();
            keep_top_p(&mut kept, top_p);
            all.sort_unstable_by(order);
            let total: f64 = all.iter().map(|candidate| f64::from(candidate.probability)).sum();
            let mut sum = 0.0;
            let reached = all.iter().take_while(|candidate| {
                let before = sum;
                sum += f64::from(candidate.probability);
                before < total * f64::from(top_p)
            });
            let expected = reached.map(|candidate| candidate.token).collect::<Vec<_>>();
            assert_eq!(
                kept.iter().map(|candidate| candidate.token).collect::<Vec<_>>(),
                expected,
                "{len} {spread}"
            );
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        let fine = Sampling { temperature: 2.0, top_p: 0.1, min_p: 1.0, repetition_penalty: 10.0, ..WARM };
        assert_eq!(fine.check(), Ok(()));
        assert_eq!(Sampling::default().check(), Ok(()));
        for odd in [-0.1, f32::NAN, f32::INFINITY, 1e9] {
            assert_eq!(Sampling { temperature: odd, ..WARM }.check(), Err(SamplingError::Temperature));
            assert_eq!(Sampling { top_p: odd, ..WARM }.check(), Err(SamplingError::TopP));
            assert_eq!(Sampling { min_p: odd, ..WARM }.check(), Err(SamplingError::MinP));
            assert_eq!(
                Sampling { repetition_penalty: odd, ..WARM }.check(),
                Err(SamplingError::RepetitionPenalty)
            );
        }
        assert_eq!(Sampling { top_p: 0.0, ..WARM }.check(), Err(SamplingError::TopP));
        assert_eq!(
            Sampling { repetition_penalty: 0.0, ..WARM }.check(),
            Err(SamplingError::RepetitionPenalty)
        );
    }

    #[test]
    fn the_penalty_counts_a_token_once_and_only_recent_ones() {
        let mut logits = LOGITS;
        let mut sampler = Sampler::new(Sampling { repetition_penalty: 2.0, ..Sampling::default() });
        let mut before = vec![4; 1];
        before.extend([1, 1, 3, 1_000_000]);
        before.extend([2; 60]);
        assert_eq!(sampler.choose(&mut logits, &before, &mut Candidates::new(5).unwrap()), 4);
        assert_eq!(logits, [0.0, 1.0, 0.5, -2.0, 1.5]);
    }

    #[test]
    fn the_same_seed_gives_the_same_choices() {
        assert_eq!(counts(WARM, &LOGITS), counts(WARM, &LOGITS));
        assert_ne!(counts(WARM, &LOGITS), counts(Sampling { seed: 6, ..WARM }, &LOGITS));
    }

    #[test]
    fn undefined_logits_are_never_chosen_beside_defined_ones() {
        let counts = counts(WARM, &[f32::NAN, 0.0, f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!(counts[0] + counts[3], 0);
        let mut candidates = Candidates::new(2).unwrap();
        assert_eq!(Sampler::new(WARM).choose(&mut [f32::NAN; 2], &[], &mut candidates), 0);
    }
}
