//! The training loop: batches of samples laid end to end, AdamW, a cosine schedule, one shard a thread.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::bpe::Vocabulary;
use crate::dataset::{Difficulty, Generator, Split, Texts};
use crate::net::circuit;
use crate::net::decoder::{Decoder, Shape};
use crate::net::ops::CrossEntropy;
use crate::prompt::{Encoded, encode};

/// What a training run is told.
#[derive(clap::Args, Clone)]
pub struct Options {
    /// Seed of the weights and of the samples.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Optimiser steps.
    #[arg(long, default_value_t = 6000)]
    pub steps: usize,
    /// Tokens in one step.
    #[arg(long, default_value_t = 4096)]
    pub batch_tokens: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = 3e-3)]
    pub learning_rate: f64,
    /// Threads, each with a shard of the batch.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// The model file.
    #[arg(long, default_value = "models/cloister-mini.gguf")]
    pub output: PathBuf,
    /// Where the weights are saved now and then.
    #[arg(long, default_value = "target/models/checkpoint.safetensors")]
    pub checkpoint: PathBuf,
}

/// Tokens in the vocabulary.
const VOCABULARY: usize = 2048;
/// Steps in which the learning rate rises.
const WARM_UP: usize = 100;
/// The gradient's greatest norm.
const CLIP: f64 = 1.0;

/// The vocabulary that belongs to a seed.
pub fn vocabulary(texts: &Texts, seed: u64) -> Vocabulary {
    let mut generator = texts.generator(Split::Vocabulary, seed);
    let mut corpus = vec!["system\n".to_owned(), "user\n".into(), "assistant\n".into()];
    for _ in 0..12_000 {
        let sample = generator.sample(Difficulty::FULL);
        corpus.push(sample.task.instruction().into());
        corpus.push(sample.answer_text());
        corpus.extend(crate::prompt::rendered(&sample));
    }
    Vocabulary::train(corpus.iter().map(String::as_str), VOCABULARY)
}

/// A row of sequences with the positions whose next token counts.
struct Shard {
    tokens: Vec<u32>,
    sequences: Arc<[Range<usize>]>,
    wanted: Vec<u32>,
    targets: Vec<u32>,
}

impl Shard {
    fn new(samples: &[&Encoded]) -> Self {
        let mut shard = Self { tokens: vec![], sequences: Arc::new([]), wanted: vec![], targets: vec![] };
        let mut sequences = Vec::new();
        for sample in samples {
            let start = shard.tokens.len();
            // The last token predicts nothing.
            let used = sample.tokens.len() - 1;
            shard.tokens.extend(&sample.tokens[..used]);
            sequences.push(start..start + used);
            for position in sample.answer.clone() {
                shard.wanted.push((start + position - 1) as u32);
                shard.targets.push(sample.tokens[position]);
            }
        }
        shard.sequences = sequences.into();
        shard
    }

    fn loss(&self, decoder: &Decoder, weight: f32) -> candle_core::Result<Tensor> {
        let logits = decoder.logits(&self.tokens, self.sequences.clone(), &self.wanted)?;
        logits.apply_op1(CrossEntropy { targets: self.targets.clone(), weight })
    }
}

/// Samples that fill a batch, dealt out to the threads.
fn batch(
    generator: &mut Generator<'_>,
    difficulty: Difficulty,
    vocabulary: &Vocabulary,
    tokens: usize,
) -> Vec<Encoded> {
    let mut samples = Vec::new();
    let mut total = 0;
    while total < tokens {
        let sample = encode(&generator.sample(difficulty), vocabulary);
        total += sample.tokens.len();
        samples.push(sample);
    }
    samples
}

fn shards(samples: &[Encoded], threads: usize) -> Vec<Shard> {
    let mut dealt: Vec<(usize, Vec<&Encoded>)> = vec![(0, Vec::new()); threads];
    for sample in samples {
        if let Some(lightest) = dealt.iter_mut().min_by_key(|(tokens, _)| *tokens) {
            lightest.0 += sample.tokens.len();
            lightest.1.push(sample);
        }
    }
    dealt.iter().map(|(_, samples)| Shard::new(samples)).collect()
}

/// The loss and the gradients of all shards together, the gradients' norm clipped.
fn gradients(decoder: &Decoder, vars: &[Var], shards: &[Shard]) -> Result<(f32, GradStore)> {
    let count: usize = shards.iter().map(|shard| shard.targets.len()).sum();
    let weight = 1.0 / count as f32;
    let results: Vec<candle_core::Result<(f32, GradStore)>> = std::thread::scope(|scope| {
        let run = |shard| {
            scope.spawn(move || {
                let loss = Shard::loss(shard, decoder, weight)?;
                Ok((loss.to_scalar::<f32>()?, loss.backward()?))
            })
        };
        let workers: Vec<_> = shards.iter().map(run).collect();
        workers.into_iter().map(|worker| worker.join().expect("a training thread panicked")).collect()
    });
    let mut results = results.into_iter().collect::<candle_core::Result<Vec<_>>>()?;
    let (mut loss, mut total) = results.pop().context("no shards")?;
    for (other_loss, other) in &results {
        loss += other_loss;
        for var in vars {
            if let (Some(a), Some(b)) = (total.get(var), other.get(var)) {
                let sum = (a + b)?;
                total.insert(var, sum);
            }
        }
    }
    let mut square = 0.0;
    for gradient in vars.iter().filter_map(|var| total.get(var)) {
        square += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
    }
    if square.sqrt() > CLIP {
        for var in vars {
            if let Some(gradient) = total.get(var) {
                let clipped = (gradient * (CLIP / square.sqrt()))?;
                total.insert(var, clipped);
            }
        }
    }
    Ok((loss, total))
}

/// The share of answer tokens and of whole slots that the decoder would have continued rightly.
fn accuracy(decoder: &Decoder, samples: &[Encoded]) -> Result<(f64, f64)> {
    let (mut tokens, mut right_tokens, mut slots, mut right_slots) = (0, 0, 0, 0);
    for group in samples.chunks(16) {
        let shard = Shard::new(&group.iter().collect::<Vec<_>>());
        let logits = decoder.logits(&shard.tokens, shard.sequences.clone(), &shard.wanted)?;
        let best: Vec<u32> = logits.argmax(1)?.to_vec1()?;
        let right: Vec<bool> = best.iter().zip(&shard.targets).map(|(a, b)| a == b).collect();
        tokens += right.len();
        right_tokens += right.iter().filter(|&&r| r).count();
        let mut offset = 0;
        for sample in group {
            for slot in &sample.slots {
                let range =
                    slot.start - sample.answer.start + offset..slot.end - sample.answer.start + offset;
                slots += 1;
                right_slots += usize::from(right[range].iter().all(|&r| r));
            }
            offset += sample.answer.len();
        }
    }
    Ok((right_tokens as f64 / tokens as f64, right_slots as f64 / slots as f64))
}

/// Short chats first: the circuits that copy form sooner there.
fn difficulty(progress: f64) -> Difficulty {
    match progress {
        p if p < 0.1 => Difficulty { units: 1, small_talk: 0.1, rewrites: 0.4 },
        p if p < 0.25 => Difficulty { units: 2, small_talk: 0.2, rewrites: 0.2 },
        p if p < 0.4 => Difficulty { units: 3, small_talk: 0.25, rewrites: 0.1 },
        _ => Difficulty::FULL,
    }
}

fn learning_rate(options: &Options, step: usize) -> f64 {
    let warm = (step + 1) as f64 / WARM_UP as f64;
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / options.steps as f64).cos());
    options.learning_rate * warm.min(0.02 + 0.98 * cosine)
}

/// Trains a decoder and saves it on the way.
pub fn train(options: &Options) -> Result<()> {
    let texts = Texts::load()?;
    let vocabulary = vocabulary(&texts, options.seed);
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let decoder = Decoder::new(Shape::mini(vocabulary.len()), &mut random)?;
    circuit::install(&decoder)?;
    let vars: Vec<Var> = decoder.weights().into_iter().map(|(_, var)| var.clone()).collect();
    let parameters: usize = vars.iter().map(|var| var.elem_count()).sum();
    println!("{parameters} parameters, {} tokens in the vocabulary", vocabulary.len());
    let settings = ParamsAdamW { lr: 0.0, beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay: 0.02 };
    let mut optimiser = AdamW::new(vars.clone(), settings)?;
    let mut generator = texts.generator(Split::Train, options.seed);
    let mut judge = texts.generator(Split::HeldOut, options.seed);
    let held_out: Vec<Encoded> =
        (0..96).map(|_| encode(&judge.summary(Difficulty::FULL), &vocabulary)).collect();

    let bar = ProgressBar::new(options.steps as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}, {eta} left")?);
    let started = Instant::now();
    let (mut seen, mut smooth) = (0usize, 0f32);
    for step in 0..options.steps {
        let progress = step as f64 / options.steps as f64;
        let samples = batch(&mut generator, difficulty(progress), &vocabulary, options.batch_tokens);
        seen += samples.iter().map(|sample| sample.tokens.len()).sum::<usize>();
        let (loss, gradients) = gradients(&decoder, &vars, &shards(&samples, options.threads))?;
        optimiser.set_learning_rate(learning_rate(options, step));
        optimiser.step(&gradients)?;
        smooth = if step == 0 { loss } else { smooth * 0.95 + loss * 0.05 };
        bar.inc(1);
        bar.set_message(format!("loss {smooth:.3}"));
        if (step + 1) % 20 == 0 {
            let speed = seen as f64 / started.elapsed().as_secs_f64();
            log(&bar, format!("step {}: loss {smooth:.4}, {seen} tokens, {speed:.0} tokens/s", step + 1));
        }
        if (step + 1) % 200 == 0 || step + 1 == options.steps {
            let (tokens, slots) = accuracy(&decoder, &held_out)?;
            log(
                &bar,
                format!("held out: {:.1} % of tokens, {:.1} % of facts", tokens * 100.0, slots * 100.0),
            );
            save(&decoder, options)?;
        }
    }
    bar.finish();
    println!("{seen} tokens in {:.0} s", started.elapsed().as_secs_f64());
    export(&decoder, &vocabulary, &options.output)
}

/// Exports a checkpoint of a run that still goes on.
pub fn export_checkpoint(options: &Options) -> Result<()> {
    let vocabulary = vocabulary(&Texts::load()?, options.seed);
    let decoder = Decoder::new(Shape::mini(vocabulary.len()), &mut ChaCha8Rng::seed_from_u64(options.seed))?;
    let saved = candle_core::safetensors::load(&options.checkpoint, &Device::Cpu)?;
    for (name, var) in decoder.weights() {
        var.set(saved.get(&name).with_context(|| format!("the checkpoint has no weight '{name}'"))?)?;
    }
    export(&decoder, &vocabulary, &options.output)
}

fn export(decoder: &Decoder, vocabulary: &Vocabulary, path: &Path) -> Result<()> {
    let file = crate::export::gguf(decoder, vocabulary)?;
    std::fs::write(path, &file).with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{}: {} bytes", path.display(), file.len());
    Ok(())
}

/// A line above the progress bar, or on standard output where there is no terminal.
fn log(bar: &ProgressBar, line: String) {
    if bar.is_hidden() { println!("{line}") } else { bar.println(line) }
}

fn save(decoder: &Decoder, options: &Options) -> Result<()> {
    if let Some(folder) = options.checkpoint.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let tensors = decoder.weights().into_iter().map(|(name, var)| (name, var.as_tensor().clone())).collect();
    let partial = options.checkpoint.with_extension("partial");
    candle_core::safetensors::save(&tensors, &partial)?;
    std::fs::rename(&partial, &options.checkpoint).context("the checkpoint cannot be saved")
}
