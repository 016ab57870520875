//! What guessing ahead from repetitions brings: tokens per second with and without it, on the tasks that it is for.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use inference::{Generation, Limits, Model, OutputKind, Sampling, Scheduler, SingleThread};

use crate::dataset::{Difficulty, Sample, Split, Task, Texts};
use crate::prompt::{prompt, rendered};

/// What is measured.
#[derive(clap::Args)]
pub struct Options {
    /// The model file.
    #[arg(long, default_value = "models/cloister-mini.gguf")]
    model: PathBuf,
    /// Prompts of each task.
    #[arg(long, default_value_t = 20)]
    prompts: usize,
    /// Seed of the prompts.
    #[arg(long, default_value_t = 3)]
    seed: u64,
}

/// Tokens, the steps that gave them, and the time after the first.
#[derive(Default)]
struct Run {
    tokens: Vec<u32>,
    steps: usize,
    time: Duration,
}

/// Measures and prints. The answers must be the same; that is checked.
pub fn measure(options: &Options) -> Result<()> {
    let file = std::fs::read(&options.model)
        .with_context(|| format!("{} cannot be read; train a model first", options.model.display()))?;
    let model = Model::load(&file).map_err(|error| anyhow!("{}: {error}", options.model.display()))?;
    let texts = Texts::load()?;
    println!(
        "{:>10} {:>8} {:>14} {:>14} {:>7} {:>16}",
        "task", "tokens", "without, t/s", "with, t/s", "ratio", "tokens a step"
    );
    for task in [Task::Summarize, Task::Rewrite] {
        let mut generator = texts.generator(Split::HeldOut, options.seed);
        let samples = std::iter::repeat_with(|| generator.sample(Difficulty::FULL));
        let samples = samples.filter(|sample| sample.task == task).take(options.prompts);
        let (mut without, mut with) = (Run::default(), Run::default());
        for sample in samples {
            // In turns, so that what else the machine does meets both alike.
            for (speculation, sum) in [(0, &mut without), (Limits::SPECULATION, &mut with)] {
                let run = answer(&model, &sample, speculation)?;
                sum.tokens.extend(run.tokens);
                sum.steps += run.steps;
                sum.time += run.time;
            }
        }
        ensure!(without.tokens == with.tokens, "guessing changed an answer, which is a defect of the engine");
        let rate = |run: &Run| run.tokens.len() as f64 / run.time.as_secs_f64();
        println!(
            "{:>10} {:>8} {:>14.1} {:>14.1} {:>7.2} {:>16.2}",
            format!("{task:?}"),
            with.tokens.len(),
            rate(&without),
            rate(&with),
            rate(&with) / rate(&without),
            with.tokens.len() as f64 / with.steps as f64
        );
    }
    Ok(())
}

fn answer(model: &Model<'_>, sample: &Sample, speculation: usize) -> Result<Run> {
    let tokenizer = model.tokenizer();
    let context_tokens = model.config().context_length;
    let limits = Limits { context_tokens, sessions: 1, prefill_chunk: 256.min(context_tokens), speculation };
    let mut scheduler = Scheduler::new(model, limits, SingleThread).map_err(|error| anyhow!("{error}"))?;
    let generation = Generation {
        prompt: prompt(sample.task.instruction(), &rendered(sample), |text| tokenizer.encode(text)),
        max_tokens: 256,
        stop: vec![crate::bpe::TURN_END, crate::bpe::END_OF_TEXT],
        sampling: Sampling::default(),
    };
    scheduler.submit(generation).map_err(|error| anyhow!("{error}"))?;
    let (mut run, mut outputs, mut start) = (Run::default(), Vec::new(), None);
    while !scheduler.is_idle() {
        scheduler.step(&mut outputs);
        run.steps += usize::from(start.is_some());
        for output in outputs.drain(..) {
            if let OutputKind::Token(token) = output.kind {
                run.tokens.push(token);
                start.get_or_insert_with(Instant::now);
            }
        }
    }
    run.time = start.map_or(Duration::ZERO, |start| start.elapsed());
    Ok(run)
}
