//! The shapes: those of published models, taken from their configurations on Hugging Face.
use clap::ValueEnum;

/// A published model whose shape is imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// A few hundred kilobytes, for tests.
    #[value(name = "tiny")]
    Tiny,
    /// SmolLM2-135M: rows of 576 and 1536.
    #[value(name = "smollm2-135m")]
    SmolLm2,
    /// Qwen2.5-0.5B: biases, rows of 896 and 4864.
    #[value(name = "qwen2.5-0.5b")]
    Qwen25,
    /// Qwen3-0.6B: norms of queries and keys, heads of 128.
    #[value(name = "qwen3-0.6b")]
    Qwen3,
    /// Llama-3.2-1B: RoPE scaling.
    #[value(name = "llama-3.2-1b")]
    Llama32,
}

/// What a shape consists of.
#[derive(Clone, Copy)]
pub struct Dimensions {
    pub name: &'static str,
    pub architecture: &'static str,
    /// `tokenizer.ggml.pre`.
    pub pre_tokenizer: &'static str,
    pub vocabulary: usize,
    pub context: u32,
    pub embedding: usize,
    pub layers: usize,
    pub feed_forward: usize,
    pub heads: usize,
    pub heads_kv: usize,
    pub head: usize,
    pub rope_base: f32,
    pub epsilon: f32,
    /// Whether queries, keys and values have biases.
    pub biases: bool,
    /// Whether queries and keys have norms.
    pub head_norms: bool,
    /// What Llama 3 divides low frequencies by.
    pub rope_factor: Option<f64>,
    /// The tokens that open, close and end a chat's turns: the first begins a text, the last two end one.
    pub control: [&'static str; 4],
}

const CHATML: [&str; 4] = ["<|endoftext|>", "<|im_start|>", "<|endoftext_2|>", "<|im_end|>"];

impl Shape {
    /// The dimensions.
    pub fn dimensions(self) -> Dimensions {
        let smollm = Dimensions {
            name: "SmolLM2-135M",
            architecture: "llama",
            pre_tokenizer: "smollm",
            vocabulary: 49_152,
            context: 8192,
            embedding: 576,
            layers: 30,
            feed_forward: 1536,
            heads: 9,
            heads_kv: 3,
            head: 64,
            rope_base: 100_000.0,
            epsilon: 1e-5,
            biases: false,
            head_norms: false,
            rope_factor: None,
            control: CHATML,
        };
        let qwen = Dimensions {
            name: "Qwen2.5-0.5B",
            architecture: "qwen2",
            pre_tokenizer: "qwen2",
            vocabulary: 151_936,
            context: 32_768,
            embedding: 896,
            layers: 24,
            feed_forward: 4864,
            heads: 14,
            heads_kv: 2,
            rope_base: 1e6,
            epsilon: 1e-6,
            biases: true,
            ..smollm
        };
        match self {
            Self::Tiny => Dimensions {
                name: "tiny",
                vocabulary: 1024,
                context: 512,
                embedding: 256,
                layers: 2,
                feed_forward: 512,
                heads: 8,
                heads_kv: 2,
                head: 32,
                ..smollm
            },
            Self::SmolLm2 => smollm,
            Self::Qwen25 => qwen,
            Self::Qwen3 => Dimensions {
                name: "Qwen3-0.6B",
                architecture: "qwen3",
                context: 40_960,
                embedding: 1024,
                layers: 28,
                feed_forward: 3072,
                heads: 16,
                heads_kv: 8,
                head: 128,
                biases: false,
                head_norms: true,
                ..qwen
            },
            Self::Llama32 => Dimensions {
                name: "Llama-3.2-1B",
                pre_tokenizer: "llama-bpe",
                vocabulary: 128_256,
                context: 131_072,
                embedding: 2048,
                layers: 16,
                feed_forward: 8192,
                heads: 32,
                heads_kv: 8,
                rope_base: 500_000.0,
                rope_factor: Some(32.0),
                control: ["<|begin_of_text|>", "<|start_header_id|>", "<|end_of_text|>", "<|eot_id|>"],
                ..smollm
            },
        }
    }
}
