//! Each set of instructions against its plain twin, bit for bit, and the twin against double precision.
use super::attention::{self, Head, Queries, padded};
use super::bands::Bands;
use super::elementwise::Task;
use super::exp;
use super::matrix::{Inputs, PANEL_BYTES};
use super::pack::{Packed, pack};
use super::simd::{BLOCK, Block};
use super::{Isa, Kernels};
use crate::encode::{decode, f16_to_f32, f32_to_f16};
use crate::gguf::TensorType;
use crate::gguf::pack::encode;
use crate::random::Random;
use alloc::vec;
use alloc::vec::Vec;

/// The tables that this processor can run, the plain one first.
fn tables() -> Vec<&'static Kernels> {
    Isa::ALL.into_iter().filter(|isa| isa.is_supported()).filter_map(Isa::kernels).collect()
}

fn random_values(random: &mut Random, len: usize) -> Vec<f32> {
    (0..len).map(|_| (random.unit() as f32 - 0.5) * 4.0).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn is_float(kind: TensorType) -> bool {
    matches!(kind, TensorType::F32 | TensorType::F16 | TensorType::Bf16)
}

/// A random matrix in a file's order, packed, and its values.
struct Matrix {
    kind: TensorType,
    width: usize,
    height: usize,
    tiles: Vec<u8>,
    tail: Vec<u8>,
    values: Vec<f32>,
}

impl Matrix {
    fn new(random: &mut Random, kind: TensorType, width: usize, height: usize) -> Self {
        let mut tiles = encode(kind, &random_values(random, width * height));
        if !is_float(kind) {
            // Any bits are good weights and small scales; halves stay those of numbers of reasonable size.
            for block in tiles.chunks_mut(kind.block_bytes()) {
                let halves: &[usize] = match kind {
                    TensorType::Q2K => &[80, 82],
                    TensorType::Q3K => &[108],
                    TensorType::Q6K => &[208],
                    TensorType::Q8_0 | TensorType::Q4_0 | TensorType::Q5_0 => &[0],
                    _ => &[0, 2],
                };
                let kept: Vec<(usize, u8)> =
                    halves.iter().flat_map(|at| [*at, at + 1]).map(|at| (at, block[at])).collect();
                block.iter_mut().for_each(|byte| *byte = (random.unit() * 256.0) as u8);
                kept.into_iter().for_each(|(at, byte)| block[at] = byte);
            }
        }
        Self::of(kind, width, height, tiles)
    }

    fn of(kind: TensorType, width: usize, height: usize, mut tiles: Vec<u8>) -> Self {
        let mut values = vec![0.0; width * height];
        decode(kind, &tiles, &mut values);
        let tail = pack((kind, width, height), (0, &mut tiles), &|_, _| (), &crate::SingleThread).unwrap();
        Self { kind, width, height, tiles, tail, values }
    }

    fn packed(&self) -> Packed<'_> {
        let Self { kind, width, height, tiles, tail, .. } = self;
        Packed { kind: *kind, width: *width, height: *height, tiles, tail }
    }

    /// The product with some vectors, computed in so many parts.
    fn multiply(
        &self,
        kernels: &Kernels,
        x: &Vectors,
        tokens: core::ops::Range<usize>,
        parts: usize,
    ) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.height * tokens.len()];
        let mut panel = vec![0; PANEL_BYTES];
        let bands = Bands::new(&mut out, self.height, parts, 32);
        for part in 0..bands.parts() {
            let mut band = bands.take(part).unwrap();
            (kernels.multiply)(self.packed(), x.inputs(tokens.clone()), &mut band, &mut panel);
        }
        out
    }
}

struct Vectors {
    width: usize,
    values: Vec<f32>,
    blocks: Vec<Block>,
}

impl Vectors {
    fn new(kernels: &Kernels, width: usize, values: Vec<f32>) -> Self {
        let mut blocks = vec![Block::default(); values.len() / BLOCK];
        if width.is_multiple_of(BLOCK) {
            (kernels.elementwise)(Task::Quantise { x: &values, out: &mut blocks });
        }
        Self { width, values, blocks }
    }

    fn inputs(&self, tokens: core::ops::Range<usize>) -> Inputs<'_> {
        let blocks = self.width / BLOCK;
        Inputs {
            width: self.width,
            values: &self.values[tokens.start * self.width..tokens.end * self.width],
            blocks: &self.blocks[tokens.start * blocks..tokens.end * blocks],
        }
    }

    /// What a product with a quantised matrix is of.
    fn dequantised(&self) -> Vec<f64> {
        let block = |block: &Block| {
            block
                .quants
                .as_flattened()
                .iter()
                .map(|q| f64::from(*q) * f64::from(block.scale))
                .collect::<Vec<_>>()
        };
        self.blocks.iter().flat_map(block).collect()
    }
}

/// Blocks or elements in a row, rows and tokens: with and without rests, and with more columns than fit a panel.
const SHAPES: [(usize, usize, usize); 6] =
    [(1, 16, 1), (2, 1, 4), (3, 13, 7), (2, 40, 2), (1, 67, 31), (9, 48, 12)];

#[test]
fn products_agree_with_double_precision_and_between_twins() {
    let random = &mut Random::new(1);
    for kind in TensorType::ALL {
        for (blocks, height, tokens) in SHAPES {
            let width = if is_float(kind) { blocks * 37 } else { blocks * kind.block_elements() };
            let matrix = Matrix::new(random, kind, width, height);
            let [plain, others @ ..] = &tables()[..] else { panic!("the plain table is always there") };
            let x = Vectors::new(plain, width, random_values(random, width * tokens));
            let expected = matrix.multiply(plain, &x, 0..tokens, 1);
            let values = match is_float(kind) {
                true => x.values.iter().map(|value| f64::from(*value)).collect(),
                false => x.dequantised(),
            };
            for (token, out) in expected.chunks(height).enumerate() {
                for (row, out) in out.iter().enumerate() {
                    let pairs = values[token * width..].iter().zip(&matrix.values[row * width..][..width]);
                    let (sum, size) = pairs.fold((0.0, 0.0), |(sum, size), (x, w)| {
                        let product = x * f64::from(*w);
                        (sum + product, size + product.abs())
                    });
                    assert!((f64::from(*out) - sum).abs() < size * 2e-6, "{kind:?} {width} {out} {sum}");
                }
            }
            for kernels in others {
                for parts in [1, 3] {
                    let actual = matrix.multiply(kernels, &x, 0..tokens, parts);
                    assert_eq!(
                        bits(&actual),
                        bits(&expected),
                        "{kind:?} {blocks} {height} {tokens} {kernels:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_product_does_not_depend_on_the_rest_of_the_batch() {
    let random = &mut Random::new(2);
    let (height, tokens) = (85, 23);
    for kind in TensorType::ALL {
        // Wider than a panel, so that products are resumed.
        let matrix = Matrix::new(random, kind, 2048 + 512, height);
        for kernels in &tables()[1..] {
            let x = Vectors::new(kernels, matrix.width, random_values(random, matrix.width * tokens));
            let all = matrix.multiply(kernels, &x, 0..tokens, 1);
            for (first, count) in [(0, 1), (22, 1), (3, 2), (5, 4), (7, 8), (4, 9), (1, 15)] {
                let some = matrix.multiply(kernels, &x, first..first + count, 2);
                assert_eq!(
                    bits(&some),
                    bits(&all[first * height..][..count * height]),
                    "{kind:?} {first} {count}"
                );
            }
        }
    }
}

#[test]
fn products_are_exact_at_the_ends_of_the_range() {
    // All bits set gives the largest quants, and for Q8_0 0x80 the smallest, which only a file made by others has.
    for (kind, byte) in [
        (TensorType::Q8_0, 0x80),
        (TensorType::Q8_0, 0x7f),
        (TensorType::Q4_0, 0xff),
        (TensorType::Q5_0, 0xff),
        (TensorType::Q5_0, 0x00),
    ] {
        let mut block = vec![byte; kind.block_bytes()];
        block[..2].copy_from_slice(&0x3c00_u16.to_le_bytes());
        let matrix = Matrix::of(kind, 32, 16, block.repeat(16));
        for kernels in tables() {
            for sign in [1.0, -1.0] {
                let x = Vectors::new(kernels, 32, vec![sign * 127.0; 32 * 12]);
                let out = matrix.multiply(kernels, &x, 0..12, 1);
                assert_eq!(
                    out,
                    vec![matrix.values[0] * sign * 127.0 * 32.0; 16 * 12],
                    "{kind:?} {kernels:?}"
                );
            }
        }
    }
}

#[test]
fn packed_rows_decode_to_the_values_of_the_file() {
    let random = &mut Random::new(7);
    for kind in TensorType::ALL {
        for height in [16, 37] {
            let matrix = Matrix::new(random, kind, 2 * kind.block_elements(), height);
            let mut row = vec![0.0; matrix.width];
            for (index, values) in matrix.values.chunks(matrix.width).enumerate() {
                matrix.packed().decode_row(index, &mut row);
                assert_eq!(bits(&row), bits(values), "{kind:?} {index}");
            }
        }
    }
}

#[test]
fn elementwise_functions_agree_with_double_precision_and_between_twins() {
    let random = &mut Random::new(3);
    for len in [1, 7, 16, 17, 32, 64, 100, 257] {
        let (x, y) = (random_values(random, len), random_values(random, len));
        let all = |task: &dyn Fn(&Kernels, &mut [f32])| {
            let results = tables().into_iter().map(|kernels| {
                let mut x = x.clone();
                task(kernels, &mut x);
                x
            });
            let results: Vec<Vec<f32>> = results.collect();
            results.iter().for_each(|result| assert_eq!(bits(result), bits(&results[0]), "{len}"));
            results[0].clone()
        };
        let gated = all(&|kernels, gates| (kernels.elementwise)(Task::Swiglu { gates, ups: &y }));
        for ((gated, gate), up) in gated.iter().zip(&x).zip(&y) {
            let gate = f64::from(*gate);
            let exact = gate / (1.0 + libm::exp(-gate)) * f64::from(*up);
            assert!((f64::from(*gated) - exact).abs() < 1e-6 * exact.abs().max(0.1), "{gated} {exact}");
        }
        let normed = all(&|kernels, x| {
            (kernels.elementwise)(Task::Normalise { x, weights: &y, epsilon: 1e-5 });
        });
        let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / len as f64;
        for ((normed, x), weight) in normed.iter().zip(&x).zip(&y) {
            let exact = f64::from(*x) / libm::sqrt(mean + 1e-5) * f64::from(*weight);
            assert!((f64::from(*normed) - exact).abs() < 1e-6 * exact.abs().max(0.1), "{normed} {exact}");
        }
        let sums = all(&|kernels, to| (kernels.elementwise)(Task::Add { to, x: &y }));
        assert!(sums.iter().zip(&x).zip(&y).all(|((sum, x), y)| *sum == x + y));
    }
}

#[test]
fn quantised_vectors_are_within_half_a_step_and_the_same_between_twins() {
    let random = &mut Random::new(5);
    let mut values = random_values(random, 64 * BLOCK);
    // Nothing but zeros, and numbers whose step has an inverse beyond the largest.
    values[..BLOCK].fill(0.0);
    values[BLOCK..2 * BLOCK].iter_mut().for_each(|value| *value *= 1e-42);
    values[2 * BLOCK..3 * BLOCK].iter_mut().for_each(|value| *value *= 1e-38);
    let results = tables().into_iter().map(|kernels| Vectors::new(kernels, BLOCK, values.clone()).blocks);
    let results: Vec<Vec<Block>> = results.collect();
    results.iter().for_each(|result| assert!(*result == results[0]));
    for (block, values) in results[0].iter().zip(values.chunks(BLOCK)) {
        let quants = block.quants.as_flattened();
        for (quant, value) in quants.iter().zip(values) {
            let error = f64::from(*quant) * f64::from(block.scale) - f64::from(*value);
            assert!(error.abs() <= f64::from(block.scale) * 0.5001 + 1e-30, "{quant} {value}");
        }
        let sum = |quants: &[i8]| -quants.iter().map(|quant| i32::from(*quant)).sum::<i32>();
        let sums = [sum(quants), sum(&quants[..16]), sum(&quants[16..])];
        assert_eq!(block.sums, sums.map(|sum| 128 * sum));
        assert_eq!(block.shifts, sums.map(|sum| sum as f32 * block.scale));
    }
}

/// Keys and values of a head in the order of the cache.
struct Stored {
    keys: Vec<u16>,
    values: Vec<u16>,
    length: usize,
}

impl Stored {
    fn new(random: &mut Random, length: usize, positions: usize) -> Self {
        let mut halves = |len| random_values(random, len).into_iter().map(f32_to_f16).collect();
        let keys = halves(positions.next_multiple_of(16) * length);
        Self { keys, values: halves(positions * padded(length)), length }
    }

    fn key(&self, position: usize, element: usize) -> f64 {
        f16_to_f32(self.keys[(position / 16 * self.length + element) * 16 + position % 16]).into()
    }

    fn value(&self, position: usize, element: usize) -> f64 {
        f16_to_f32(self.values[position * padded(self.length) + element]).into()
    }

    /// The attention of one query to some positions.
    fn exact(&self, query: &[f32], seen: core::ops::Range<usize>, scale: f32) -> Vec<f64> {
        let score = |position| {
            let terms = query.iter().enumerate().map(|(e, q)| f64::from(*q) * self.key(position, e));
            libm::exp(terms.sum::<f64>() * f64::from(scale))
        };
        let weights: Vec<f64> = seen.clone().map(score).collect();
        let total: f64 = weights.iter().sum();
        let element = |element| {
            let terms = seen.clone().zip(&weights).map(|(position, w)| w * self.value(position, element));
            terms.sum::<f64>() / total
        };
        (0..self.length).map(element).collect()
    }
}

#[test]
fn attention_agrees_with_double_precision_and_between_twins_in_any_batch() {
    let random = &mut Random::new(4);
    // Heads of many lengths, groups, and tokens before, across and behind the ends of blocks of positions.
    for (length, group, position, tokens, window) in [
        (8, 1, 0, 1, usize::MAX),
        (64, 3, 120, 17, usize::MAX),
        (64, 3, 127, 2, 40),
        (40, 7, 300, 3, 150),
        (36, 2, 0, 21, 1),
        (128, 4, 250, 12, 130),
        (5, 6, 9, 5, usize::MAX),
    ] {
        let stored = Stored::new(random, length, position + tokens);
        let head = Head { keys: &stored.keys, values: &stored.values, length };
        let own = group * length;
        let values = random_values(random, own * tokens);
        let scale = 0.3;
        let run = |kernels: &Kernels, first: usize, tokens: usize| {
            let mut out = vec![f32::NAN; own * tokens];
            let mut scratch = vec![f32::NAN; attention::scratch_len(length)];
            let position = position + first;
            let values = &values[first * own..];
            let queries = Queries { values, stride: own, group, position, tokens, window, scale };
            (kernels.attend)(head, &queries, &mut out, own, &mut scratch);
            out
        };
        let expected = run(tables()[0], 0, tokens);
        for (row, out) in expected.chunks(length).enumerate() {
            let end = position + row / group + 1;
            let exact =
                stored.exact(&values[row * length..][..length], end.saturating_sub(window)..end, scale);
            for (out, exact) in out.iter().zip(exact) {
                assert!((f64::from(*out) - exact).abs() < 2e-5, "{length} {group} {position}: {out} {exact}");
            }
        }
        for kernels in &tables()[1..] {
            assert_eq!(
                bits(&run(kernels, 0, tokens)),
                bits(&expected),
                "{kernels:?} {length} {group} {position}"
            );
            for token in 0..tokens {
                assert_eq!(bits(&run(kernels, token, 1)), bits(&expected[token * own..][..own]));
            }
        }
    }
}

#[test]
fn attention_to_huge_or_undefined_scores_stays_bounded() {
    for kernels in tables() {
        for (query, most) in [(1e30, 1.0), (f32::INFINITY, f32::INFINITY), (f32::NAN, f32::INFINITY)] {
            let head = Head { keys: &[0x3c00; 16 * 16], values: &[0x3c00; 16 * 16], length: 16 };
            let values = &[query; 16];
            let queries = Queries {
                values,
                stride: 16,
                group: 1,
                position: 9,
                tokens: 1,
                window: usize::MAX,
                scale: 1.0,
            };
            let mut out = [0.0; 16];
            (kernels.attend)(head, &queries, &mut out, 16, &mut vec![0.0; attention::scratch_len(16)]);
            assert!(out.iter().all(|out| out.is_nan() || *out <= most), "{kernels:?} {out:?}");
        }
    }
}

#[test]
fn exp_is_within_two_to_the_minus_22() {
    for step in -870_000..880_000 {
        let x = step as f32 * 1e-4;
        let exact = libm::exp(f64::from(x));
        let error = (f64::from(exp::exp(x)) - exact).abs() / exact;
        assert!(error < 1.0 / f64::from(1 << 22), "exp({x}) is off by {error}");
    }
    // The function of vectors: swiglu's gates of -x, times ups that undo everything but the exponential.
    for step in -8_000..8_000 {
        let x = step as f32 * 1e-2;
        let mut gates = [-x];
        (tables()[0].elementwise)(Task::Swiglu { gates: &mut gates, ups: &[1.0] });
        let exact = -f64::from(x) / (1.0 + libm::exp(f64::from(x)));
        assert!((f64::from(gates[0]) - exact).abs() <= exact.abs() * 6e-7, "{x}: {} {exact}", gates[0]);
    }
    assert!(exp::exp(-1e9) < 1.3e-38 && exp::exp(f32::NEG_INFINITY) < 1.3e-38);
    assert!(exp::exp(1e9).is_finite() && exp::exp(f32::INFINITY) > 1.6e38);
    assert!(exp::exp(f32::NAN) < 1.3e-38);
    assert_eq!(exp::exp(0.0), 1.0);
}

#[test]
fn any_number_of_workers_packs_alike() {
    for kind in TensorType::ALL {
        let shape = (kind, 512, 100);
        let bytes = kind.bytes(shape.1 * shape.2).unwrap();
        let pack_with = |count| {
            let mut data: Vec<u8> = (0..bytes).map(|index| (index * 31 % 251) as u8).collect();
            let threads = super::threads::Threads::new(count).unwrap();
            let tail = pack(shape, (0, &mut data), &|_, _| (), &threads).unwrap();
            (data, tail)
        };
        let alone = pack_with(1);
        assert!([2, 3].map(pack_with).iter().all(|packed| *packed == alone), "{kind:?}");
    }
}
