//! Model files that are incomplete, inconsistent or hostile (E1).
mod common;

use common::{SHAPE, Shape, model};
use inference::gguf::{self, File, Part, TensorType};
use inference::{
    Generation, Limits, LimitsError, LoadError, LogitsError, Model, Sampling, Scheduler, SingleThread, logits,
};

const SMALL: Shape = Shape { layers: 1, feed_forward: 64, embedding: 64, vocabulary: 260, ..SHAPE };

fn refused(file: &[u8]) -> LoadError {
    Model::load(file).expect_err("the file is broken")
}

/// Loads a file and, if that works, generates a little.
fn try_everything(file: &[u8]) {
    let Ok(model) = Model::load(file) else { return };
    let _ = model.tokenizer().encode("Hello, 10:45!\n");
    let limits = Limits {
        context_tokens: 8.min(model.config().context_length),
        sessions: 2,
        prefill_chunk: 2,
        speculation: 3,
    };
    let Ok(mut scheduler) = Scheduler::new(&model, limits, SingleThread) else { return };
    let warm = Sampling { temperature: 0.8, top_p: 0.9, repetition_penalty: 1.1, ..Sampling::default() };
    for sampling in [Sampling::default(), warm] {
        let generation = Generation { prompt: vec![1, 2, 3], max_tokens: 10, stop: vec![0], sampling };
        let _ = scheduler.submit(generation);
    }
    let mut output = Vec::new();
    for _ in 0..64 {
        scheduler.step(&mut output);
    }
    assert!(scheduler.is_idle());
}

#[test]
fn a_complete_file_loads_and_says_what_it_is() {
    let file = model(SMALL, TensorType::Q8_0, 31).finish();
    let model = Model::load(&file).expect("a valid model");
    let config = model.config();
    assert_eq!((config.head_length, config.head_count_kv, config.vocabulary_length), (8, 2, 260));
    assert_eq!(model.tokenizer().control("<|im_end|>"), Some(common::END));
}

#[test]
fn e1_metadata_that_make_no_sense_are_named() {
    let with = |key: &str, value: gguf::write::Value| {
        let mut writer = model(SMALL, TensorType::F32, 32);
        writer.set(key, value);
        refused(&writer.finish())
    };
    let bad = |key: &str| LoadError::BadValue(key.into());
    for (key, value) in [
        ("llama.block_count", 0_u32),
        ("llama.block_count", u32::MAX),
        ("llama.embedding_length", 1 << 25),
        ("llama.context_length", 0),
        ("llama.feed_forward_length", u32::MAX),
        ("llama.attention.head_count", 7),
        ("llama.attention.head_count_kv", 3),
        ("llama.attention.head_count_kv", 0),
        ("llama.attention.value_length", 4),
        ("llama.rope.dimension_count", 3),
        ("llama.rope.dimension_count", 10),
        ("llama.vocab_size", 259),
    ] {
        assert!(
            [bad(key), bad("llama.attention.head_count_kv")].contains(&with(key, value.into())),
            "{key} {value}"
        );
    }
    for value in [f32::NAN, f32::INFINITY, -1.0] {
        let key = "llama.attention.layer_norm_rms_epsilon";
        assert_eq!(with(key, value.into()), bad(key));
        assert_eq!(with("llama.rope.freq_base", value.into()), bad("llama.rope.freq_base"));
    }
    assert_eq!(with("llama.block_count", "two".into()), bad("llama.block_count"));
    let architecture = with("general.architecture", "mamba".into());
    assert_eq!(architecture, LoadError::UnsupportedArchitecture("mamba".into()));
    let said = architecture.to_string();
    assert!(
        ["'mamba'", "llama", "mistral3", "qwen2", "qwen3"].iter().all(|name| said.contains(name)),
        "{said}"
    );
    for (key, value, text) in [
        ("llama.rope.scaling.type", "longrope".into(), "longrope"),
        ("llama.expert_count", 8_u32.into(), "8"),
        ("llama.attention.causal", false.into(), "false"),
    ] {
        let error = LoadError::UnsupportedFeature { key: key.into(), value: text.into() };
        assert_eq!(with(key, value), error);
    }
    let missing = refused(&gguf::write::Writer::new().finish());
    assert!(missing.to_string().contains("general.architecture"), "{missing}");
}

#[test]
fn e1_tensors_that_do_not_fit_are_named() {
    let mut writer = model(SMALL, TensorType::F32, 33);
    writer.set("llama.block_count", 2_u32);
    assert_eq!(refused(&writer.finish()), LoadError::MissingTensor("blk.1.attn_norm.weight".into()));

    let mut writer = model(SMALL, TensorType::F32, 33);
    writer.tensor("blk.0.attn_q.scale", &[1], TensorType::F32, &[2.0]).expect("the shape fits");
    assert_eq!(refused(&writer.finish()), LoadError::UnknownTensor("blk.0.attn_q.scale".into()));

    let mut writer = model(SMALL, TensorType::F32, 33);
    writer.set("llama.feed_forward_length", 32_u32);
    let error = LoadError::Shape {
        tensor: "blk.0.ffn_gate.weight".into(),
        expected: vec![64, 32],
        found: vec![64, 64],
    };
    assert_eq!(refused(&writer.finish()), error);
}

#[test]
fn e1_a_truncated_file_is_refused_by_name() {
    let file = model(SMALL, TensorType::Q8_0, 34).finish();
    let half = refused(&file[..file.len() / 2]);
    assert!(matches!(&half, LoadError::Gguf(gguf::Error::Truncated(Part::TensorData(_)))), "{half}");
    for len in (0..file.len()).step_by(97) {
        assert!(Model::load(&file[..len]).is_err(), "{len} of {} bytes", file.len());
    }
}

#[test]
fn e1_flipped_bits_never_panic() {
    let file = model(SMALL, TensorType::Q8_0, 35).finish();
    // Metadata and descriptions come first; of the weights a sample will do.
    let weights: usize =
        File::parse(&file).expect("a valid file").tensors().map(|(_, t)| t.data().len()).sum();
    let described = file.len() - weights;
    let places = (0..described).step_by(3).chain((described..file.len()).step_by(1009));
    for place in places {
        let mut flipped = file.clone();
        flipped[place] ^= 1 << (place % 8);
        try_everything(&flipped);
    }
}

#[test]
fn e1_weights_that_are_no_numbers_never_panic() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 0.0] {
        for name in ["blk.0.attn_q.weight", "output.weight"] {
            let mut writer = model(SMALL, TensorType::F32, 36);
            if name == "output.weight" {
                let shape = [SMALL.embedding, SMALL.vocabulary];
                writer
                    .tensor(name, &shape, TensorType::F32, &vec![value; shape[0] * shape[1]])
                    .expect("it fits");
            } else {
                writer = common::with_tensor_filled(&writer.finish(), name, value);
            }
            assert!(Model::load(writer.finish()).is_ok(), "numbers are not looked at");
            try_everything(&writer.finish());
        }
    }
}

#[test]
fn a_sliding_window_hides_what_is_before_it() {
    let mut writer = model(SMALL, TensorType::F32, 38);
    let full = writer.finish();
    let windowed = writer.set("llama.attention.sliding_window", 5_u32).finish();
    let last = |file: &[u8], tokens: &[u32]| {
        let model = Model::load(file).expect("a valid model");
        let logits = logits(&model, tokens, &SingleThread).expect("logits");
        logits[logits.len() - SMALL.vocabulary..].to_vec()
    };
    let tokens: Vec<u32> = (40..60).collect();
    // Of 20 tokens, one layer with a window of 5 sees the last five.
    for changed in 0..20 {
        let mut other = tokens.clone();
        other[changed] = 99;
        let same = last(&windowed, &tokens) == last(&windowed, &other);
        assert_eq!(same, changed < 15, "token {changed}");
        assert_ne!(last(&full, &tokens), last(&full, &other), "token {changed}");
    }
    assert_eq!(last(&windowed, &tokens[..5]), last(&full, &tokens[..5]));
    let none = writer.set("llama.attention.sliding_window", 0_u32).finish();
    assert_eq!(last(&none, &tokens), last(&full, &tokens));
}

#[test]
fn logits_of_what_cannot_be_evaluated_are_refused() {
    let file = model(SMALL, TensorType::F16, 37).finish();
    let model = Model::load(&file).expect("a valid model");
    let error = |tokens: &[u32]| logits(&model, tokens, &SingleThread).err();
    let context = |asked| Some(LogitsError::Limits(LimitsError::Context { asked, most: SMALL.context }));
    assert_eq!(error(&[]), context(0));
    assert_eq!(error(&[1; 97]), context(97));
    assert_eq!(error(&[1, 260]), Some(LogitsError::TokenOutOfRange(260)));
    assert_eq!(logits(&model, &[1; 96], &SingleThread).map(|logits| logits.len()), Ok(96 * 260));
}
