//! Reading a model file, and what the operating system says about this process.
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use inference::gguf::{File, Value};
use inference::{Isa, Model, ModelFile, Threads};
use std::path::{Path, PathBuf};

/// Which model, on what.
#[derive(clap::Args)]
pub struct ModelArguments {
    /// A GGUF file.
    #[arg(long, short)]
    pub model: PathBuf,
    /// Threads that compute.
    #[arg(long, short, default_value_t = default_threads())]
    pub threads: usize,
    /// Instructions to use; the best that this processor has if not given.
    #[arg(long)]
    isa: Option<IsaName>,
}

/// The sets of instructions by their names.
#[derive(Clone, Copy, ValueEnum)]
enum IsaName {
    Plain,
    Avx2,
    Avx512,
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl ModelArguments {
    /// The threads.
    pub fn start_threads(&self) -> Result<Threads> {
        ensure!((1..=64).contains(&self.threads), "--threads must be from 1 to 64, not {}", self.threads);
        Threads::new(self.threads).context("cannot start the threads")
    }

    /// The instructions, which this processor has.
    pub fn isa(&self) -> Result<Isa> {
        let isa = match self.isa {
            None => return Ok(Isa::best()),
            Some(IsaName::Plain) => Isa::Plain,
            Some(IsaName::Avx2) => Isa::Avx2,
            Some(IsaName::Avx512) => Isa::Avx512,
        };
        ensure!(isa.is_supported(), "this processor lacks {isa:?}");
        Ok(isa)
    }

    /// The file, without its matrices.
    pub fn open(&self) -> Result<ModelFile> {
        ModelFile::open(&self.model).with_context(|| format!("cannot read {}", self.model.display()))
    }

    /// The model, read and packed by these threads.
    pub fn load(&self, file: ModelFile, threads: &Threads) -> Result<Model<'static>> {
        file.load(self.isa()?, threads).with_context(|| format!("cannot load {}", Path::display(&self.model)))
    }
}

/// A token that the file names by its number, such as `bos_token_id`.
pub fn named_token(file: &File<'_>, key: &str) -> Option<u32> {
    match file.value(&format!("tokenizer.ggml.{key}")) {
        Some(Value::Unsigned(token)) => u32::try_from(token).ok(),
        _ => None,
    }
}

/// The token that begins a text, if the model was trained with one (as llama.cpp's `llama_vocab` decides).
pub fn begin_token(file: &File<'_>) -> Option<u32> {
    let text = |key| match file.value(key) {
        Some(Value::String(text)) => text,
        _ => "",
    };
    let usual = text("tokenizer.ggml.model") == "llama"
        || ["llama-bpe", "llama3", "llama-v3"].contains(&text("tokenizer.ggml.pre"));
    let wanted = match file.value("tokenizer.ggml.add_bos_token") {
        Some(Value::Bool(wanted)) => wanted,
        _ => usual,
    };
    named_token(file, "bos_token_id").filter(|_| wanted)
}

/// The most memory that this process has had since [`reset_peak_memory`], in bytes; `None` where `/proc` does not say.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Forgets the peak so far (`/proc/pid/clear_refs`, proc(5)).
pub fn reset_peak_memory() {
    // Without it the peak is too large, never too small.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
