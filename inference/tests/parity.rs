//! Logits against candle's `quantized_llama` on the same file, at every position.
mod common;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use common::{Noise, SHAPE, Shape, model, with_f32_matrices};
use inference::gguf::TensorType;
use inference::{Model, SingleThread, Tokenizer, logits};
use std::io::Cursor;

/// Candle's logits after each token, evaluated one by one as it decodes.
fn reference(file: &[u8], tokens: &[u32]) -> Vec<Vec<f32>> {
    let device = Device::Cpu;
    let mut reader = Cursor::new(file);
    let content = Content::read(&mut reader).expect("candle reads the file");
    let mut model = ModelWeights::from_gguf(content, &mut reader, &device).expect("candle loads the model");
    let row = |(position, token): (usize, &u32)| {
        let input = Tensor::new(&[[*token]], &device).expect("a tensor");
        let output = model.forward(&input, position).expect("candle evaluates");
        output.flatten_all().and_then(|row| row.to_vec1()).expect("a row of logits")
    };
    tokens.iter().enumerate().map(row).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The largest element's place, and by how much it leads.
fn top(row: &[f32]) -> (usize, f32) {
    let first = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("not empty");
    let second = (0..row.len()).filter(|i| *i != first).map(|i| row[i]).fold(f32::NEG_INFINITY, f32::max);
    (first, row[first] - second)
}

/// How near the two must be.
struct Tolerance {
    /// At every position.
    cosine: f64,
    /// The largest difference of two logits at any position.
    difference: f32,
    /// The same, at half of the positions.
    median: f32,
    /// By how much the largest logit must lead to be the same in both.
    margin: f32,
}

fn compare(file: &[u8], tokens: &[u32], tolerance: &Tolerance) {
    let model = Model::load(file).expect("a valid model");
    let ours = logits(&model, tokens, &SingleThread).expect("logits");
    let theirs = reference(file, tokens);
    let mut decided = 0;
    let mut differences = Vec::new();
    for (position, (ours, theirs)) in ours.chunks(model.config().vocabulary_length).zip(&theirs).enumerate() {
        let cosine = cosine(ours, theirs);
        let difference = ours.iter().zip(theirs).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(cosine >= tolerance.cosine, "position {position}: cosine {cosine}");
        assert!(difference <= tolerance.difference, "position {position}: largest difference {difference}");
        differences.push(difference);
        let (first, margin) = top(theirs);
        if margin > tolerance.margin {
            assert_eq!(top(ours).0, first, "position {position}");
            decided += 1;
        }
    }
    assert_eq!(differences.len(), tokens.len());
    differences.sort_by(f32::total_cmp);
    assert!(differences[tokens.len() / 2] <= tolerance.median, "the differences are {differences:?}");
    assert!(decided * 2 > tokens.len(), "the margins of only {decided} positions are more than noise");
}

/// Tokens without a pattern, more than one batch of them.
fn tokens(shape: Shape, seed: u64) -> Vec<u32> {
    let noise = Noise(seed).values(80, 0.0, 1e6);
    noise.into_iter().map(|value| value.abs() as u32 % shape.vocabulary as u32).collect()
}

/// We keep keys and values in half precision, as llama.cpp does, and candle in single.
const FLOAT: Tolerance = Tolerance { cosine: 0.999_99, difference: 0.05, median: 0.02, margin: 0.1 };
/// Candle rounds the steps of quantised vectors to half precision, and we do not. Where a value lies on the border
/// between two steps, that decides the side, and a step is 1/127 of the largest of 32 elements.
const QUANTISED: Tolerance = Tolerance { cosine: 0.999, difference: 1.6, median: 0.7, margin: 1.2 };

#[test]
fn f32_weights_give_the_logits_of_candle() {
    compare(&model(SHAPE, TensorType::F32, 11).finish(), &tokens(SHAPE, 1), &FLOAT);
}

#[test]
fn f16_weights_give_the_logits_of_candle() {
    let shape = Shape { tied: false, heads: 4, heads_kv: 4, ..SHAPE };
    compare(&model(shape, TensorType::F16, 12).finish(), &tokens(shape, 2), &FLOAT);
}

#[test]
fn bf16_weights_give_the_logits_of_candle() {
    compare(&model(SHAPE, TensorType::Bf16, 15).finish(), &tokens(SHAPE, 5), &FLOAT);
}

#[test]
fn q8_0_weights_give_the_logits_of_candle() {
    compare(&model(SHAPE, TensorType::Q8_0, 13).finish(), &tokens(SHAPE, 3), &QUANTISED);
    let untied = Shape { tied: false, ..SHAPE };
    compare(&model(untied, TensorType::Q8_0, 14).finish(), &tokens(untied, 4), &QUANTISED);
}

/// Root of the mean square difference of our and candle's logits from those of the same weights in F32.
fn distances(file: &[u8], tokens: &[u32]) -> [f64; 2] {
    let run = |file: &[u8]| logits(&Model::load(file).expect("a valid model"), tokens, &SingleThread);
    let exact = run(&with_f32_matrices(file)).expect("logits");
    [run(file).expect("logits"), reference(file, tokens).concat()].map(|logits| {
        let squares = logits.iter().zip(&exact).map(|(a, b)| f64::from(a - b).powi(2));
        (squares.sum::<f64>() / exact.len() as f64).sqrt()
    })
}

#[test]
fn q8_0_weights_are_no_further_from_the_exact_result_than_candle() {
    let [ours, theirs] = distances(&model(SHAPE, TensorType::Q8_0, 16).finish(), &tokens(SHAPE, 6));
    assert!(ours <= theirs * 1.02, "{ours} against {theirs}");
}

#[test]
fn the_default_model_gives_the_logits_of_candle() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/cloister-mini.gguf");
    let file = std::fs::read(path).expect("the default model is in the repository");
    let tokens = chat(Model::load(&file).expect("a valid model").tokenizer());
    // Where rows are multiples of 256, candle gives 256 elements of a vector one scale on processors with VNNI, and we
    // 32. So the two are compared over the same weights in F32, and then in how far they are from that.
    compare(&with_f32_matrices(&file), &tokens, &FLOAT);
    let [ours, theirs] = distances(&file, &tokens);
    assert!(ours <= theirs * 1.02, "{ours} against {theirs}");
}

/// A short conversation in the default model's frame.
fn chat(tokenizer: &Tokenizer) -> Vec<u32> {
    let control = |name| tokenizer.control(name).expect("the default model has it");
    let (start, end) = (control("<|im_start|>"), control("<|im_end|>"));
    let texts =
        ["Anna: Shall we meet at the station at 18:30?\n", "Ben: Yes, I will bring the tickets. See you!\n"];
    let mut tokens = vec![start];
    tokens.extend(tokenizer.encode("user\n"));
    tokens.extend(texts.into_iter().flat_map(|text| tokenizer.encode(text)));
    tokens.push(end);
    tokens.extend(tokenizer.encode("\n"));
    tokens.push(start);
    tokens.extend(tokenizer.encode("assistant\n"));
    tokens
}
