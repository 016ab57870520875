//! `cloister-engine bench`.
use crate::load::{self, ModelArguments};
use crate::probe::ReadProbe;
use crate::synthetic::Random;
use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use inference::gguf::File;
use inference::{Generation, Limits, Model, Output, OutputKind, Sampling, Scheduler, Threads};
use serde_json::json;
use std::time::{Duration, Instant};

/// Measures prefill (`pp`) and decode (`tg`) in tokens per second, as llama-bench does: random tokens, greedy, no
/// speculation, the median of several repetitions after one that is not counted.
///
/// The roof is what the machine can do at most, measured in the same run: for decode, the bytes per second that the
/// threads read from memory, divided by the bytes of the weights that each token needs; for prefill, the peak of
/// 8-bit integer operations, where the processor's instructions have a probe.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Lengths of prompts, separated by commas; 0 or nothing leaves prefill out.
    #[arg(long, value_delimiter = ',', default_value = "128,512")]
    prompt: Vec<usize>,
    /// Tokens to generate; 0 leaves decode out.
    #[arg(long, default_value_t = 64)]
    generate: usize,
    /// Tokens that are in the context before decoding begins, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    depth: Vec<usize>,
    /// Sessions at once.
    #[arg(long, default_value_t = 1)]
    parallel: usize,
    /// Prompt tokens that are evaluated together.
    #[arg(long, default_value_t = 512)]
    chunk: usize,
    /// How often each test is repeated.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Count the first repetition, too; for tests that take minutes.
    #[arg(long)]
    no_warmup: bool,
    /// Leave out the probes of the machine.
    #[arg(long)]
    no_roof: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A test's figures.
struct Measured {
    test: String,
    tokens: usize,
    seconds: Vec<f64>,
    /// Tokens per second of the prompt before, at best.
    prompt_rate: Option<f64>,
    /// Tokens per second at the limit of the machine.
    roof: Option<f64>,
}

impl Measured {
    /// Of the median.
    fn rate(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        self.tokens as f64 / sorted[sorted.len() / 2]
    }
}

/// What a token costs.
struct Cost {
    /// Bytes of weights that the decoding of a token reads.
    bytes: u64,
    /// Multiplications and additions of a prompt's token, without the output matrix, which only the last one needs.
    operations: u64,
}

impl Cost {
    fn of(file: &File<'_>) -> Self {
        let tied = file.tensor("output.weight").is_none();
        let mut cost = Self { bytes: 0, operations: 0 };
        for (name, tensor) in file.tensors() {
            let embedding = name == "token_embd.weight";
            if !embedding || tied {
                cost.bytes += tensor.data().len() as u64;
            }
            if !embedding && name != "output.weight" && tensor.dimensions().len() > 1 {
                cost.operations += 2 * tensor.elements() as u64;
            }
        }
        cost
    }
}

/// Measures and prints.
pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.repetitions > 0 && arguments.chunk > 0, "--repetitions and --chunk must be at least 1");
    ensure!(arguments.parallel > 0, "--parallel must be at least 1");
    let threads = arguments.model.start_threads()?;
    let isa = arguments.model.isa()?;
    let read = |threads: &Threads| ReadProbe::new().bytes_per_second(threads);
    let mut bandwidth = (!arguments.no_roof).then(|| read(&threads));
    let peak = (!arguments.no_roof).then(|| inference::int8_operations_per_second(isa, &threads)).flatten();

    load::reset_peak_memory();
    let start = Instant::now();
    let file = arguments.model.open()?;
    let cost = Cost::of(&File::parse(file.bytes()).context("the model is not a GGUF file")?);
    let file_bytes = file.bytes().len();
    let model = arguments.model.load(file, &threads)?;
    let load_seconds = start.elapsed().as_secs_f64();
    let mut bench = Bench { model: &model, threads: &threads, arguments, random: Random::new(7) };
    let progress = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg}")?);
    let mut all = Vec::new();
    for tokens in arguments.prompt.iter().copied().filter(|tokens| *tokens > 0) {
        progress.set_message(format!("prefill of {tokens} tokens"));
        let roof = peak.map(|peak| peak / cost.operations as f64);
        let mut scheduler = bench.scheduler(tokens + 1)?;
        all.push(bench.measure(format!("pp{tokens}"), tokens * arguments.parallel, roof, |bench| {
            Ok(bench.generate(&mut scheduler, tokens, 1)?.0)
        })?);
    }
    let depths = arguments.depth.iter().copied().filter(|_| arguments.generate > 0);
    for depth in depths {
        progress.set_message(format!("decode after {depth} tokens"));
        let roof = bandwidth.map(|bandwidth| bandwidth / cost.bytes as f64 * arguments.parallel as f64);
        let suffix = if depth > 0 { format!("@{depth}") } else { String::new() };
        let test = format!("tg{}{suffix}", arguments.generate);
        let mut scheduler = bench.scheduler(depth + arguments.generate + 2)?;
        let mut prompt_seconds = f64::INFINITY;
        all.push(bench.measure(test, arguments.generate * arguments.parallel, roof, |bench| {
            // The first token comes with the prompt and is not counted.
            let (first, rest) = bench.generate(&mut scheduler, depth + 1, arguments.generate as u32 + 1)?;
            prompt_seconds = prompt_seconds.min(first.as_secs_f64());
            Ok(rest)
        })?);
        if let Some(measured) = all.last_mut().filter(|_| depth > 0) {
            measured.prompt_rate = Some(((depth + 1) * arguments.parallel) as f64 / prompt_seconds);
        }
    }
    progress.finish_and_clear();
    let memory = load::peak_memory();
    // The machine may have been busier at one of the two times.
    if let Some(bandwidth) = &mut bandwidth {
        *bandwidth = bandwidth.max(read(&threads));
    }
    let header = json!({
        "model": arguments.model.model.display().to_string(),
        "kernels": model.kernels(),
        "threads": arguments.model.threads,
        "parallel": arguments.parallel,
        "file_bytes": file_bytes,
        "bytes_per_token": cost.bytes,
        "operations_per_token": cost.operations,
        "load_seconds": load_seconds,
        "peak_memory_bytes": memory,
        "read_bytes_per_second": bandwidth,
        "int8_operations_per_second": peak,
    });
    print(arguments, header, &all)
}

fn print(arguments: &Arguments, mut header: serde_json::Value, all: &[Measured]) -> Result<()> {
    if arguments.json {
        let tests = all.iter().map(|measured| {
            json!({
                "test": measured.test,
                "tokens": measured.tokens,
                "seconds": measured.seconds,
                "tokens_per_second": measured.rate(),
                "prompt_tokens_per_second": measured.prompt_rate,
                "roof_tokens_per_second": measured.roof,
            })
        });
        header["tests"] = tests.collect();
        println!("{}", serde_json::to_string_pretty(&header)?);
        return Ok(());
    }
    let number = |key: &str| header[key].as_f64().unwrap_or(f64::NAN);
    println!(
        "{}: {} kernels, {} threads, {} sessions",
        arguments.model.model.display(),
        header["kernels"].as_str().unwrap_or_default(),
        arguments.model.threads,
        arguments.parallel
    );
    println!(
        "file read and packed in {:.3} s; {:.1} MiB at most, file {:.1} MiB",
        number("load_seconds"),
        number("peak_memory_bytes") / f64::from(1 << 20),
        number("file_bytes") / f64::from(1 << 20)
    );
    if !arguments.no_roof {
        println!(
            "machine: {:.2} GB/s read, {:.0} GOP/s of 8-bit integers",
            number("read_bytes_per_second") / 1e9,
            number("int8_operations_per_second") / 1e9
        );
    }
    println!("{:>12} {:>12} {:>12} {:>8}", "test", "tokens/s", "roof", "share");
    for measured in all {
        let (roof, share) = match measured.roof {
            Some(roof) => (format!("{roof:.1}"), format!("{:.0} %", measured.rate() / roof * 100.0)),
            None => ("-".into(), "-".into()),
        };
        println!("{:>12} {:>12.2} {roof:>12} {share:>8}", measured.test, measured.rate());
    }
    Ok(())
}

struct Bench<'a> {
    model: &'a Model<'a>,
    threads: &'a Threads,
    arguments: &'a Arguments,
    random: Random,
}

impl<'a> Bench<'a> {
    /// For so many tokens in each session.
    fn scheduler(&self, context_tokens: usize) -> Result<Scheduler<'a, &'a Threads>> {
        let prefill_chunk = self.arguments.chunk.min(context_tokens);
        let limits =
            Limits { context_tokens, sessions: self.arguments.parallel, prefill_chunk, speculation: 0 };
        Ok(Scheduler::new(self.model, limits, self.threads)?)
    }

    fn measure(
        &mut self,
        test: String,
        tokens: usize,
        roof: Option<f64>,
        mut once: impl FnMut(&mut Self) -> Result<Duration>,
    ) -> Result<Measured> {
        if !self.arguments.no_warmup {
            once(self)?;
        }
        let mut seconds = Vec::new();
        for _ in 0..self.arguments.repetitions {
            seconds.push(once(self)?.as_secs_f64());
        }
        Ok(Measured { test, tokens, seconds, prompt_rate: None, roof })
    }

    /// Prompts of random tokens in all sessions; how long until all have their first token, and from then to the end.
    fn generate(
        &mut self,
        scheduler: &mut Scheduler<'_, &Threads>,
        prompt: usize,
        max_tokens: u32,
    ) -> Result<(Duration, Duration)> {
        let sessions = self.arguments.parallel;
        let vocabulary = self.model.config().vocabulary_length as u64;
        for _ in 0..sessions {
            let prompt = (0..prompt).map(|_| (self.random.next() % vocabulary) as u32).collect();
            let sampling = Sampling::default();
            scheduler.submit(Generation { prompt, max_tokens, stop: Vec::new(), sampling })?;
        }
        let (mut outputs, mut begun) = (Vec::new(), 0);
        let mut given = vec![false; sessions];
        let mut ids = Vec::new();
        let (start, mut first) = (Instant::now(), Duration::ZERO);
        while !scheduler.is_idle() {
            scheduler.step(&mut outputs);
            for Output { id, kind } in outputs.drain(..) {
                if let OutputKind::Token(_) = kind {
                    let session = ids.iter().position(|known| *known == id).unwrap_or_else(|| {
                        ids.push(id);
                        ids.len() - 1
                    });
                    begun += usize::from(!std::mem::replace(&mut given[session], true));
                }
            }
            if begun == sessions && first.is_zero() {
                first = start.elapsed();
            }
        }
        Ok((first, start.elapsed() - first))
    }
}
