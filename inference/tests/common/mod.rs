//! A small random Llama-architecture model, the same for the same seed.
#![allow(dead_code, reason = "each test binary uses its own part")]
use inference::gguf::write::{Value, Writer};
use inference::gguf::{self, File, TensorType, ValueType};
use std::format;
use std::string::String;
use std::vec::Vec;

/// The shape of a test model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub architecture: &'static str,
    pub vocabulary: usize,
    pub context: usize,
    pub embedding: usize,
    pub layers: usize,
    pub feed_forward: usize,
    pub heads: usize,
    pub heads_kv: usize,
    /// Elements of a head, where it is not the embedding's share.
    pub head: Option<usize>,
    pub tied: bool,
    /// Whether queries, keys and values have biases.
    pub biases: bool,
    /// Whether the other matrices of a layer have them too.
    pub more_biases: bool,
}

impl Shape {
    /// The same, with rows that fill blocks of this type.
    pub fn for_type(self, kind: TensorType) -> Self {
        let fill = |length: usize| length.next_multiple_of(kind.block_elements());
        Self { embedding: fill(self.embedding), feed_forward: fill(self.feed_forward), ..self }
    }
}

/// Grouped-query attention, and a number of rows that is no multiple of eight.
pub const SHAPE: Shape = Shape {
    architecture: "llama",
    vocabulary: 301,
    context: 96,
    embedding: 128,
    layers: 3,
    feed_forward: 160,
    heads: 8,
    heads_kv: 2,
    head: None,
    tied: true,
    biases: false,
    more_biases: false,
};

pub const END: u32 = 256;

/// SplitMix64, summed to something near a normal distribution.
pub struct Noise(pub u64);

impl Noise {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 24) as f32
    }

    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    pub fn values(&mut self, len: usize, mean: f32, deviation: f32) -> Vec<f32> {
        (0..len).map(|_| mean + deviation * self.normal()).collect()
    }
}

/// The file of a random model: matrices as `kind`, norms as F32.
pub fn model(shape: Shape, kind: TensorType, seed: u64) -> Writer {
    let Shape { vocabulary, embedding, layers, feed_forward, heads, heads_kv, .. } = shape;
    let head = shape.head.unwrap_or(embedding / heads);
    let mut noise = Noise(seed);
    let mut writer = Writer::new();
    let name = |key: &str| format!("{}.{key}", shape.architecture);
    writer
        .set("general.architecture", shape.architecture)
        .set(&name("context_length"), shape.context as u32)
        .set(&name("embedding_length"), embedding as u32)
        .set(&name("block_count"), layers as u32)
        .set(&name("feed_forward_length"), feed_forward as u32)
        .set(&name("attention.head_count"), heads as u32)
        .set(&name("attention.head_count_kv"), heads_kv as u32)
        .set(&name("attention.layer_norm_rms_epsilon"), 1e-5_f32)
        .set(&name("rope.dimension_count"), head as u32)
        .set(&name("rope.freq_base"), 10_000.0_f32);
    if shape.head.is_some() {
        writer.set(&name("attention.key_length"), head as u32);
        writer.set(&name("attention.value_length"), head as u32);
    }

    // One token for each byte, then one control token, then filling.
    let byte_names = (0..=255_u8).map(|byte| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=0x20 => char::from_u32(0x100 + u32::from(byte)).expect("a character"),
        0x7f..=0xa0 => char::from_u32(0x100 + 33 + u32::from(byte - 0x7f)).expect("a character"),
        0xad => '\u{143}',
    });
    let mut tokens: Vec<String> = byte_names.map(String::from).collect();
    tokens.push("<|im_end|>".into());
    tokens.extend((tokens.len()..vocabulary).map(|token| format!("[unused{token}]")));
    let types = (0..vocabulary).map(|token| match token {
        0..256 => 1,
        256 => 3,
        _ => 5,
    });
    writer
        .set("tokenizer.ggml.model", "gpt2")
        .set("tokenizer.ggml.pre", "smollm")
        .set("tokenizer.ggml.tokens", tokens)
        .set("tokenizer.ggml.token_type", types.collect::<Vec<i32>>())
        .set("tokenizer.ggml.merges", Vec::<String>::new());

    let mut matrix = |writer: &mut Writer, name: &str, width: usize, height: usize, gain: f32| {
        let values = noise.values(width * height, 0.0, gain / (width as f32).sqrt());
        writer.tensor(name, &[width, height], kind, &values).expect("the shape fits");
    };
    // Gains that keep the logits spread out, so that top-1 means something.
    matrix(&mut writer, "token_embd.weight", embedding, vocabulary, 12.0);
    for layer in 0..layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        matrix(&mut writer, &name("attn_q"), embedding, heads * head, 1.5);
        matrix(&mut writer, &name("attn_k"), embedding, heads_kv * head, 1.5);
        matrix(&mut writer, &name("attn_v"), embedding, heads_kv * head, 1.0);
        matrix(&mut writer, &name("attn_output"), heads * head, embedding, 1.0);
        matrix(&mut writer, &name("ffn_gate"), embedding, feed_forward, 1.0);
        matrix(&mut writer, &name("ffn_up"), embedding, feed_forward, 1.0);
        matrix(&mut writer, &name("ffn_down"), feed_forward, embedding, 1.0);
    }
    if !shape.tied {
        matrix(&mut writer, "output.weight", embedding, vocabulary, 6.0);
    }
    let mut noise = Noise(seed + 1);
    let mut vector = |writer: &mut Writer, name: &str, len: usize, mean: f32| {
        let values = noise.values(len, mean, if mean == 0.0 { 0.5 } else { 0.1 });
        writer.tensor(name, &[len], TensorType::F32, &values).expect("the shape fits");
    };
    for layer in 0..layers {
        vector(&mut writer, &format!("blk.{layer}.attn_norm.weight"), embedding, 1.0);
        vector(&mut writer, &format!("blk.{layer}.ffn_norm.weight"), embedding, 1.0);
    }
    vector(&mut writer, "output_norm.weight", embedding, 1.0);
    for layer in 0..layers {
        let name = |part: &str| format!("blk.{layer}.{part}");
        if shape.architecture == "qwen3" {
            vector(&mut writer, &name("attn_q_norm.weight"), head, 1.0);
            vector(&mut writer, &name("attn_k_norm.weight"), head, 1.0);
        }
        if shape.biases {
            vector(&mut writer, &name("attn_q.bias"), heads * head, 0.0);
            vector(&mut writer, &name("attn_k.bias"), heads_kv * head, 0.0);
            vector(&mut writer, &name("attn_v.bias"), heads_kv * head, 0.0);
        }
        if shape.more_biases {
            vector(&mut writer, &name("attn_output.bias"), embedding, 0.0);
            vector(&mut writer, &name("ffn_gate.bias"), feed_forward, 0.0);
            vector(&mut writer, &name("ffn_up.bias"), feed_forward, 0.0);
            vector(&mut writer, &name("ffn_down.bias"), embedding, 0.0);
        }
    }
    writer
}

/// The same model with what is stored in its matrices as F32.
pub fn with_f32_matrices(file: &[u8]) -> Vec<u8> {
    as_f32(file, |_, _| {}).finish()
}

/// The same model as F32, with one tensor's elements all the same.
pub fn with_tensor_filled(file: &[u8], filled: &str, value: f32) -> Writer {
    as_f32(file, |name, values| {
        if name == filled {
            values.fill(value);
        }
    })
}

fn as_f32(file: &[u8], change: impl Fn(&str, &mut [f32])) -> Writer {
    let parsed = File::parse(file).expect("a valid file");
    let mut writer = Writer::new();
    for (key, value) in parsed.metadata() {
        writer.set(key, owned(value));
    }
    for (name, tensor) in parsed.tensors() {
        let mut values = tensor.values();
        change(name, &mut values);
        writer.tensor(name, tensor.dimensions(), TensorType::F32, &values).expect("the shape fits");
    }
    writer
}

fn owned(value: gguf::Value<'_>) -> Value {
    match value {
        gguf::Value::Unsigned(value) => Value::U32(value as u32),
        gguf::Value::Bool(value) => Value::Bool(value),
        gguf::Value::Float(value) => Value::F32(value as f32),
        gguf::Value::String(text) => Value::String(text.into()),
        gguf::Value::Array(array) if array.element() == ValueType::I32 => Value::I32s(
            array
                .iter()
                .map(|value| if let gguf::Value::Signed(value) = value { value as i32 } else { 0 })
                .collect(),
        ),
        gguf::Value::Array(array) => Value::Strings(
            array
                .iter()
                .map(|value| if let gguf::Value::String(text) = value { text.into() } else { String::new() })
                .collect(),
        ),
        other => panic!("{other:?} is not in these models"),
    }
}
