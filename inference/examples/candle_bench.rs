//! The peer candle, measured as `cloister-engine bench` measures: `candle_bench MODEL PROMPT GENERATE REPETITIONS`
//! prints the tokens per second of prefill and decode, the
//! best of all repetitions, as JSON. `RAYON_NUM_THREADS` sets the threads, and candle uses
//! vector instructions only where it is compiled for them: build with `RUSTFLAGS="-C target-cpu=native"`.
use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Result, Tensor};
use candle_transformers::models::{quantized_llama, quantized_qwen2};
use std::fs::File;
use std::time::{Duration, Instant};

enum Model {
    Llama(quantized_llama::ModelWeights),
    Qwen2(quantized_qwen2::ModelWeights),
}

impl Model {
    fn load(path: &str) -> Result<Self> {
        let mut file = File::open(path)?;
        let content = Content::read(&mut file)?;
        let architecture = content.metadata["general.architecture"].to_string()?.clone();
        Ok(match architecture.as_str() {
            "llama" => {
                Self::Llama(quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?)
            }
            "qwen2" => {
                Self::Qwen2(quantized_qwen2::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?)
            }
            other => candle_core::bail!("no peer for {other}"),
        })
    }

    fn forward(&mut self, tokens: &[u32], position: usize) -> Result<u32> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = match self {
            Self::Llama(model) => model.forward(&input, position)?,
            Self::Qwen2(model) => model.forward(&input, position)?,
        };
        logits.squeeze(0)?.argmax(candle_core::D::Minus1)?.to_scalar()
    }

    fn forget(&mut self) {
        match self {
            Self::Llama(model) => model.clear_kv_cache(),
            Self::Qwen2(model) => model.clear_kv_cache(),
        }
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |index: usize| arguments.get(index).and_then(|number| number.parse::<usize>().ok());
    let (Some(prompt), Some(generate), Some(repetitions)) = (number(2), number(3), number(4)) else {
        candle_core::bail!("usage: candle_bench MODEL PROMPT GENERATE REPETITIONS");
    };
    let mut model = Model::load(&arguments[1])?;
    let tokens: Vec<u32> = (0..prompt as u32).map(|index| index * 7919 % 40_000).collect();
    let rate = |tokens: usize, times: &[Duration]| {
        tokens as f64 / times.iter().min().map_or(f64::NAN, Duration::as_secs_f64)
    };
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for _ in 0..repetitions {
        model.forget();
        let start = Instant::now();
        model.forward(&tokens, 0)?;
        let first = start.elapsed();
        model.forget();
        let mut token = model.forward(&tokens[..1], 0)?;
        let start = Instant::now();
        for position in 1..=generate {
            token = model.forward(&[token], position)?;
        }
        prefill.push(first);
        decode.push(start.elapsed());
    }
    println!("{{\"pp\": {}, \"tg\": {}}}", rate(prompt, &prefill), rate(generate, &decode));
    Ok(())
}
