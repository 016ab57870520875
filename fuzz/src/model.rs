//! A model file: what is refused must be refused without a panic, and what is accepted must load, tokenise and generate
//! within its bounds, whatever its shapes, offsets and numbers are.

use inference::gguf::TensorType;
use inference::gguf::write::Writer;
use inference::{Generation, Limits, Model, Sampling, Scheduler, SingleThread};

const WIDTH: usize = 32;
/// The vocabulary: bytes, two merges, a control token.
const TOKENS: [&str; 8] = ["a", "b", "c", "Ġ", "ab", "abc", "<|end|>", "<think>"];
const TYPES: [i32; 8] = [1, 1, 1, 1, 1, 1, 3, 4];

pub(crate) fn run(data: &[u8]) {
    let Ok(model) = Model::load(data) else { return };
    let tokenizer = model.tokenizer();
    let text = "abc a <|end|><think>\n'll 12\u{a0}é▁🙂";
    let tokens = tokenizer.encode(text);
    for (_, control) in tokenizer.controls() {
        assert!(!tokens.contains(&control), "text became a control token");
    }
    for token in tokens.into_iter().chain([0, u32::MAX]) {
        let _ = tokenizer.decode(token);
    }
    // Shapes may be large as long as the file has the tensors; one generation of a few tokens is bounded by them.
    let limits = Limits {
        context_tokens: model.config().context_length.min(8),
        sessions: 1,
        prefill_chunk: 2,
        speculation: 4,
    };
    let Ok(mut scheduler) = Scheduler::new(&model, limits, SingleThread) else { return };
    for max_tokens in [0, 3, u32::MAX] {
        let generation =
            Generation { prompt: vec![0, 1], max_tokens, stop: vec![6], sampling: Sampling::default() };
        let _ = scheduler.submit(generation);
        let mut output = Vec::new();
        for _ in 0..32 {
            scheduler.step(&mut output);
        }
        assert!(scheduler.is_idle(), "a generation outlasts its context");
    }
}

fn model(architecture: &str, sentence_piece: bool, kind: TensorType) -> Vec<u8> {
    let mut writer = Writer::new();
    let key = |name: &str| format!("{architecture}.{name}");
    writer
        .set("general.architecture", architecture)
        .set(&key("context_length"), 16_u32)
        .set(&key("embedding_length"), WIDTH as u32)
        .set(&key("block_count"), 1_u32)
        .set(&key("feed_forward_length"), WIDTH as u32)
        .set(&key("attention.head_count"), 2_u32)
        .set(&key("attention.head_count_kv"), 1_u32)
        .set(&key("attention.sliding_window"), 3_u32)
        .set(&key("attention.layer_norm_rms_epsilon"), 1e-5_f32)
        .set(&key("rope.scaling.type"), "yarn")
        .set(&key("rope.scaling.factor"), 2.0_f32)
        .set("tokenizer.ggml.model", if sentence_piece { "llama" } else { "gpt2" })
        .set("tokenizer.ggml.pre", "llama-bpe")
        .set("tokenizer.ggml.tokens", TOKENS.map(String::from).to_vec())
        .set("tokenizer.ggml.token_type", TYPES.to_vec())
        .set("tokenizer.ggml.scores", vec![0.0, -1.0, -2.0, -3.0, 2.0, 1.0, 0.0, 0.0])
        .set("tokenizer.ggml.merges", vec!["a b".to_owned(), "ab c".to_owned()]);
    let mut tensor = |name: &str, shape: &[usize], kind| {
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|i: usize| (i % 7) as f32 * 0.1 - 0.3).collect();
        writer.tensor(name, shape, kind, &values).expect("the shape fits");
    };
    tensor("token_embd.weight", &[WIDTH, TOKENS.len()], kind);
    tensor("output_norm.weight", &[WIDTH], TensorType::F32);
    for norm in ["attn_norm", "ffn_norm"] {
        tensor(&format!("blk.0.{norm}.weight"), &[WIDTH], TensorType::F32);
    }
    for norm in ["attn_q_norm", "attn_k_norm"].iter().filter(|_| architecture == "qwen3") {
        tensor(&format!("blk.0.{norm}.weight"), &[WIDTH / 2], TensorType::F32);
    }
    tensor("blk.0.attn_q.bias", &[WIDTH], TensorType::F32);
    for (name, rows) in [
        ("attn_q", WIDTH),
        ("attn_k", WIDTH / 2),
        ("attn_v", WIDTH / 2),
        ("attn_output", WIDTH),
        ("ffn_gate", WIDTH),
        ("ffn_up", WIDTH),
        ("ffn_down", WIDTH),
    ] {
        tensor(&format!("blk.0.{name}.weight"), &[WIDTH, rows], kind);
    }
    writer.finish()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![
        model("llama", false, TensorType::Q4_0),
        model("llama", true, TensorType::Q5_0),
        model("qwen2", false, TensorType::Q5_1),
        model("qwen3", false, TensorType::Q4_1),
        model("mistral3", true, TensorType::Q4_0),
    ]
}
