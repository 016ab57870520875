//! The training loop.
//!
//! Everything in it follows from the options: the first weights, the chats and their order, the learning rate. A
//! run that goes on from a checkpoint first draws the samples that it has already seen, so it does what it would
//! have done without the break.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::Device;
use candle_core::backprop::GradStore;
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::batch::{Shard, accuracy, draw};
use crate::bpe::Vocabulary;
use crate::dataset::{Difficulty, Split, Texts};
use crate::net::circuit;
use crate::net::decoder::{Decoder, Shape};
use crate::optimiser::AdamW;
use crate::prompt::{Encoded, encode, rendered};

/// What a training run is told.
#[derive(clap::Args, Clone)]
pub struct Options {
    /// Seed of the weights and of the samples.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Optimiser steps.
    #[arg(long, default_value_t = 5000)]
    pub steps: usize,
    /// Further steps, after a restart at half the learning rate.
    #[arg(long, default_value_t = 3000)]
    pub further_steps: usize,
    /// Tokens in one step.
    #[arg(long, default_value_t = 2560)]
    pub batch_tokens: usize,
    /// Highest learning rate.
    #[arg(long, default_value_t = 2e-3)]
    pub learning_rate: f64,
    /// Threads, each with a shard of the batch.
    #[arg(long, default_value_t = 2)]
    pub threads: usize,
    /// The model file.
    #[arg(long, default_value = "models/cloister-mini.gguf")]
    pub output: PathBuf,
    /// Where the run's state is saved now and then.
    #[arg(long, default_value = "target/models/checkpoint.safetensors")]
    pub checkpoint: PathBuf,
    /// Go on from the checkpoint.
    #[arg(long)]
    pub resume: bool,
}

/// Tokens in the vocabulary.
const VOCABULARY: usize = 2048;
/// Samples that the vocabulary is made from.
const CORPUS: usize = 12_000;
/// Steps in which the learning rate rises.
const WARM_UP: usize = 100;
/// Steps between two checkpoints.
const CHECKPOINT: usize = 100;

/// The vocabulary that belongs to a seed.
pub fn vocabulary(texts: &Texts, seed: u64) -> Vocabulary {
    let mut generator = texts.generator(Split::Vocabulary, seed);
    let mut corpus = vec!["system\n".to_owned(), "user\n".into(), "assistant\n".into()];
    for _ in 0..CORPUS {
        let sample = generator.sample(Difficulty::FULL);
        corpus.push(sample.task.instruction().into());
        corpus.push(sample.answer_text());
        corpus.extend(rendered(&sample));
    }
    Vocabulary::train(corpus.iter().map(String::as_str), VOCABULARY)
}

/// Short chats and many rewrites first: copying is learned sooner there.
fn difficulty(progress: f64) -> Difficulty {
    match progress {
        p if p < 0.1 => Difficulty { units: 1, small_talk: 0.1, rewrites: 0.4 },
        p if p < 0.25 => Difficulty { units: 2, small_talk: 0.2, rewrites: 0.2 },
        p if p < 0.4 => Difficulty { units: 3, small_talk: 0.25, rewrites: 0.1 },
        _ => Difficulty::FULL,
    }
}

/// Rises over the first steps, then falls along a cosine; twice, with a restart between (Loshchilov and Hutter
/// 2017, "SGDR").
fn learning_rate(options: &Options, step: usize) -> f32 {
    let (step, steps, highest) = match step.checked_sub(options.steps) {
        None => (step, options.steps, options.learning_rate),
        Some(further) => (further, options.further_steps, options.learning_rate / 2.0),
    };
    let rise = (step + 1) as f64 / WARM_UP as f64;
    let cosine = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos());
    (highest * rise.min(0.02 + 0.98 * cosine)) as f32
}

/// The loss over all shards and each shard's gradients.
pub fn gradients(decoder: &Decoder, shards: &[Shard]) -> Result<(f32, Vec<GradStore>)> {
    let weight = 1.0 / shards.iter().map(|shard| shard.targets.len()).sum::<usize>() as f32;
    let run = |shard: &Shard| {
        let loss = shard.loss(decoder, weight)?;
        Ok((loss.to_scalar::<f32>()?, loss.backward()?))
    };
    let results: Vec<candle_core::Result<(f32, GradStore)>> = std::thread::scope(|scope| {
        let workers: Vec<_> = shards.iter().map(|shard| scope.spawn(move || run(shard))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a training thread panicked")).collect()
    });
    let mut total = 0.0;
    let mut stores = Vec::new();
    for result in results {
        let (loss, store) = result?;
        total += loss;
        stores.push(store);
    }
    Ok((total, stores))
}

/// Trains a decoder and writes the model file.
pub fn train(options: &Options) -> Result<()> {
    let texts = Texts::load()?;
    let vocabulary = vocabulary(&texts, options.seed);
    let (decoder, mut optimiser) = start(options, vocabulary.len())?;
    if options.resume {
        load(&mut optimiser, &options.checkpoint)?;
    }
    let mut generator = texts.generator(Split::Train, options.seed);
    let mut next_batch = |step: usize| {
        let difficulty = difficulty(step as f64 / options.steps as f64);
        draw(&mut generator, difficulty, &vocabulary, options.batch_tokens)
    };
    (0..optimiser.steps()).for_each(|step| drop(next_batch(step)));
    let mut judge = texts.generator(Split::HeldOut, options.seed);
    let held_out: Vec<Encoded> =
        (0..96).map(|_| encode(&judge.summary(Difficulty::FULL), &vocabulary)).collect();

    let steps = options.steps + options.further_steps;
    let bar = ProgressBar::new(steps as u64).with_position(optimiser.steps() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}, {eta} left")?);
    let started = Instant::now();
    let (mut seen, mut smooth) = (0, None);
    while optimiser.steps() < steps {
        let step = optimiser.steps();
        if step == options.steps {
            optimiser.forget();
        }
        let samples = next_batch(step);
        seen += samples.iter().map(|sample| sample.tokens.len()).sum::<usize>();
        let (loss, gradients) = gradients(&decoder, &Shard::deal(&samples, options.threads))?;
        optimiser.step(&gradients, learning_rate(options, step))?;
        let average = smooth.map_or(loss, |smooth: f32| smooth * 0.95 + loss * 0.05);
        smooth = Some(average);
        bar.inc(1);
        bar.set_message(format!("loss {average:.3}"));
        let step = optimiser.steps();
        if step.is_multiple_of(20) {
            let speed = seen as f64 / started.elapsed().as_secs_f64();
            log(&bar, format!("step {step}: loss {average:.4}, {seen} tokens, {speed:.0} tokens/s"));
        }
        if step.is_multiple_of(CHECKPOINT) || step == steps {
            save(&optimiser, &options.checkpoint)?;
        }
        if step.is_multiple_of(2 * CHECKPOINT) || step == steps {
            let (tokens, slots) = accuracy(&decoder, &held_out)?;
            log(
                &bar,
                format!("held out: {:.1} % of tokens, {:.1} % of facts", tokens * 100.0, slots * 100.0),
            );
        }
    }
    bar.finish();
    println!("{seen} tokens in {:.0} s", started.elapsed().as_secs_f64());
    export(&decoder, &vocabulary, &options.output)
}

/// Writes the model file from a checkpoint of a run that still goes on.
pub fn export_checkpoint(options: &Options) -> Result<()> {
    let vocabulary = vocabulary(&Texts::load()?, options.seed);
    let (decoder, mut optimiser) = start(options, vocabulary.len())?;
    load(&mut optimiser, &options.checkpoint)?;
    export(&decoder, &vocabulary, &options.output)
}

fn start(options: &Options, vocabulary: usize) -> Result<(Decoder, AdamW)> {
    let decoder = Decoder::new(Shape::mini(vocabulary), &mut ChaCha8Rng::seed_from_u64(options.seed))?;
    circuit::install(&decoder)?;
    let optimiser = AdamW::new(decoder.weights());
    println!("{} parameters, {vocabulary} tokens in the vocabulary", decoder.parameters());
    Ok((decoder, optimiser))
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

/// Saves beside the old checkpoint first: a run that is stopped here still has one.
fn save(optimiser: &AdamW, path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension("partial");
    candle_core::safetensors::save(&optimiser.save()?, &partial)?;
    std::fs::rename(&partial, path).with_context(|| format!("{} cannot be written", path.display()))
}

fn load(optimiser: &mut AdamW, path: &Path) -> Result<()> {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu)
        .with_context(|| format!("{} cannot be read; train without --resume first", path.display()))?;
    optimiser.load(&tensors)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        vocabulary: 300,
        width: 64,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        feed_forward: 96,
        context: 512,
        rope_base: 10_000.0,
    };

    /// The losses of some steps on one and the same small batch.
    fn losses(decoder: &Decoder, optimiser: &mut AdamW, steps: usize) -> Vec<f32> {
        let texts = Texts::load().unwrap();
        let vocabulary = Vocabulary::train(["Ana: ok\n"], SHAPE.vocabulary);
        let easy = Difficulty { units: 1, small_talk: 0.0, rewrites: 1.0 };
        let samples = draw(&mut texts.generator(Split::Train, 1), easy, &vocabulary, 300);
        let step = |_| {
            let (loss, gradients) = gradients(decoder, &Shard::deal(&samples, 2)).unwrap();
            optimiser.step(&gradients, 3e-3).unwrap();
            loss
        };
        (0..steps).map(step).collect()
    }

    fn fresh() -> (Decoder, AdamW) {
        let decoder = Decoder::new(SHAPE, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        let optimiser = AdamW::new(decoder.weights());
        (decoder, optimiser)
    }

    #[test]
    fn the_loss_falls() {
        let (decoder, mut optimiser) = fresh();
        let losses = losses(&decoder, &mut optimiser, 20);
        assert!(losses[19] < 0.7 * losses[0], "{losses:?}");
    }

    #[test]
    fn a_run_goes_on_from_its_checkpoint_as_if_nothing_had_happened() {
        let (decoder, mut optimiser) = fresh();
        let unbroken = losses(&decoder, &mut optimiser, 6);

        let folder = std::env::temp_dir().join(format!("models-checkpoint-{}", std::process::id()));
        let path = folder.join("checkpoint.safetensors");
        let (decoder, mut optimiser) = fresh();
        losses(&decoder, &mut optimiser, 3);
        save(&optimiser, &path).unwrap();
        let (decoder, mut optimiser) = fresh();
        load(&mut optimiser, &path).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        assert_eq!(optimiser.steps(), 3);
        assert_eq!(losses(&decoder, &mut optimiser, 3), unbroken[3..]);
    }

    #[test]
    fn a_checkpoint_of_another_network_is_refused() {
        let mut tensors = fresh().1.save().unwrap();
        tensors.remove("1.qkv");
        let error = fresh().1.load(&tensors).unwrap_err().to_string();
        assert!(error.contains("1.qkv"), "{error}");
    }
}
