//! A real Llama-architecture GGUF whose answer is known: after each token it says the next one of a fixed chain.
//!
//! Attention and feed-forward weights are zero, so the last hidden state is the normalised embedding of the last
//! token, and the output row of a token is the embedding of its predecessor in the chain.

use attestation::manifest::{
    ChatTemplate, DeviceSlot, Limits, Machine, Manifest, ModelIdentity, Network, TaskPrompt,
};
use inference::Tokenizer;
use inference::gguf::TensorType;
use inference::gguf::write::Writer;

/// What the model answers, whatever it is asked. No byte twice, one code point of two tokens, and no run of 16 bytes
/// that a vocabulary holds by itself.
pub const ANSWER: &str = "QWERTYUIOPASDFGHJKLZXCVBNM mnbvcxzé";
pub const CONTEXT: u32 = 1024;

pub const END_OF_TEXT: u32 = 256;
pub const IM_START: u32 = 257;
pub const IM_END: u32 = 258;
const VOCABULARY: usize = 259;
const WIDTH: usize = 128;

/// How the answer ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a stop token after [`ANSWER`].
    Stops,
    /// Never: the answer begins again.
    Endless,
}

/// The model file.
pub fn gguf(ending: Ending) -> Vec<u8> {
    let mut noise = 1u64;
    let mut coin = || {
        noise = noise.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        if noise >> 63 == 0 { 1.0 } else { -1.0 }
    };
    let embedding: Vec<f32> = (0..VOCABULARY * WIDTH).map(|_| coin()).collect();
    let row = |token: usize| &embedding[token * WIDTH..(token + 1) * WIDTH];

    // Every answer begins after "assistant\n".
    let mut output = vec![0.0; VOCABULARY * WIDTH];
    let mut before = usize::from(b'\n');
    let first = usize::from(ANSWER.as_bytes()[0]);
    let last = match ending {
        Ending::Stops => IM_END as usize,
        Ending::Endless => first,
    };
    for token in ANSWER.bytes().map(usize::from).chain([last]) {
        for (to, from) in output[token * WIDTH..(token + 1) * WIDTH].iter_mut().zip(row(before)) {
            *to += from;
        }
        before = token;
    }

    let mut writer = Writer::new();
    writer
        .set("general.architecture", "llama")
        .set("llama.context_length", CONTEXT)
        .set("llama.embedding_length", WIDTH as u32)
        .set("llama.block_count", 1u32)
        .set("llama.feed_forward_length", WIDTH as u32)
        .set("llama.attention.head_count", 4u32)
        .set("llama.attention.head_count_kv", 2u32)
        .set("llama.attention.layer_norm_rms_epsilon", 1e-5f32)
        .set("llama.rope.dimension_count", 32u32)
        .set("llama.rope.freq_base", 10_000f32)
        .set("tokenizer.ggml.model", "gpt2")
        .set("tokenizer.ggml.pre", "smollm")
        .set("tokenizer.ggml.merges", Vec::<String>::new());
    let bytes = (0..=255u8).map(|byte| byte_name(byte).to_string());
    let controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from);
    writer.set("tokenizer.ggml.tokens", bytes.chain(controls).collect::<Vec<_>>());
    let types = (0..VOCABULARY).map(|token| if token < 256 { 1 } else { 3 });
    writer.set("tokenizer.ggml.token_type", types.collect::<Vec<i32>>());

    let mut tensor = |name: &str, dimensions: &[usize], values: &[f32]| {
        writer.tensor(name, dimensions, TensorType::F32, values).expect("the shape fits");
    };
    let (zeros, ones) = (vec![0.0; WIDTH * WIDTH], vec![1.0; WIDTH]);
    tensor("token_embd.weight", &[WIDTH, VOCABULARY], &embedding);
    tensor("output.weight", &[WIDTH, VOCABULARY], &output);
    tensor("output_norm.weight", &[WIDTH], &ones);
    for norm in ["attn_norm", "ffn_norm"] {
        tensor(&format!("blk.0.{norm}.weight"), &[WIDTH], &ones);
    }
    for (matrix, height) in [
        ("attn_q", WIDTH),
        ("attn_k", WIDTH / 2),
        ("attn_v", WIDTH / 2),
        ("attn_output", WIDTH),
        ("ffn_gate", WIDTH),
        ("ffn_up", WIDTH),
        ("ffn_down", WIDTH),
    ] {
        tensor(&format!("blk.0.{matrix}.weight"), &[WIDTH, height], &zeros[..WIDTH * height]);
    }
    writer.finish()
}

/// GPT-2's printable stand-in for a byte.
fn byte_name(byte: u8) -> char {
    match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        _ => {
            let before = (0..byte).filter(|b| !matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)).count();
            char::from_u32(0x100 + before as u32).expect("below the surrogates")
        }
    }
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn open(role: &str) -> Vec<u32> {
    [vec![IM_START], bytes(role), bytes("\n")].concat()
}

/// A manifest for a model with ChatML's control tokens, or `None` if it has others.
pub fn chatml_manifest(tokenizer: &Tokenizer) -> Option<Manifest> {
    let start = tokenizer.control("<|im_start|>")?;
    let end = tokenizer.control("<|im_end|>")?;
    let open = |role: &str| [vec![start], tokenizer.encode(&format!("{role}\n"))].concat();
    let mut manifest = manifest();
    manifest.model.name = "local".into();
    // As in models/manifest.toml.
    (manifest.limits.pace_ms, manifest.limits.answer_records) = (50, 40);
    manifest.limits.output_tokens = 256;
    let stop = [Some(end), tokenizer.control("<|endoftext|>")].into_iter().flatten().collect();
    manifest.template = ChatTemplate::from_turns(
        &[],
        [&open("system"), &open("user"), &open("assistant")],
        &[vec![end], tokenizer.encode("\n")].concat(),
        stop,
    );
    for task in &mut manifest.tasks {
        if task.task == "summarize" {
            task.instruction = tokenizer.encode("Summarize the chat.");
        }
    }
    Some(manifest)
}

/// A manifest for the model.
pub fn manifest() -> Manifest {
    Manifest {
        image: "cloister".into(),
        version: "0.1.0".into(),
        model: ModelIdentity { name: "chain".into(), weights_bytes: 1, weights_root: [1; 48] },
        template: ChatTemplate::from_turns(
            &[],
            [&open("system"), &open("user"), &open("assistant")],
            &[vec![IM_END], bytes("\n")].concat(),
            vec![IM_END, END_OF_TEXT],
        ),
        tasks: vec![
            TaskPrompt { task: "summarize".into(), instruction: bytes("Summarize the chat.") },
            TaskPrompt { task: "chat".into(), instruction: vec![] },
        ],
        limits: Limits {
            context_tokens: CONTEXT,
            output_tokens: 128,
            sessions: 4,
            connections: 8,
            request_bytes: 16 * 1024,
            idle_ms: 30_000,
            pace_ms: 20,
            answer_records: 8,
        },
        machine: Machine {
            memory_mib: 1024,
            vcpus: 1,
            network: DeviceSlot { device: 4, bar: 0xc000_0000 },
            weights: DeviceSlot { device: 5, bar: 0xc010_0000 },
        },
        network: Network { address: [10, 0, 2, 15], prefix: 24, gateway: [10, 0, 2, 2], port: 443 },
    }
}
