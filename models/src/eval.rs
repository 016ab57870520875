//! The model's examination: summaries of chats with names and places that training never saw, written by the
//! project's own engine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use inference::{Generation, GenerationId, Limits, Model, OutputKind, Sampling, Scheduler, SingleThread};

use crate::bpe::CONTROL;
use crate::dataset::{Difficulty, Sample, Split, Task, Texts};
use crate::prompt::{prompt, rendered};
use crate::score::{Score, Vocabulary};

/// What an examination is told.
#[derive(clap::Args)]
pub struct Options {
    /// The model file.
    #[arg(long, default_value = "models/cloister-mini.gguf")]
    pub model: PathBuf,
    /// How many chats.
    #[arg(long, default_value_t = 300)]
    pub chats: usize,
    /// Seed of the chats.
    #[arg(long, default_value_t = 2)]
    pub seed: u64,
    /// Print every chat with its summary.
    #[arg(long)]
    pub verbose: bool,
}

/// Tokens of the longest answer.
const LONGEST_ANSWER: u32 = 256;

/// Lets the model summarise chats and prints its scores.
pub fn evaluate(options: &Options) -> Result<()> {
    let file = std::fs::read(&options.model)
        .with_context(|| format!("{} cannot be read; train a model first", options.model.display()))?;
    let model = Model::load(&file).map_err(|error| anyhow!("{}: {error}", options.model.display()))?;
    let texts = Texts::load()?;
    let mut generator = texts.generator(Split::HeldOut, options.seed);
    let samples: Vec<Sample> = (0..options.chats).map(|_| generator.summary(Difficulty::FULL)).collect();
    let bar = ProgressBar::new(samples.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} chats, {eta} left")?);
    let summaries = summarise(&model, &samples, &bar)?;
    bar.finish_and_clear();

    let mut scores: BTreeMap<&str, Score> = BTreeMap::new();
    for (sample, summary) in samples.iter().zip(&summaries) {
        let language = texts.languages.iter().find(|language| language.code == sample.language);
        let score = Score::of(sample, summary, &Vocabulary::of(language.context("a sample of no language")?));
        scores.entry(&sample.language).or_default().add(&score);
        scores.entry("all").or_default().add(&score);
        if options.verbose {
            println!("{}=> {summary}\n== {}\n", rendered(sample).concat(), sample.answer_text());
        }
    }
    print(&scores);
    Ok(())
}

/// Prints the summary of a chat in a text file.
pub fn summarise_file(model: &Path, chat: &Path) -> Result<()> {
    let file = read(model)?;
    let model = load(&file, model)?;
    let text = std::fs::read_to_string(chat).with_context(|| format!("{} cannot be read", chat.display()))?;
    let messages: Vec<(String, String)> =
        text.lines().filter_map(|line| line.split_once(": ")).map(|(a, b)| (a.into(), b.into())).collect();
    ensure!(!messages.is_empty(), "{} has no line of the form 'sender: text'", chat.display());
    let sample = Sample { language: String::new(), task: Task::Summarize, messages, answer: Vec::new() };
    println!("{}", summarise(&model, &[sample], &ProgressBar::hidden())?.concat());
    Ok(())
}

fn read(model: &Path) -> Result<Vec<u8>> {
    std::fs::read(model).with_context(|| format!("{} cannot be read; train a model first", model.display()))
}

fn load<'a>(file: &'a [u8], path: &Path) -> Result<Model<'a>> {
    Model::load(file).map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// The summaries, several at once.
fn summarise(model: &Model<'_>, samples: &[Sample], bar: &ProgressBar) -> Result<Vec<String>> {
    let tokenizer = model.tokenizer();
    for (id, name) in CONTROL.iter().enumerate() {
        ensure!(tokenizer.control(name) == Some(id as u32), "the model has no control token {name}");
    }
    let limits = Limits {
        context_tokens: model.config().context_length,
        sessions: 8,
        prefill_chunk: 256,
        speculation: Limits::SPECULATION,
    };
    let mut scheduler = Scheduler::new(model, limits, SingleThread).map_err(|error| anyhow!("{error}"))?;
    let mut answers = vec![Vec::new(); samples.len()];
    let mut running: BTreeMap<GenerationId, usize> = BTreeMap::new();
    let mut waiting = samples.iter().enumerate();
    let mut outputs = Vec::new();
    loop {
        while running.len() < limits.sessions
            && let Some((index, sample)) = waiting.next()
        {
            let prompt = prompt(sample.task.instruction(), &rendered(sample), |text| tokenizer.encode(text));
            let generation = Generation {
                prompt,
                max_tokens: LONGEST_ANSWER,
                stop: vec![crate::bpe::TURN_END, crate::bpe::END_OF_TEXT],
                sampling: Sampling::default(),
            };
            let id = scheduler.submit(generation).map_err(|error| anyhow!("{error}"))?;
            running.insert(id, index);
        }
        if running.is_empty() {
            break;
        }
        scheduler.step(&mut outputs);
        for output in outputs.drain(..) {
            match output.kind {
                OutputKind::Token(token) => {
                    answers[running[&output.id]].extend_from_slice(tokenizer.decode(token))
                }
                OutputKind::Finished(_) => {
                    running.remove(&output.id);
                    bar.inc(1);
                }
            }
        }
    }
    Ok(answers.iter().map(|answer| String::from_utf8_lossy(answer).into_owned()).collect())
}

fn print(scores: &BTreeMap<&str, Score>) {
    println!("chats with names and places never seen in training, in per cent:");
    println!(
        "language  chats  facts found    who   what   when  where  not in the chat  lines right  all right"
    );
    // "all" sorts before every language; it belongs last.
    let languages = scores.iter().filter(|(name, _)| **name != "all");
    for (name, score) in languages.chain(scores.get_key_value("all")) {
        let kinds: String = score.facts.values().map(|share| format!(" {:6.1}", share.percent())).collect();
        println!(
            "{name:8} {:6} {:12.1}{kinds} {:16.1} {:12.1} {:10.1}",
            score.chats,
            score.recall().percent(),
            score.invented.percent(),
            score.lines.percent(),
            score.exact.percent(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examination's own result is in the card; this only notices a file that is broken or mixed up.
    #[test]
    fn the_shipped_model_summarises() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/cloister-mini.gguf");
        let file = std::fs::read(path).unwrap();
        let model = Model::load(&file).unwrap();
        let texts = Texts::load().unwrap();
        let mut generator = texts.generator(Split::HeldOut, 3);
        let samples: Vec<Sample> = (0..10).map(|_| generator.summary(Difficulty::FULL)).collect();
        let summaries = summarise(&model, &samples, &ProgressBar::hidden()).unwrap();
        let mut score = Score::default();
        for (sample, summary) in samples.iter().zip(&summaries) {
            let language = texts.languages.iter().find(|language| language.code == sample.language).unwrap();
            score.add(&Score::of(sample, summary, &Vocabulary::of(language)));
        }
        assert!(score.recall().percent() > 75.0, "{score:?}");
    }
}
