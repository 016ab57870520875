//! The small default model: its data generator, its trainer and its evaluation.
#![forbid(unsafe_code)]

mod batch;
mod bpe;
mod dataset;
mod eval;
mod export;
mod net;
mod optimiser;
mod prompt;
mod score;
mod speed;
mod train;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// Makes, trains and judges the default model.
#[derive(Parser)]
#[command(name = "models")]
enum Command {
    /// Print samples of the training data.
    Generate {
        /// How many.
        #[arg(long, default_value_t = 5)]
        count: usize,
        /// The seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Train the model.
    Train(train::Options),
    /// Judge the model on chats that it was not trained on.
    Eval(eval::Options),
    /// Measure what guessing ahead from repetitions brings.
    Speed(speed::Options),
    /// Summarise a chat here, without a guest: one `sender: text` a line.
    Summarize {
        /// The chat.
        chat: PathBuf,
        /// The model file.
        #[arg(long, default_value = "models/cloister-mini.gguf")]
        model: PathBuf,
    },
    /// Write the model file from a checkpoint, with the options of the run that saved it.
    Export(train::Options),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Generate { count, seed } => generate(count, seed),
        Command::Train(options) => train::train(&options),
        Command::Eval(options) => eval::evaluate(&options),
        Command::Speed(options) => speed::measure(&options),
        Command::Summarize { chat, model } => eval::summarise_file(&model, &chat),
        Command::Export(options) => train::export_checkpoint(&options),
    }
}

fn generate(count: usize, seed: u64) -> Result<()> {
    let texts = dataset::Texts::load()?;
    let mut generator = texts.generator(dataset::Split::Train, seed);
    for _ in 0..count {
        let sample = generator.sample(dataset::Difficulty::FULL);
        println!("--- {:?} ({})", sample.task, sample.language);
        print!("{}", prompt::rendered(&sample).concat());
        println!("=> {}\n", sample.answer_text());
    }
    Ok(())
}
