//! What the guest adds to the engine: instructions for a token of a prompt, in the guest and on the host.
//!
//! A guest evaluates the instructions of its tasks before it listens, so two images, of which one has a longer instruction,
//! differ by the engine's work on the tokens between. The host's side is the same with two prompts, under Valgrind's count.
//! Both count instructions as they retire, with AVX2, which is the best that QEMU's TCG and Valgrind both have. A prompt's
//! tokens go through all of the engine but for the choice of a token. Decoding cannot be told apart in this way: a guest that
//! has clients looks at its network between two steps, as often as the clock lets it.

use super::{Figures, Subject, boot, engine};
use crate::{build, manifest, setup};
use anyhow::{Context, Result, ensure};
use image_builder::source::Source;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use toml::Value;
use wire::chat::Role;
use wire::event::Event;

/// Instructions for each token.
pub const SUBJECT: Subject =
    Subject { name: "overhead", about: "the engine's instructions per token, guest beside host", run };

const COMMAND: &str = "cargo bench-all overhead";
/// Words of the two instructions.
const WORDS: [usize; 2] = [40, 160];
/// Prompt tokens that the service lets the engine evaluate together.
const CHUNK: &str = "64";

fn run(figures: &mut Figures<'_>) -> Result<()> {
    setup::for_counting()?;
    engine::build_tool()?;
    let folder = build::target()?.join("bench/overhead");
    let [short, long] = WORDS.map(|words| in_guest(&folder.join(words.to_string()), words));
    let ((few, less), (many, more)) = (short?, long?);
    let each = |less: u64, more: u64| (more - less) as f64 / (many - few) as f64;
    let guest = each(less, more);
    let host = each(on_host(few)?, on_host(many)?);
    let between = format!("prompt tokens {few} to {many}");
    figures.add(format!("instructions per token in the guest, {between}"), guest / 1e3, "k", COMMAND);
    figures.add(format!("instructions per token on the host, {between}"), host / 1e3, "k", COMMAND);
    figures.add("guest to host", guest / host, "1", COMMAND);
    Ok(())
}

/// Tokens of an instruction of so many words with its frames, and what the guest executes from when the model is loaded until
/// it listens.
fn in_guest(folder: &Path, words: usize) -> Result<(usize, u64)> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = folder.join("manifest.toml");
    let instruction = vec!["please"; words].join(" ");
    let values = [
        ("machine", "vcpus", 1.into()),
        ("tasks", "summarize", instruction.into()),
        ("tasks", "rewrite", "".into()),
        ("tasks", "reply", Value::from("")),
    ];
    manifest::variant(&file, &build::weights(), &values)?;
    let manifest = Source::load(&file)?.manifest;
    let frame = |before, after| manifest.template.frame(before, after).map_or(0, |frame| frame.tokens.len());
    let around = frame(None, Some(Role::System)) + frame(Some(Role::System), Some(Role::User));
    let task = manifest.tasks.iter().find(|task| task.task == "summarize").context("no such task")?;
    let tokens = task.instruction.len() + around;
    let longest = manifest.limits.context_tokens as usize;
    ensure!(tokens < longest, "{tokens} tokens are more than the context of {longest}");
    let instructions =
        boot::counted(folder, &file)?.stage(Event::ModelReady {}, Event::Listening { port: 0 })?;
    Ok((tokens, instructions))
}

/// Instructions of `cloister-engine` that evaluates a prompt of so many tokens, with all that it does besides.
fn on_host(tokens: usize) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(build::program("cloister-engine")?)
        .args(["bench", "--isa", "avx2", "--threads", "1", "--generate", "0", "--repetitions", "1"])
        .args(["--no-warmup", "--no-roof", "--chunk", CHUNK, "--prompt", &tokens.to_string(), "--model"])
        .arg(build::weights())
        .stdin(Stdio::null())
        .output()
        .context("cannot start valgrind")?;
    let report = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind ended with {}:\n{report}", output.status);
    collected(&report).with_context(|| format!("valgrind did not say what it counted:\n{report}"))
}

/// The number in callgrind's line `==42== Collected : 1234`.
fn collected(report: &str) -> Option<u64> {
    report.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrinds_count_is_found() {
        assert_eq!(collected("==42== Events    : Ir\n==42== Collected : 1234\n"), Some(1234));
        assert_eq!(collected("==42== Events    : Ir\n"), None);
    }
}
