//! How fast the guest generates in the SNP model with one vCPU and with two.
//!
//! Seconds say nothing here, as TCG emulates every instruction; what counts is the ratio. Both guests answer the same
//! requests, one guest after the other, and a rate is that of the tokens after the first, as a client sees them come.

use super::{Figures, Subject, engine};
use crate::guest::{Guest, Start, development_root, policy};
use crate::{build, manifest};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use wire::event::Event;

/// Tokens per second by vCPUs.
pub const SUBJECT: Subject =
    Subject { name: "decode", about: "tokens per second in the SNP model, 1 vCPU beside 2", run };

const VCPUS: [u32; 2] = [1, 2];
/// Requests to each guest.
const ROUNDS: usize = 5;
/// The shape and type of the larger model, and how many tokens it is asked for.
const LARGE: (&str, &str) = ("smollm2-135m", "q8_0");
const LARGE_TOKENS: i64 = 16;
const LARGE_ROUNDS: usize = 1;

fn run(figures: &mut Figures<'_>) -> Result<()> {
    let folder = build::target()?.join("bench/decode");
    compare(figures, &folder.join("default"), "default model", &build::weights(), &[], ROUNDS)?;
    if figures.options().quick {
        return Ok(());
    }
    engine::build_tool()?;
    let models = build::target()?.join("bench/engine");
    fs::create_dir_all(&models).with_context(|| format!("cannot make {}", models.display()))?;
    let weights = engine::synthetic(&models, LARGE.0, LARGE.1)?;
    let values = [("limits", "context_tokens", 512), ("limits", "output_tokens", LARGE_TOKENS)];
    let name = format!("{} {}", LARGE.0, LARGE.1);
    compare(figures, &folder.join("large"), &name, &weights, &values, LARGE_ROUNDS)
}

fn compare(
    figures: &mut Figures<'_>,
    folder: &Path,
    name: &str,
    weights: &Path,
    values: &[(&str, &str, i64)],
    rounds: usize,
) -> Result<()> {
    let mut best = [0.0_f64; VCPUS.len()];
    // One guest at a time: a guest that listens looks at its network all the time.
    for (vcpus, best) in VCPUS.into_iter().zip(&mut best) {
        let mut asked = Asked::start(&folder.join(vcpus.to_string()), weights, values, vcpus)?;
        for _ in 0..rounds {
            // What else the machine does can only slow a guest down.
            *best = best.max(asked.rate()?);
        }
    }
    let command = "cargo bench-all decode";
    for (vcpus, rate) in VCPUS.into_iter().zip(best) {
        figures.add(format!("{name}, {vcpus} vCPUs"), rate, "tokens/s", command);
    }
    figures.add(format!("{name}, 2 vCPUs to 1"), best[1] / best[0], "1", command);
    Ok(())
}

/// A guest and what it takes to be its client.
struct Asked {
    guest: Guest,
    policy: PathBuf,
    events: PathBuf,
}

impl Asked {
    fn start(folder: &Path, weights: &Path, values: &[(&str, &str, i64)], vcpus: u32) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let [file, events, state] = ["manifest.toml", "events.json", "state"].map(|name| folder.join(name));
        let values = [values, &[("machine", "vcpus", vcpus.into())]].concat();
        manifest::variant(&file, weights, &values)?;
        build::image_of(&file, folder)?;
        if events.exists() {
            fs::remove_file(&events).with_context(|| format!("cannot remove {}", events.display()))?;
        }
        let path = |path: &Path| path.to_str().map(str::to_owned).context("a path is not UTF-8");
        let arguments = vec!["--state".into(), path(&state)?, "--events".into(), path(&events)?];
        let guest = Guest::boot(&Start { image: &folder.join("cloister.rom"), weights, arguments })?;
        let policy = policy(folder, Some(&development_root(&state)))?;
        Ok(Self { guest, policy, events })
    }

    /// Asks for a summary; tokens after the first one, for each second after it.
    fn rate(&mut self) -> Result<f64> {
        let mut client = Command::new(build::program("cloister")?)
            .arg("summarize")
            .arg(build::root().join("models/samples/family-android.txt"))
            .args(["--last", "2", "--server", &self.guest.server(), "--policy"])
            .arg(&self.policy)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start the client")?;
        let mut stdout = client.stdout.take().context("the client's output")?;
        let mut buffer = [0; 4096];
        let (mut shown, mut times) = (Vec::new(), Vec::new());
        loop {
            let count = stdout.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            shown.extend_from_slice(&buffer[..count]);
            times.push(Instant::now());
        }
        ensure!(client.wait()?.success(), "the client failed");
        // The lines of evidence come when the answer is over.
        let (first, last) = times.first().zip(times.last()).context("no answer")?;
        let tokens = self.tokens()?;
        ensure!(tokens > 4, "the answer has {tokens} tokens, too few to measure anything");
        Ok((tokens - 1) as f64 / last.duration_since(*first).as_secs_f64())
    }

    /// Tokens of the last answer.
    fn tokens(&self) -> Result<u64> {
        let text = fs::read_to_string(&self.events)
            .with_context(|| format!("cannot read {}", self.events.display()))?;
        let ended = Event::RequestEnded { end: wire::event::RequestEnd::Complete, tokens: 0 };
        let mut values = text.lines().filter_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["event"] == ended.name()).then(|| line["value"].as_u64())?
        });
        values.next_back().context("no request has ended")
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let _ = self.guest.stop();
    }
}
