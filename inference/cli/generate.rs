//! `cloister-engine generate`.
use crate::load::{self, ModelArguments};
use anyhow::{Context, Result, ensure};
use inference::gguf::File;
use inference::{FinishReason, Generation, Limits, OutputKind, Sampling, Scheduler};
use std::io::{Read, Write};
use std::time::Instant;

const DEFAULT_CONTEXT: usize = 8192;

/// Continues a text with a model.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// The text to continue; from standard input if not given.
    #[arg(long, short)]
    prompt: Option<String>,
    /// Put the text into a ChatML turn (`<|im_start|>user`), as SmolLM2 and Qwen were trained with.
    #[arg(long)]
    chat: bool,
    /// The most tokens to generate.
    #[arg(long, short = 'n', default_value_t = 128)]
    max_tokens: u32,
    /// Tokens of prompt and answer together; if not given, as many as needed, but at most 8192 or the prompt.
    #[arg(long)]
    context: Option<usize>,
    /// 0 takes the likeliest token each time.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Keep the likeliest tokens that together have this probability.
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Keep so many of the likeliest tokens; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// Keep tokens with at least this share of the likeliest one's probability.
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    /// Divides positive logits, and multiplies negative ones, of the last 64 tokens.
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// The same seed gives the same choices.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Do not guess ahead from repetitions of the text.
    #[arg(long)]
    no_speculation: bool,
    /// Print the tokens, the text and figures as JSON at the end.
    #[arg(long)]
    json: bool,
}

/// Generates and prints.
pub fn run(arguments: &Arguments) -> Result<()> {
    let text = match &arguments.prompt {
        Some(text) => text.clone(),
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input as UTF-8")?;
            text
        }
    };
    let sampling = Sampling {
        temperature: arguments.temperature,
        top_p: arguments.top_p,
        top_k: arguments.top_k,
        min_p: arguments.min_p,
        repetition_penalty: arguments.repetition_penalty,
        seed: arguments.seed,
    };
    sampling.check()?;
    let threads = arguments.model.start_threads()?;
    let file = arguments.model.open()?;
    let (mut stop, begin) = {
        let gguf = File::parse(file.bytes())?;
        let ends = ["eos_token_id", "eot_token_id"].iter().filter_map(|key| load::named_token(&gguf, key));
        (ends.collect::<Vec<u32>>(), load::begin_token(&gguf))
    };
    let model = arguments.model.load(file, &threads)?;
    let tokenizer = model.tokenizer();
    let mut prompt = Vec::new();
    for name in ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>"] {
        stop.extend(tokenizer.control(name));
    }
    if arguments.chat {
        let control =
            |name| tokenizer.control(name).with_context(|| format!("the model has no token {name}"));
        let (open, close) = (control("<|im_start|>")?, control("<|im_end|>")?);
        prompt.push(open);
        prompt.extend(tokenizer.encode("user\n"));
        prompt.extend(tokenizer.encode(&text));
        prompt.push(close);
        prompt.extend(tokenizer.encode("\n"));
        prompt.push(open);
        prompt.extend(tokenizer.encode("assistant\n"));
    } else {
        prompt.extend(begin);
        prompt.extend(tokenizer.encode(&text));
    }
    ensure!(!prompt.is_empty(), "the prompt is empty");
    // The place for all of them is taken at once, so a large number that is not meant costs memory.
    let needed =
        prompt.len().saturating_add(arguments.max_tokens as usize).min(DEFAULT_CONTEXT.max(prompt.len()));
    let context_tokens = arguments.context.unwrap_or(needed.min(model.config().context_length));
    let limits = Limits {
        context_tokens,
        sessions: 1,
        prefill_chunk: 256.min(context_tokens),
        speculation: if arguments.no_speculation { 0 } else { Limits::SPECULATION },
    };
    let mut scheduler = Scheduler::new(&model, limits, threads)?;
    let prompt_tokens = prompt.len();
    scheduler.submit(Generation { prompt, max_tokens: arguments.max_tokens, stop, sampling })?;
    let (mut outputs, mut tokens, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    let (start, mut first, mut reason) = (Instant::now(), None, FinishReason::Length);
    while !scheduler.is_idle() {
        scheduler.step(&mut outputs);
        for output in outputs.drain(..) {
            match output.kind {
                OutputKind::Token(token) => {
                    first.get_or_insert_with(|| start.elapsed());
                    tokens.push(token);
                    bytes.extend_from_slice(tokenizer.decode(token));
                    if !arguments.json {
                        std::io::stdout().write_all(tokenizer.decode(token))?;
                    }
                }
                OutputKind::Finished(why) => reason = why,
            }
        }
        std::io::stdout().flush()?;
    }
    let (total, first) = (start.elapsed().as_secs_f64(), first.map_or(0.0, |first| first.as_secs_f64()));
    let decoded = tokens.len().saturating_sub(1) as f64;
    let rate = if total > first { decoded / (total - first) } else { 0.0 };
    if arguments.json {
        let value = serde_json::json!({
            "prompt_tokens": prompt_tokens,
            "tokens": tokens,
            "text": String::from_utf8_lossy(&bytes),
            "finish_reason": format!("{reason:?}").to_lowercase(),
            "seconds_to_first_token": first,
            "tokens_per_second": rate,
        });
        println!("{value}");
    } else {
        eprintln!("\n[{prompt_tokens} tokens read in {first:.2} s, {rate:.1} tokens/s after]");
    }
    Ok(())
}
