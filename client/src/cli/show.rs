//! What a person sees: progress on standard error, the answer and the evidence on standard output.

use attestation::verifier::Verdict;
use client::session::Step;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

/// A spinner that says what is waited for; invisible where standard error is no terminal.
pub struct Progress(ProgressBar);

impl Progress {
    /// Starts it.
    pub fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    /// Shows a step towards the session.
    pub fn step(&self, step: Step) {
        self.text(match step {
            Step::Connecting => "connecting",
            Step::Handshake => "checking the guest's certificate",
            Step::Evidence => "checking fresh evidence",
        });
    }

    /// Shows another text.
    pub fn text(&self, text: &'static str) {
        self.0.set_message(text);
    }

    /// Takes it away.
    pub fn finish(&self) {
        if !self.0.is_finished() {
            self.0.finish_and_clear();
        }
    }
}

/// The answer as it comes.
pub struct Answer {
    whole: String,
    quiet: bool,
}

impl Answer {
    /// Shows text as it comes, or only collects it.
    pub fn new(quiet: bool) -> Self {
        Self { whole: String::new(), quiet }
    }

    /// More text. Control characters are left out: a model's output must not steer a terminal.
    pub fn text(&mut self, text: &str) {
        let clean: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
        if !self.quiet {
            print!("{clean}");
            let _ = std::io::stdout().flush();
        }
        self.whole.push_str(&clean);
    }

    /// The text is over, complete or not.
    pub fn end(&self) {
        if !self.quiet && !self.whole.is_empty() && !self.whole.ends_with('\n') {
            println!();
        }
    }

    /// All of it.
    pub fn whole(&self) -> &str {
        self.whole.trim()
    }
}

/// The three lines of evidence.
pub fn verdict(verdict: &Verdict) {
    println!("{verdict}");
}

/// The evidence for programs.
pub fn verdict_json(verdict: &Verdict) -> Value {
    let list = |items: Vec<String>| Value::from(items);
    json!({
        "image": { "name": verdict.image.name, "version": verdict.image.version },
        "model": verdict.image.model,
        "launch_digest": verdict.launch_digest.to_string(),
        "manifest_digest": verdict.image.manifest_digest.to_string(),
        "product": verdict.product.to_string(),
        "checked": list(verdict.checked.iter().map(ToString::to_string).collect()),
        "relaxed": list(verdict.relaxed.iter().map(ToString::to_string).collect()),
        "development_root": !verdict.protects(),
        "protects": verdict.protects(),
    })
}

/// Prints one JSON object.
pub fn json(value: &Value) {
    println!("{value:#}");
}
