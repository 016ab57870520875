//! Logits against llama.cpp's on the same file, for every architecture and every type. `data/logits.py` says how its
//! logits were made.
mod common;

use common::{Noise, SHAPE, Shape, model, with_f32_matrices};
use inference::gguf::TensorType;
use inference::gguf::write::Writer;
use inference::{Model, SingleThread, logits};
use std::path::Path;

const POSITIONS: usize = 40;
/// llama.cpp's logits are kept for every so manyth position and the last.
const KEPT: usize = 13;

/// A name and a file for each thing to compare.
fn cases() -> Vec<(String, Vec<u8>)> {
    let float = |shape, seed| model(shape, TensorType::F32, seed);
    let mut cases: Vec<(&str, Writer)> = Vec::new();
    let untied = Shape { tied: false, heads_kv: 8, ..SHAPE };
    let biased = Shape { biases: true, ..SHAPE };

    cases.push(("llama", float(SHAPE, 50)));
    cases.push(("llama-untied-biases", float(Shape { biases: true, more_biases: true, ..untied }, 51)));
    cases.push((
        "llama-odd-heads",
        float(Shape { embedding: 100, heads: 5, heads_kv: 1, head: Some(36), ..SHAPE }, 52),
    ));
    let mut factors = float(SHAPE, 53);
    let values: Vec<f32> = (0..8).map(|pair| [1.0, 1.0, 1.5, 3.0, 8.0][pair.min(4)]).collect();
    factors.tensor("rope_freqs.weight", &[8], TensorType::F32, &values).expect("the shape fits");
    cases.push(("llama-rope-factors", factors));
    let mut linear = float(SHAPE, 54);
    linear.set("llama.rope.scaling.type", "linear").set("llama.rope.scaling.factor", 4.0_f32);
    cases.push(("llama-linear", linear));
    let mut yarn = float(SHAPE, 55);
    yarn.set("llama.rope.scaling.type", "yarn")
        .set("llama.rope.scaling.factor", 4.0_f32)
        .set("llama.rope.scaling.original_context_length", 24_u32);
    cases.push(("llama-yarn", yarn));
    cases.push(("qwen2", float(Shape { architecture: "qwen2", ..biased }, 56)));
    let mut yarn = float(Shape { architecture: "qwen2", tied: false, ..biased }, 57);
    yarn.set("qwen2.rope.scaling.type", "yarn")
        .set("qwen2.rope.scaling.factor", 2.0_f32)
        .set("qwen2.rope.scaling.original_context_length", 48_u32);
    cases.push(("qwen2-yarn", yarn));
    cases.push(("qwen3", float(Shape { architecture: "qwen3", head: Some(32), ..SHAPE }, 58)));
    let mut temperature = float(Shape { architecture: "mistral3", head: Some(24), ..SHAPE }, 59);
    temperature
        .set("mistral3.rope.scaling.type", "yarn")
        .set("mistral3.rope.scaling.factor", 3.0_f32)
        .set("mistral3.rope.scaling.original_context_length", 10_u32)
        .set("mistral3.rope.scaling.yarn_beta_fast", 8.0_f32)
        .set("mistral3.rope.scaling.yarn_beta_slow", 1.0_f32)
        .set("mistral3.rope.scaling.yarn_log_multiplier", 0.7_f32)
        .set("mistral3.attention.temperature_scale", 0.3_f32);
    cases.push(("mistral3", temperature));

    let mut files: Vec<(String, Vec<u8>)> =
        cases.into_iter().map(|(name, writer)| (name.into(), writer.finish())).collect();
    for kind in TensorType::ALL {
        let shape = Shape { embedding: 256, feed_forward: 512, layers: 2, ..SHAPE };
        files.push((kind.name().into(), model(shape, kind, 60 + kind as u64).finish()));
    }
    files
}

fn tokens() -> Vec<u32> {
    let noise = Noise(7).values(POSITIONS, 0.0, 1e6);
    noise.into_iter().map(|value| value.abs() as u32 % SHAPE.vocabulary as u32).collect()
}

/// FNV-1a: enough to notice that a test model is no longer the one that llama.cpp has seen.
fn fingerprint(file: &[u8]) -> u64 {
    file.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The rows that are kept, of all.
fn kept(rows: &[f32]) -> Vec<&[f32]> {
    rows.chunks(SHAPE.vocabulary)
        .skip(KEPT - 1)
        .step_by(KEPT)
        .chain(rows.chunks(SHAPE.vocabulary).last())
        .collect()
}

/// What llama.cpp gave for a case: from `data/logits.bin`, where each has a fingerprint (u64) and rows of f32.
fn reference(index: usize, file: &[u8]) -> Vec<Vec<f32>> {
    const DATA: &[u8] = include_bytes!("data/logits.bin");
    let rows = POSITIONS / KEPT + 1;
    let size = 8 + rows * SHAPE.vocabulary * 4;
    let (stamp, values) = DATA[index * size..][..size].split_first_chunk().expect("a fingerprint");
    assert_eq!(
        u64::from_le_bytes(*stamp),
        fingerprint(file),
        "the test models have changed: run data/logits.py"
    );
    let values: Vec<f32> = values.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    values.chunks(SHAPE.vocabulary).map(<[f32]>::to_vec).collect()
}

fn ours(file: &[u8]) -> Vec<f32> {
    let model = Model::load(file).expect("a valid model");
    logits(&model, &tokens(), &SingleThread).expect("logits")
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn distance<'a>(rows: impl Iterator<Item = &'a [f32]>, exact: &[&[f32]]) -> f64 {
    let squares = rows.zip(exact).flat_map(|(a, b)| a.iter().zip(*b)).map(|(a, b)| f64::from(a - b).powi(2));
    squares.sum::<f64>().sqrt()
}

/// The largest element's place, and by how much it leads.
fn top(row: &[f32]) -> (usize, f32) {
    let first = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("not empty");
    let second = (0..row.len()).filter(|i| *i != first).map(|i| row[i]).fold(f32::NEG_INFINITY, f32::max);
    (first, row[first] - second)
}

#[test]
fn every_architecture_and_floating_point_type_gives_the_logits_of_llama_cpp() {
    let mut compared = 0;
    for (index, (name, file)) in cases().into_iter().enumerate() {
        let quantised = TensorType::ALL.iter().any(|kind| kind.name() == name && kind.block_elements() > 1);
        if quantised {
            continue;
        }
        let rows = ours(&file);
        for (ours, theirs) in kept(&rows).iter().zip(reference(index, &file)) {
            let cosine = cosine(ours, &theirs);
            assert!(cosine >= 0.9999, "{name}: {cosine}");
            let (first, margin) = top(&theirs);
            if margin > 0.1 {
                assert_eq!(top(ours).0, first, "{name}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 39, "only {compared} margins are more than noise");
}

#[test]
fn quantised_weights_are_no_further_from_the_exact_result_than_llama_cpp_is() {
    for (index, (name, file)) in cases().into_iter().enumerate() {
        let Some(kind) = TensorType::ALL.into_iter().find(|kind| kind.name() == name) else { continue };
        let exact = ours(&with_f32_matrices(&file));
        let exact = kept(&exact);
        let theirs = reference(index, &file);
        let rows = ours(&file);
        let ours = distance(kept(&rows).into_iter(), &exact);
        let theirs = distance(theirs.iter().map(Vec::as_slice), &exact);
        let allowed = match kind.block_elements() {
            // Only the order of additions differs, and keys and values are kept in half precision.
            1 => theirs.max(0.1),
            // Both quantise vectors to the same steps. Seen here: up to 1.09 (Q4_1), on four positions of one small model;
            // larger models have to show whether that is chance.
            32 => theirs * 1.2,
            _ => theirs,
        };
        assert!(ours <= allowed, "{name}: {ours} against {theirs}");
    }
}

#[test]
#[ignore = "writes the test models for data/logits.py, to the folder that the environment names"]
fn write_models_for_llama_cpp() {
    let folder = std::env::var_os("MODELS_FOR_LLAMA_CPP").expect("a folder");
    let ids: Vec<String> = tokens().iter().map(u32::to_string).collect();
    std::fs::write(Path::new(&folder).join("ids"), ids.join(" ")).expect("the folder is writable");
    for (index, (name, file)) in cases().into_iter().enumerate() {
        let name = format!("{index:02}-{name}.gguf");
        std::fs::write(Path::new(&folder).join(name), file).expect("the folder is writable");
    }
}
