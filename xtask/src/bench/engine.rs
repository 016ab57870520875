//! The engine beside llama.cpp and candle, and beside the limits of the machine.
//!
//! All engines run the same files, one after the other and several times round, so that what else the machine does
//! meets all of them alike. Each takes the best of its repetitions, and what is reported is the median of the rounds.

use super::{Figure, Figures, Subject};
use crate::build;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Speed, load time, memory, and how they grow.
pub const SUBJECT: Subject =
    Subject { name: "engine", about: "tokens per second beside llama.cpp, candle and the machine", run };

const PROMPT: usize = 512;
const GENERATE: usize = 64;
const SHAPES: [&str; 3] = ["smollm2-135m", "qwen2.5-0.5b", "llama-3.2-1b"];
const TYPES: [&str; 3] = ["q8_0", "q4_0", "q4_k_m"];
const THREADS: [usize; 2] = [1, 2];
const CONTEXTS: [&str; 6] = ["128", "512", "2048", "8000", "16000", "32000"];
const SESSIONS: [&str; 7] = ["1", "2", "4", "8", "16", "32", "64"];

fn run(figures: &mut Figures<'_>) -> Result<()> {
    let target = build::target()?;
    build_tool()?;
    let engines = engines(figures.llama_cpp(), &candle(&target)?)?;
    let quick = figures.options().quick;
    let shapes = if quick { &SHAPES[..1] } else { &SHAPES[..] };
    let folder = target.join("bench/engine");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for shape in shapes {
        for kind in TYPES {
            let name = format!("{shape} {kind}");
            for threads in THREADS {
                let name = format!("{name}, {threads} threads");
                if wanted(figures, &name) {
                    compare(figures, &engines, &synthetic(&folder, shape, kind)?, &name, threads)?;
                }
            }
            if wanted(figures, &format!("{name}, load")) {
                load_and_memory(figures, &synthetic(&folder, shape, kind)?, &name)?;
            }
        }
    }
    // The smallest model has room for 8192 tokens.
    let (shape, contexts) = match quick {
        true => (SHAPES[0], &CONTEXTS[..4]),
        false => (SHAPES[1], &CONTEXTS[..]),
    };
    let name = format!("{shape} {}", TYPES[0]);
    for tokens in contexts {
        if wanted(figures, &format!("{name}, context {tokens}")) {
            context(figures, &synthetic(&folder, shape, TYPES[0])?, &name, tokens)?;
        }
    }
    if wanted(figures, &format!("{name}, sessions")) {
        sessions(figures, &synthetic(&folder, shape, TYPES[0])?, &name)?;
    }
    Ok(())
}

/// Whether all words of one of the texts that `--only` gave are in a name; without any, every name is wanted.
fn wanted(figures: &Figures<'_>, name: &str) -> bool {
    let only = &figures.options().only;
    only.is_empty() || only.iter().any(|words| names(words, name))
}

/// Whether all these words are words of a name.
fn names(words: &str, name: &str) -> bool {
    let has = |word| name.split([' ', ',']).any(|part| part == word);
    words.split([' ', ',']).filter(|word| !word.is_empty()).all(has)
}

/// Builds `cloister-engine`.
pub(super) fn build_tool() -> Result<()> {
    let target = build::target()?;
    let text = target.to_str().context("the target folder's path is not UTF-8")?;
    build::cargo(&[
        "build",
        "--release",
        "--locked",
        "--target-dir",
        text,
        "-p",
        "inference",
        "--features",
        "cli",
    ])
}

/// A model of true shape with random weights, made when it is not there.
pub(super) fn synthetic(folder: &Path, shape: &str, kind: &str) -> Result<PathBuf> {
    let path = folder.join(format!("{shape}-{kind}.gguf"));
    if !path.exists() {
        let mut command = Command::new(build::program("cloister-engine")?);
        command.args(["synthetic-model", "--shape", shape, "--type", kind, "--out"]).arg(&path);
        build::run(&mut command)?;
    }
    Ok(path)
}

/// Candle's program, compiled for this processor, because candle chooses its instructions when it is compiled.
fn candle(target: &Path) -> Result<PathBuf> {
    let folder = target.join("bench/candle");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args([
        "build",
        "--release",
        "--locked",
        "-p",
        "inference",
        "--example",
        "candle_bench",
        "--target-dir",
    ]);
    build::run(command.arg(&folder).env("RUSTFLAGS", "-C target-cpu=native").current_dir(build::root()))?;
    Ok(folder.join("release/examples/candle_bench"))
}

/// A program that is measured.
struct Engine {
    name: String,
    kind: Kind,
    program: PathBuf,
}

enum Kind {
    /// With these instructions.
    Cloister(&'static str),
    LlamaCpp,
    Candle,
}

/// The engines that this machine can run. Peers that are not there are named, and left out.
fn engines(llama_cpp: &[PathBuf], candle: &Path) -> Result<Vec<Engine>> {
    let ours = build::program("cloister-engine")?;
    let mut all = Vec::new();
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    for (isa, flag) in [("avx512", "avx512_vnni"), ("avx2", "avx2")] {
        if flags.contains(flag) {
            all.push(Engine {
                name: format!("cloister {isa}"),
                kind: Kind::Cloister(isa),
                program: ours.clone(),
            });
        } else {
            eprintln!("bench: engine: this processor lacks {flag}: no figures for {isa}");
        }
    }
    if llama_cpp.is_empty() {
        eprintln!(
            "bench: engine: no llama.cpp; give the folders of its builds with --llama-cpp DIR (has bin/llama-bench)"
        );
    }
    for folder in llama_cpp {
        let program = folder.join("bin/llama-bench");
        ensure!(program.exists(), "{} is not there; build llama.cpp's target llama-bench", program.display());
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        all.push(Engine { name: format!("llama.cpp ({name})"), kind: Kind::LlamaCpp, program });
    }
    all.push(Engine { name: "candle".into(), kind: Kind::Candle, program: candle.into() });
    Ok(all)
}

/// Tokens per second of one run, and the limits of the machine where the program measures them.
#[derive(Clone, Copy, Default)]
struct Sample {
    prefill: f64,
    decode: f64,
    /// Shares of the roofs.
    shares: Option<(f64, f64)>,
}

impl Engine {
    fn command(&self, model: &Path, threads: usize, repetitions: usize) -> Command {
        let mut command = Command::new(&self.program);
        let (prompt, generate, threads) = (PROMPT.to_string(), GENERATE.to_string(), threads.to_string());
        let repetitions = repetitions.max(1).to_string();
        match self.kind {
            Kind::Cloister(isa) => {
                command.args(["bench", "--json", "--no-warmup", "--repetitions", &repetitions, "--isa", isa]);
                command.args([
                    "--threads",
                    &threads,
                    "--prompt",
                    &prompt,
                    "--generate",
                    &generate,
                    "--model",
                ]);
                command.arg(model);
            }
            Kind::LlamaCpp => {
                command.args(["-o", "json", "--no-warmup", "-r", &repetitions, "-t", &threads]);
                command.args(["-p", &prompt, "-n", &generate, "-m"]);
                command.arg(model);
            }
            Kind::Candle => {
                command
                    .arg(model)
                    .args([&prompt, &generate, &repetitions])
                    .env("RAYON_NUM_THREADS", &threads);
            }
        }
        command
    }

    fn measure(&self, model: &Path, threads: usize, repetitions: usize) -> Result<Sample> {
        let value = json(&mut self.command(model, threads, repetitions))?;
        let number =
            |value: &Value| value.as_f64().with_context(|| format!("{} printed no figures", self.name));
        Ok(match self.kind {
            Kind::Cloister(_) => {
                let test = |index: usize| -> Result<(f64, Option<f64>)> {
                    let test = &value["tests"][index];
                    let times = test["seconds"].as_array().into_iter().flatten().filter_map(Value::as_f64);
                    let rate = number(&test["tokens"])? / times.fold(f64::INFINITY, f64::min);
                    Ok((rate, test["roof_tokens_per_second"].as_f64().map(|roof| rate / roof)))
                };
                let ((prefill, peak), (decode, roof)) = (test(0)?, test(1)?);
                Sample { prefill, decode, shares: peak.zip(roof) }
            }
            Kind::LlamaCpp => {
                let rate = |index: usize| {
                    let rates = value[index]["samples_ts"].as_array().into_iter().flatten();
                    number(&rates.filter_map(Value::as_f64).fold(f64::NAN, f64::max).into())
                };
                Sample { prefill: rate(0)?, decode: rate(1)?, shares: None }
            }
            Kind::Candle => {
                Sample { prefill: number(&value["pp"])?, decode: number(&value["tg"])?, shares: None }
            }
        })
    }
}

fn json(command: &mut Command) -> Result<Value> {
    let shown = format!("{command:?}");
    let output = command.output().with_context(|| format!("cannot start {shown}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown} ended with {}: {}", output.status, errors.trim());
    serde_json::from_slice(&output.stdout).with_context(|| format!("{shown} printed no JSON"))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// All engines with one model, round by round; ratios are taken within a round.
fn compare(
    figures: &mut Figures<'_>,
    engines: &[Engine],
    model: &Path,
    name: &str,
    threads: usize,
) -> Result<()> {
    let repetitions = figures.options().repetitions;
    let mut rounds = Vec::new();
    for _ in 0..figures.options().rounds.max(1) {
        let samples: Result<Vec<Sample>> =
            engines.iter().map(|engine| engine.measure(model, threads, repetitions)).collect();
        rounds.push(samples?);
    }
    /// What is looked at of a sample.
    type Rate = fn(&Sample) -> f64;
    let tests: [(String, Rate); 2] =
        [(format!("pp{PROMPT}"), |sample| sample.prefill), (format!("tg{GENERATE}"), |sample| sample.decode)];
    for (test, rate) in tests {
        for (index, engine) in engines.iter().enumerate() {
            let name = format!("{name}, {test}, {}", engine.name);
            let command = format!("{:?}", engine.command(model, threads, repetitions));
            figures.add(&name, median(rounds.iter().map(|round| rate(&round[index]))), "tokens/s", &command);
            let Kind::Cloister(_) = engine.kind else { continue };
            for (peer, engine) in
                engines.iter().enumerate().filter(|(_, peer)| !matches!(peer.kind, Kind::Cloister(_)))
            {
                let ratio = median(rounds.iter().map(|round| rate(&round[index]) / rate(&round[peer])));
                figures.add(format!("{name} / {}", engine.name), ratio, "1", &command);
            }
            let shares = rounds.iter().filter_map(|round| round[index].shares);
            let prefill = test.starts_with("pp");
            let share = median(shares.map(|(peak, roof)| if prefill { peak } else { roof }));
            let of = if prefill { "int8 peak" } else { "streaming read" };
            figures.add(format!("{name} / {of}"), share, "1", &command);
        }
    }
    Ok(())
}

/// Time to load beside reading the file, and the most memory beside the file's size.
fn load_and_memory(figures: &mut Figures<'_>, model: &Path, name: &str) -> Result<()> {
    let mut samples = Vec::new();
    let mut shown = String::new();
    for _ in 0..figures.options().rounds.max(1) {
        let start = std::time::Instant::now();
        std::fs::read(model)?;
        let read = start.elapsed().as_secs_f64();
        let mut command = Command::new(build::program("cloister-engine")?);
        command.args([
            "bench",
            "--json",
            "--no-roof",
            "--repetitions",
            "1",
            "--prompt",
            "512",
            "--generate",
            "0",
        ]);
        command.args(["--threads", "2", "--model"]).arg(model);
        shown = format!("{command:?}");
        let value = json(&mut command)?;
        let number = |key: &str| value[key].as_f64().with_context(|| format!("{shown} printed no {key}"));
        let load = number("load_seconds")? / read;
        samples.push((load, number("peak_memory_bytes")? - number("file_bytes")?));
    }
    figures.add(format!("{name}, load / read"), median(samples.iter().map(|sample| sample.0)), "1", &shown);
    let memory = median(samples.iter().map(|sample| sample.1)) / f64::from(1 << 20);
    figures.add(format!("{name}, peak memory - file, KV of 513 tokens included"), memory, "MiB", &shown);
    Ok(())
}

/// One run of ours with both threads, of which the first test is looked at.
fn growing(model: &Path, arguments: &[&str]) -> Result<(Value, String)> {
    let mut command = Command::new(build::program("cloister-engine")?);
    command.args(["bench", "--json", "--no-roof", "--threads", "2", "--repetitions", "1", "--no-warmup"]);
    command.args(["--prompt", "0"]).args(arguments).arg("--model").arg(model);
    Ok((json(&mut command)?["tests"][0].clone(), format!("{command:?}")))
}

/// Tokens per second with so many tokens in the context.
fn context(figures: &mut Figures<'_>, model: &Path, name: &str, tokens: &str) -> Result<()> {
    let (test, command) = growing(model, &["--generate", "16", "--depth", tokens])?;
    for (what, key) in [("prefill of", "prompt_tokens_per_second"), ("decode after", "tokens_per_second")] {
        let rate = test[key].as_f64().context("the bench printed no figures")?;
        figures.add(format!("{name}, 2 threads, {what} {tokens} tokens"), rate, "tokens/s", &command);
    }
    Ok(())
}

/// Tokens per second of so many sessions together.
fn sessions(figures: &mut Figures<'_>, model: &Path, name: &str) -> Result<()> {
    let mut rates = Vec::new();
    for sessions in SESSIONS {
        let (test, command) = growing(model, &["--generate", "32", "--parallel", sessions])?;
        let rate = test["tokens_per_second"].as_f64().context("the bench printed no figures")?;
        let name = format!("{name}, 2 threads, decode, {sessions} sessions together");
        figures.add(name, rate, "tokens/s", command);
        rates.push((sessions, rate));
    }
    let of =
        |wanted| rates.iter().find(|(sessions, _)| *sessions == wanted).map_or(f64::NAN, |(_, rate)| *rate);
    let command =
        "cloister-engine bench --threads 2 --prompt 0 --generate 32 with --parallel 8 and with --parallel 1";
    figures.add(format!("{name}, 2 threads, 8 sessions / 1 session"), of("8") / of("1"), "1", command);
    Ok(())
}

/// The comparison as the table of docs/BENCHMARKS.md: a row for each model, type and test, with one thread and two.
pub fn table(figures: &[Figure]) -> String {
    let value = |name: &str| figures.iter().find(|figure| figure.name == name).map(|figure| figure.value);
    // Names are "MODEL TYPE, N threads, TEST, ENGINE" and, for ratios, "... / PEER".
    let mut engines: Vec<&str> = Vec::new();
    let mut models: Vec<&str> = Vec::new();
    for figure in figures.iter().filter(|figure| figure.unit == "tokens/s") {
        let parts: Vec<&str> = figure.name.split(", ").collect();
        if let [model, _, "pp512" | "tg64", engine] = parts[..] {
            engines.extend((!engines.contains(&engine)).then_some(engine));
            models.extend((!models.contains(&model)).then_some(model));
        }
    }
    if models.is_empty() {
        return String::new();
    }
    let mut columns: Vec<String> = engines.iter().map(ToString::to_string).collect();
    let ours = || engines.iter().filter(|engine| engine.starts_with("cloister"));
    columns.extend(ours().map(|engine| format!("{engine} / roof")));
    columns.extend(ours().map(|engine| format!("{engine} / best peer")));
    let mut text = format!(
        "\n| model, type | test | {} |\n|---|---|{}\n",
        columns.join(" | "),
        "---|".repeat(columns.len())
    );
    for model in models {
        for (test, roof) in [("pp512", "int8 peak"), ("tg64", "streaming read")] {
            let _ = write!(text, "| {model} | {test} |");
            for column in &columns {
                let of = |threads: usize| {
                    let name = |engine: &str| format!("{model}, {threads} threads, {test}, {engine}");
                    let Some((engine, to)) = column.split_once(" / ") else {
                        return value(&name(column)).map(super::report::number);
                    };
                    if to == "roof" {
                        return Some(format!(
                            "{:.0} %",
                            value(&name(&format!("{engine} / {roof}")))? * 100.0
                        ));
                    }
                    let peers = engines.iter().filter(|engine| !engine.starts_with("cloister"));
                    let ratios = peers.filter_map(|peer| value(&name(&format!("{engine} / {peer}"))));
                    ratios.reduce(f64::min).map(|ratio| format!("{ratio:.1}"))
                };
                let [one, two] = THREADS.map(|threads| of(threads).unwrap_or_else(|| "-".into()));
                let _ = write!(text, " {one} / {two} |");
            }
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_chosen_by_whole_words() {
        for (words, name, chosen) in [
            ("smollm2-135m 1 threads", "smollm2-135m q8_0, 1 threads", true),
            ("smollm2-135m 1 threads", "smollm2-135m q8_0, 2 threads", false),
            ("q4_0", "smollm2-135m q4_0, load", true),
            ("context 128", "qwen2.5-0.5b q8_0, context 128", true),
            ("context 128", "qwen2.5-0.5b q8_0, context 1280", false),
        ] {
            assert_eq!(names(words, name), chosen, "{words} in {name}");
        }
    }

    #[test]
    fn the_table_has_a_row_for_each_test_and_the_least_ratio() {
        let figure = |name: &str, unit: &str, value| Figure {
            subject: "engine".into(),
            name: name.into(),
            value,
            unit: unit.into(),
            command: String::new(),
        };
        let text = table(&[
            figure("m q, 1 threads, pp512, cloister avx2", "tokens/s", 60.0),
            figure("m q, 1 threads, pp512, cloister avx2 / a", "1", 3.0),
            figure("m q, 1 threads, pp512, cloister avx2 / b", "1", 2.0),
            figure("m q, 1 threads, pp512, cloister avx2 / int8 peak", "1", 0.5),
            figure("m q, 1 threads, pp512, a", "tokens/s", 20.0),
            figure("m q, 1 threads, pp512, b", "tokens/s", 30.0),
        ]);
        let row = "| m q | pp512 | 60 / - | 20 / - | 30 / - | 50 % / - | 2.0 / - |";
        assert!(text.lines().any(|line| line == row), "{text}");
        assert_eq!(table(&[]), "");
    }
}
