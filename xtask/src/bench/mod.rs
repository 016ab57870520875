//! `cargo bench-all`: every figure of docs/BENCHMARKS.md, from one command.
//!
//! A subject is a file here with one function that measures and adds [`Figure`]s. It uses only what the commands that
//! it names use, so that each figure can be had again alone. A figure that a loaded machine would change is taken
//! several times, and what is reported of it is a ratio or a median; counts of instructions repeat exactly.

mod boot;
mod decode;
mod engine;
mod image;
mod lines;
mod log;
mod overhead;
mod privacy;
mod report;
mod shape;
mod tokens;

use crate::{build, setup};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One measured number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The subject that measured it.
    pub subject: String,
    /// What was measured, with its conditions; unique within the subject.
    pub name: String,
    /// The number.
    pub value: f64,
    /// Its unit, `1` for a ratio.
    pub unit: String,
    /// The command that gives this figure again.
    pub command: String,
}

/// The figures so far.
pub struct Figures<'o> {
    subject: &'static str,
    all: Vec<Figure>,
    options: &'o Options,
}

impl Figures<'_> {
    /// The folders of llama.cpp's builds.
    pub fn llama_cpp(&self) -> &[PathBuf] {
        &self.options.llama_cpp
    }

    /// What is wanted of a subject that takes long.
    pub fn options(&self) -> &Options {
        self.options
    }

    /// Adds a figure, and says it at once: a whole run takes a while.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        command: impl Into<String>,
    ) {
        let (subject, unit) = (self.subject.into(), unit.into());
        let figure = Figure { subject, name: name.into(), value, unit, command: command.into() };
        eprintln!("bench: {}: {} {}", figure.name, report::number(value), figure.unit);
        self.all.push(figure);
    }
}

/// Something that is measured.
pub struct Subject {
    /// Its name on the command line and in the results.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Measures. The programs are built and the tools of [`setup::for_ci`] are there.
    pub run: fn(&mut Figures<'_>) -> Result<()>,
}

/// All subjects, in the order in which they run.
pub const SUBJECTS: &[Subject] = &[
    image::SUBJECT,
    boot::SUBJECT,
    decode::SUBJECT,
    engine::SUBJECT,
    log::SUBJECT,
    overhead::SUBJECT,
    privacy::SUBJECT,
    shape::SUBJECT,
    tokens::SUBJECT,
];

/// What to measure, and how to show it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo bench-all\n  cargo bench-all image --json\n  cargo bench-all engine --quick --llama-cpp ~/llama.cpp/build\n  cargo bench-all engine --add --only 'qwen2.5-0.5b 1 threads' --rounds 2\n  cargo bench-all --show"
)]
pub struct Options {
    /// Subjects to measure; without any, all of them.
    pub subjects: Vec<String>,
    /// A folder in which llama.cpp is built, with `bin/llama-bench`, to compare with; may be given several times.
    #[arg(long, value_name = "DIR")]
    pub llama_cpp: Vec<PathBuf>,
    /// Measure engine and decoding with their smallest model only.
    #[arg(long)]
    pub quick: bool,
    /// Measure only what has all of these words in its name: of a model, a type, "1 threads" or "2 threads", "load",
    /// "sessions", "context 512", or a part of relay and gateway such as "memory"; may be given several times.
    #[arg(long, value_name = "WORDS")]
    pub only: Vec<String>,
    /// Times that all engines take their turn.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Times that each engine repeats a test in its turn; the best counts.
    #[arg(long, default_value_t = 2)]
    pub repetitions: usize,
    /// Keep the figures of earlier runs that this one does not measure again.
    #[arg(long)]
    pub add: bool,
    /// Measure nothing, and show the figures of earlier runs.
    #[arg(long)]
    pub show: bool,
    /// List the subjects and measure nothing.
    #[arg(long)]
    pub list: bool,
    /// Print the results as JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Where the JSON goes as well; the default is bench.json in the target folder.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Measures, prints a table or JSON, and writes the JSON.
pub fn run(options: &Options) -> Result<()> {
    if options.list {
        SUBJECTS.iter().for_each(|subject| println!("{:<12} {}", subject.name, subject.about));
        return Ok(());
    }
    let chosen = choose(&options.subjects)?;
    let out = match &options.out {
        Some(path) => path.clone(),
        None => build::target()?.join("bench.json"),
    };
    let mut earlier = if options.add || options.show { report::read(&out)? } else { Vec::new() };
    if options.show {
        print!("{}{}", report::table(&earlier), engine::table(&earlier));
        return Ok(());
    }
    // These build what they need themselves, and no image.
    let alone = [engine::SUBJECT.name, privacy::SUBJECT.name, shape::SUBJECT.name, tokens::SUBJECT.name];
    if chosen.iter().any(|subject| !alone.contains(&subject.name)) {
        setup::for_ci()?;
        build::programs()?;
    }
    let mut figures = Figures { subject: "", all: Vec::new(), options };
    for subject in chosen {
        figures.subject = subject.name;
        (subject.run)(&mut figures).with_context(|| format!("the subject {} failed", subject.name))?;
    }
    let again =
        |old: &Figure| figures.all.iter().any(|new| (&new.subject, &new.name) == (&old.subject, &old.name));
    earlier.retain(|figure| !again(figure));
    earlier.append(&mut figures.all);
    let json = report::json(&earlier)?;
    std::fs::write(&out, &json).with_context(|| format!("cannot write {}", out.display()))?;
    print!("{}", if options.json { json } else { report::table(&earlier) + &engine::table(&earlier) });
    eprintln!("bench: written to {}", out.display());
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<&'static Subject>> {
    let known = || SUBJECTS.iter().map(|subject| subject.name).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = names.iter().find(|name| SUBJECTS.iter().all(|subject| subject.name != **name)) {
        bail!("{unknown:?} is not a subject; choose among {}", known());
    }
    Ok(SUBJECTS
        .iter()
        .filter(|subject| names.is_empty() || names.iter().any(|n| n == subject.name))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_chosen_by_name_and_a_wrong_one_is_refused() {
        let all = choose(&[]).unwrap();
        assert_eq!(all.len(), SUBJECTS.len());
        assert_eq!(choose(&[SUBJECTS[0].name.to_owned()]).unwrap().len(), 1);
        let Err(error) = choose(&["imag".into()]) else { panic!("a wrong name was taken") };
        assert!(error.to_string().contains(SUBJECTS[0].name), "{error}");
        let mut names: Vec<_> = SUBJECTS.iter().map(|subject| subject.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SUBJECTS.len(), "two subjects have one name");
    }
}
