//! Each vector kernel against its plain twin, and the twins against double precision.
use super::bands::Bands;
use super::{Inputs, Kernels, Rows, detect, plain};
use crate::encode::decode;
use crate::gguf::TensorType;
use crate::gguf::pack::encode;
use crate::random::Random;
use alloc::vec;
use alloc::vec::Vec;

fn random_values(random: &mut Random, len: usize) -> Vec<f32> {
    (0..len).map(|_| (random.unit() as f32 - 0.5) * 4.0).collect()
}

struct Quantised {
    values: Vec<f32>,
    quants: Vec<i16>,
    scales: Vec<f32>,
}

impl Quantised {
    fn new(kernels: &Kernels, values: Vec<f32>) -> Self {
        let mut quants = vec![0; values.len()];
        let mut scales = vec![0.0; values.len() / 32];
        (kernels.quantise)(&values, &mut quants, &mut scales);
        Self { values, quants, scales }
    }

    fn inputs(&self, width: usize) -> Inputs<'_> {
        Inputs { width, values: &self.values, quants: &self.quants, scales: &self.scales }
    }
}

fn multiply(
    kernels: &Kernels,
    rows: Rows<'_>,
    inputs: Inputs<'_>,
    count: usize,
    tokens: usize,
    parts: usize,
) -> Vec<f32> {
    let mut out = vec![f32::NAN; count * tokens];
    let bands = Bands::new(&mut out, count, parts, 8);
    for part in 0..parts {
        if let Some(mut band) = bands.take(part) {
            let bytes = rows.kind.bytes(rows.width).unwrap();
            let columns = band.columns();
            let rows = Rows { data: &rows.data[columns.start * bytes..columns.end * bytes], ..rows };
            (kernels.multiply)(rows, inputs, &mut band);
        }
    }
    out
}

/// Shapes with and without rests: rows beside eights, tokens beside fours, widths beside eights.
const SHAPES: [(usize, usize, usize); 5] = [(32, 8, 4), (64, 1, 1), (96, 13, 7), (160, 24, 2), (320, 31, 9)];

#[test]
fn products_agree_with_double_precision_and_between_twins() {
    let random = &mut Random::new(1);
    for kind in TensorType::ALL {
        for (mut width, count, tokens) in SHAPES {
            match kind.block_elements() {
                1 => width += 5,
                block => width = width.next_multiple_of(block),
            }
            let data = encode(kind, &random_values(random, width * count));
            let mut weights = vec![0.0; width * count];
            decode(kind, &data, &mut weights);
            let rows = Rows { kind, width, data: &data };
            let mut x = Quantised::new(&plain::KERNELS, random_values(random, width * tokens));
            if kind == TensorType::Q8_0 {
                // What the product is of: the quantised vectors.
                for ((values, quants), scale) in
                    x.values.chunks_mut(32).zip(x.quants.chunks(32)).zip(&x.scales)
                {
                    values
                        .iter_mut()
                        .zip(quants)
                        .for_each(|(value, quant)| *value = f32::from(*quant) * scale);
                }
            }
            let expected = multiply(&plain::KERNELS, rows, x.inputs(width), count, tokens, 1);
            for (token, out) in expected.chunks(count).enumerate() {
                for (row, out) in out.iter().enumerate() {
                    let pairs = x.values[token * width..].iter().zip(&weights[row * width..][..width]);
                    let (sum, size) = pairs.fold((0.0, 0.0), |(sum, size), (x, w)| {
                        let product = f64::from(*x) * f64::from(*w);
                        (sum + product, size + product.abs())
                    });
                    assert!((f64::from(*out) - sum).abs() < size * 1e-6, "{kind:?} {width} {out} {sum}");
                }
            }
            for parts in [1, 2, 3] {
                let actual = multiply(detect(), rows, x.inputs(width), count, tokens, parts);
                for (a, b) in actual.iter().zip(&expected) {
                    if kind == TensorType::Q8_0 {
                        assert_eq!(a.to_bits(), b.to_bits());
                    } else {
                        assert!((a - b).abs() < 1e-4, "{kind:?} {a} {b}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_product_does_not_depend_on_the_rest_of_the_batch() {
    let random = &mut Random::new(2);
    let (count, tokens) = (21, 11);
    for kind in TensorType::ALL {
        let width = 96_usize.next_multiple_of(kind.block_elements());
        let data = encode(kind, &random_values(random, width * count));
        let rows = Rows { kind, width, data: &data };
        let x = Quantised::new(detect(), random_values(random, width * tokens));
        let all = multiply(detect(), rows, x.inputs(width), count, tokens, 1);
        for token in 0..tokens {
            let alone = Inputs {
                width,
                values: &x.values[token * width..],
                quants: &x.quants[token * width..],
                scales: &x.scales[token * width / 32..],
            };
            let alone = multiply(detect(), rows, alone, count, 1, 3);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&alone), bits(&all[token * count..][..count]), "{kind:?}");
        }
    }
}

#[test]
fn q8_products_are_exact_at_the_ends_of_the_range() {
    // All weights -128, which only a file made by others has, times all quants of the same sign.
    let mut block = vec![0x00, 0x3c];
    block.extend([0x80; 32]);
    let rows = Rows { kind: TensorType::Q8_0, width: 32, data: &block.repeat(8) };
    let inputs = Inputs { width: 32, values: &[0.0; 32], quants: &[-128; 32], scales: &[1.0] };
    assert_eq!(multiply(detect(), rows, inputs, 8, 1, 1), [128.0 * 128.0 * 32.0; 8]);
}

#[test]
fn vector_functions_give_the_bits_of_their_twins() {
    let random = &mut Random::new(3);
    let (best, plain) = (detect(), &plain::KERNELS);
    for len in [1, 7, 8, 9, 32, 64, 100, 257] {
        let (x, y) = (random_values(random, len), random_values(random, len));
        assert_eq!((best.sum_of_squares)(&x).to_bits(), (plain.sum_of_squares)(&x).to_bits());
        let both = |apply: &dyn Fn(&Kernels, &mut [f32])| {
            let [mut a, mut b] = [x.clone(), x.clone()];
            apply(best, &mut a);
            apply(plain, &mut b);
            assert_eq!(a, b, "{len}");
            a
        };
        let probabilities = both(&|kernels, out| (kernels.softmax)(out));
        let sum: f64 = x.iter().map(|x| libm::exp(f64::from(*x))).sum();
        for (p, x) in probabilities.iter().zip(&x) {
            assert!((f64::from(*p) - libm::exp(f64::from(*x)) / sum).abs() < 1e-6);
        }
        let gated = both(&|kernels, out| (kernels.swiglu)(out, &y));
        for ((gated, gate), up) in gated.iter().zip(&x).zip(&y) {
            let gate = f64::from(*gate);
            let exact = gate / (1.0 + libm::exp(-gate)) * f64::from(*up);
            assert!((f64::from(*gated) - exact).abs() < 1e-6 * exact.abs().max(0.1), "{gated} {exact}");
        }
        let whole = len / 32 * 32;
        let [a, b] = [best, plain].map(|kernels| Quantised::new(kernels, x[..whole].to_vec()));
        assert_eq!((a.quants, a.scales), (b.quants, b.scales));
    }
}

#[test]
fn attention_kernels_agree_with_double_precision() {
    let random = &mut Random::new(4);
    // Heads of a few lengths, and numbers of positions beside eights.
    for (length, count) in [(8, 1), (32, 7), (32, 8), (64, 19), (40, 33), (36, 9), (5, 3)] {
        let (query, weights) = (random_values(random, length), random_values(random, count));
        let vectors = random_values(random, length * count);
        let exact = |terms: &mut dyn Iterator<Item = (f32, f32)>| {
            terms.map(|(a, b)| f64::from(a) * f64::from(b)).sum::<f64>()
        };
        for kernels in [detect(), &plain::KERNELS] {
            let mut scores = vec![f32::NAN; count];
            (kernels.scores)(&query, &vectors, 0.25, &mut scores);
            for (score, vector) in scores.iter().zip(vectors.chunks(length)) {
                let exact = 0.25 * exact(&mut query.iter().copied().zip(vector.iter().copied()));
                assert!((f64::from(*score) - exact).abs() < 1e-5, "{} {length} {count}", kernels.name);
            }
            let mut sum = vec![f32::NAN; length];
            (kernels.weighted_sum)(&weights, &vectors, &mut sum);
            for (column, element) in sum.iter().enumerate() {
                let column = vectors.iter().copied().skip(column).step_by(length);
                let exact = exact(&mut weights.iter().copied().zip(column));
                assert!((f64::from(*element) - exact).abs() < 1e-5, "{} {length} {count}", kernels.name);
            }
        }
    }
}

#[test]
fn softmax_of_huge_or_undefined_scores_stays_bounded() {
    for kernels in [detect(), &plain::KERNELS] {
        let mut scores = [1e30, -1e30, 1e30, f32::NEG_INFINITY];
        (kernels.softmax)(&mut scores);
        assert!((scores[0] - 0.5).abs() < 1e-6 && scores[1] < 1e-30 && scores[3] < 1e-30);
        (kernels.softmax)(&mut []);
        (kernels.softmax)(&mut [f32::NAN; 9]);
    }
}

#[test]
fn exp_is_within_two_to_the_minus_22() {
    for step in -870_000..880_000 {
        let x = step as f32 * 1e-4;
        let exact = libm::exp(f64::from(x));
        let error = (f64::from(plain::exp(x)) - exact).abs() / exact;
        assert!(error < 1.0 / f64::from(1 << 22), "exp({x}) is off by {error}");
    }
    assert!(plain::exp(-1e9) < 1.3e-38 && plain::exp(f32::NEG_INFINITY) < 1.3e-38);
    assert!(plain::exp(1e9).is_finite() && plain::exp(f32::INFINITY) > 1.6e38);
    assert!(plain::exp(f32::NAN) < 1.3e-38);
    assert_eq!(plain::exp(0.0), 1.0);
}
