//! Models of true shape with seeded random weights, for machines on which no weights can be downloaded.
//!
//! The file is written as it is made, so that its size does not have to fit in memory.
mod blocks;
mod shapes;
mod vocabulary;

pub use blocks::FileType;
pub use shapes::Shape;

use anyhow::{Context, Result, ensure};
use blocks::{Kind, Role};
use shapes::Dimensions;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

const ALIGNMENT: u64 = 32;

/// Writes a GGUF file of a published model's shape with random weights.
#[derive(clap::Args)]
pub struct Arguments {
    /// The model whose shape it has.
    #[arg(long)]
    shape: Shape,
    /// What the matrices are stored as; mixtures as llama-quantize makes them.
    #[arg(long = "type")]
    kind: FileType,
    /// The same seed gives the same bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the file goes.
    #[arg(long)]
    out: PathBuf,
}

/// Makes the file.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { shape, kind, seed, out } = arguments;
    let make = || -> Result<u64> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(out)?);
        write(&mut file, &shape.dimensions(), *kind, *seed)?;
        Ok(file.into_inner()?.metadata()?.len())
    };
    let bytes = make().with_context(|| format!("cannot write {}", Path::display(out)))?;
    eprintln!("wrote {} ({bytes} bytes)", out.display());
    Ok(())
}

/// A tensor to be written.
struct Tensor {
    name: String,
    dimensions: Vec<usize>,
    kind: Kind,
    contents: Contents,
}

enum Contents {
    /// Around zero with this deviation.
    Random(f32),
    /// Around one: a norm.
    Norm,
    Values(Vec<f32>),
}

impl Tensor {
    fn bytes(&self) -> u64 {
        let (elements, bytes) = self.kind.block();
        (self.dimensions.iter().product::<usize>() / elements * bytes) as u64
    }
}

fn write(out: &mut impl Write, shape: &Dimensions, file_type: FileType, seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let tensors = tensors(shape, file_type);
    let mut header = Header::default();
    metadata(&mut header, shape, file_type, &mut random);
    out.write_all(b"GGUF")?;
    out.write_all(&3_u32.to_le_bytes())?;
    out.write_all(&(tensors.len() as u64).to_le_bytes())?;
    out.write_all(&header.count.to_le_bytes())?;
    let mut offset = 0;
    for tensor in &tensors {
        header.text(&tensor.name);
        header.bytes.extend((tensor.dimensions.len() as u32).to_le_bytes());
        tensor.dimensions.iter().for_each(|len| header.bytes.extend((*len as u64).to_le_bytes()));
        header.bytes.extend((tensor.kind as u32).to_le_bytes());
        header.bytes.extend(u64::to_le_bytes(offset));
        offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
    }
    out.write_all(&header.bytes)?;
    let written = 24 + header.bytes.len() as u64;
    out.write_all(&vec![0; (written.next_multiple_of(ALIGNMENT) - written) as usize])?;
    let progress = indicatif::ProgressBar::new(offset);
    let mut row = Vec::new();
    for tensor in &tensors {
        let width = tensor.dimensions[0];
        for _ in 0..tensor.dimensions.iter().skip(1).product() {
            row.clear();
            match &tensor.contents {
                Contents::Random(deviation) => tensor.kind.fill(width, *deviation, &mut random, &mut row),
                Contents::Norm => {
                    row.extend((0..width).flat_map(|_| (1.0 + 0.1 * random.normal()).to_le_bytes()));
                }
                Contents::Values(values) => row.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            }
            out.write_all(&row)?;
            progress.inc(row.len() as u64);
        }
        let padding = tensor.bytes().next_multiple_of(ALIGNMENT) - tensor.bytes();
        out.write_all(&vec![0; padding as usize])?;
    }
    progress.finish_and_clear();
    ensure!(header.count > 0);
    Ok(())
}

/// Gains that keep states and logits in the range of trained models.
fn tensors(shape: &Dimensions, file_type: FileType) -> Vec<Tensor> {
    let mut all = Vec::new();
    let mut matrix = |name: String, width: usize, height: usize, role, layer, gain: f32| {
        let kind = file_type.kind(role, layer, shape.layers, width);
        let contents = Contents::Random(gain / (width as f32).sqrt());
        all.push(Tensor { name, dimensions: vec![width, height], kind, contents });
    };
    let (embedding, query, key) = (shape.embedding, shape.heads * shape.head, shape.heads_kv * shape.head);
    matrix("token_embd.weight".into(), embedding, shape.vocabulary, Role::Output, 0, 12.0);
    for layer in 0..shape.layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        matrix(name("attn_q"), embedding, query, Role::Other, layer, 1.5);
        matrix(name("attn_k"), embedding, key, Role::Other, layer, 1.5);
        matrix(name("attn_v"), embedding, key, Role::Value, layer, 1.0);
        matrix(name("attn_output"), query, embedding, Role::AttentionOutput, layer, 1.0);
        matrix(name("ffn_gate"), embedding, shape.feed_forward, Role::Other, layer, 1.0);
        matrix(name("ffn_up"), embedding, shape.feed_forward, Role::Other, layer, 1.0);
        matrix(name("ffn_down"), shape.feed_forward, embedding, Role::Down, layer, 1.0);
    }
    let mut vector = |name: String, len, contents| {
        all.push(Tensor { name, dimensions: vec![len], kind: Kind::F32, contents });
    };
    for layer in 0..shape.layers {
        vector(format!("blk.{layer}.attn_norm.weight"), embedding, Contents::Norm);
        vector(format!("blk.{layer}.ffn_norm.weight"), embedding, Contents::Norm);
        if shape.biases {
            for (part, len) in [("q", query), ("k", key), ("v", key)] {
                vector(format!("blk.{layer}.attn_{part}.bias"), len, Contents::Random(0.3));
            }
        }
        if shape.head_norms {
            for part in ["q", "k"] {
                vector(format!("blk.{layer}.attn_{part}_norm.weight"), shape.head, Contents::Norm);
            }
        }
    }
    vector("output_norm.weight".into(), embedding, Contents::Norm);
    if let Some(factor) = shape.rope_factor {
        let factors = llama3_rope_factors(shape, factor);
        vector("rope_freqs.weight".into(), shape.head / 2, Contents::Values(factors));
    }
    all
}

/// What Llama 3.1 and later divide each frequency by (`rope_scaling` of type `llama3`: `low_freq_factor` 1,
/// `high_freq_factor` 4, `original_max_position_embeddings` 8192).
fn llama3_rope_factors(shape: &Dimensions, factor: f64) -> Vec<f32> {
    let (low, high, original) = (1.0, 4.0, 8192.0);
    let pairs = shape.head / 2;
    let factors = (0..pairs).map(|pair| {
        let frequency = f64::from(shape.rope_base).powf(-(pair as f64) / pairs as f64);
        let wavelength = 2.0 * std::f64::consts::PI / frequency;
        if wavelength < original / high {
            1.0
        } else if wavelength > original / low {
            factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    });
    factors.map(|factor| factor as f32).collect()
}

fn metadata(header: &mut Header, shape: &Dimensions, file_type: FileType, random: &mut Random) {
    let words = vocabulary::make(shape.vocabulary, &shape.control, random);
    let control = |index: usize| (shape.vocabulary - shape.control.len() + index) as u32;
    header.string("general.architecture", shape.architecture);
    header.string("general.name", &format!("{} (random weights)", shape.name));
    header.u32("general.file_type", file_type.id());
    header.u32("general.quantization_version", 2);
    let key = |key: &str| format!("{}.{key}", shape.architecture);
    header.u32(&key("context_length"), shape.context);
    header.u32(&key("embedding_length"), shape.embedding as u32);
    header.u32(&key("block_count"), shape.layers as u32);
    header.u32(&key("feed_forward_length"), shape.feed_forward as u32);
    header.u32(&key("attention.head_count"), shape.heads as u32);
    header.u32(&key("attention.head_count_kv"), shape.heads_kv as u32);
    header.u32(&key("attention.key_length"), shape.head as u32);
    header.u32(&key("attention.value_length"), shape.head as u32);
    header.f32(&key("attention.layer_norm_rms_epsilon"), shape.epsilon);
    header.f32(&key("rope.freq_base"), shape.rope_base);
    if shape.architecture == "llama" {
        header.u32(&key("rope.dimension_count"), shape.head as u32);
        header.u32(&key("vocab_size"), shape.vocabulary as u32);
    }
    header.string("tokenizer.ggml.model", "gpt2");
    header.string("tokenizer.ggml.pre", shape.pre_tokenizer);
    header.strings("tokenizer.ggml.tokens", &words.tokens);
    header.i32s("tokenizer.ggml.token_type", &words.types);
    header.strings("tokenizer.ggml.merges", &words.merges);
    header.u32("tokenizer.ggml.bos_token_id", control(0));
    header.u32("tokenizer.ggml.eos_token_id", control(3));
    header.key("tokenizer.ggml.add_bos_token", 7);
    header.bytes.push(u8::from(shape.pre_tokenizer == "llama-bpe"));
}

/// The metadata of a GGUF file (version 3): <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
#[derive(Default)]
struct Header {
    bytes: Vec<u8>,
    count: u64,
}

impl Header {
    fn text(&mut self, text: &str) {
        self.bytes.extend((text.len() as u64).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    fn key(&mut self, key: &str, value_type: u32) {
        self.count += 1;
        self.text(key);
        self.bytes.extend(value_type.to_le_bytes());
    }

    fn u32(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn f32(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.bytes.extend(value.to_le_bytes());
    }

    fn string(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        self.text(value);
    }

    fn array(&mut self, key: &str, element: u32, len: usize) {
        self.key(key, 9);
        self.bytes.extend(element.to_le_bytes());
        self.bytes.extend((len as u64).to_le_bytes());
    }

    fn strings(&mut self, key: &str, values: &[String]) {
        self.array(key, 8, values.len());
        values.iter().for_each(|value| self.text(value));
    }

    fn i32s(&mut self, key: &str, values: &[i32]) {
        self.array(key, 5, values.len());
        values.iter().for_each(|value| self.bytes.extend(value.to_le_bytes()));
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014), whose every seed is good.
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 24) as f32
    }

    /// Near a normal distribution: the sum of four 16-bit numbers.
    fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: f32 = (0..4).map(|part| (bits >> (16 * part) & 0xffff) as f32).sum();
        (sum / 65_536.0 - 2.0) * 3.0_f32.sqrt()
    }

    fn bytes(&mut self, count: usize, out: &mut Vec<u8>) {
        let end = out.len() + count;
        while out.len() < end {
            out.extend(self.next().to_le_bytes());
        }
        out.truncate(end);
    }

    fn pick<'a>(&mut self, from: &'a [String]) -> &'a str {
        &from[(self.next() % from.len() as u64) as usize]
    }
}
