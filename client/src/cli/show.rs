//! What a person sees: progress on standard error, the answer and the evidence on standard output.

use super::Failure;
use attestation::verifier::Verdict;
use client::session::{Session, Step};
use client::text::printable;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{self, Write};
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
    written: io::Result<()>,
}

impl Answer {
    /// Shows text as it comes, or only collects it.
    pub fn new(quiet: bool) -> Self {
        Self { whole: String::new(), quiet, written: Ok(()) }
    }

    /// More text, without what a model's output could steer a terminal with.
    pub fn text(&mut self, text: &str) {
        let clean = printable(text);
        self.write(&clean);
        self.whole.push_str(&clean);
    }

    /// The text is over, complete or not; says whether all of it could be shown.
    pub fn end(&mut self) -> io::Result<()> {
        if !self.whole.is_empty() && !self.whole.ends_with('\n') {
            self.write("\n");
        }
        std::mem::replace(&mut self.written, Ok(()))
    }

    /// All of it.
    pub fn whole(&self) -> &str {
        self.whole.trim()
    }

    fn write(&mut self, text: &str) {
        if !self.quiet && self.written.is_ok() {
            let mut out = io::stdout();
            self.written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }
}

/// A failure, on standard error.
pub fn error(failure: &Failure) {
    say("error", &failure.to_string());
}

/// Something that is good to know, on standard error.
pub fn note(text: &str) {
    say("note", text);
}

fn say(kind: &str, text: &str) {
    // Where there is no standard error, nobody can be told so.
    let _ = writeln!(io::stderr(), "{kind}: {}", printable(text));
}

/// The three lines of evidence.
pub fn verdict(verdict: &Verdict) -> io::Result<()> {
    writeln!(io::stdout(), "{}", printable(&verdict.to_string()))
}

/// The evidence for programs.
pub fn evidence_json(session: &Session) -> Value {
    let verdict = session.verdict();
    let list = |items: Vec<String>| Value::from(items);
    json!({
        "image": { "name": verdict.image.name, "version": verdict.image.version },
        "model": verdict.image.model,
        "launch_digest": verdict.launch_digest.to_string(),
        "manifest_digest": verdict.image.manifest_digest.to_string(),
        "product": verdict.product.to_string(),
        "log": session.logged().map(|logged| json!({
            "index": logged.index,
            "size": logged.size,
            "leaf": hex::encode(logged.leaf),
            "witnesses": logged.witnessed.witnesses,
            "cosigned": logged.witnessed.time,
            "revocations": logged.revocations,
        })),
        "key_exchange": format!("{:?}", session.key_exchange()),
        "checked": list(verdict.checked.iter().map(ToString::to_string).collect()),
        "relaxed": list(verdict.relaxed.iter().map(ToString::to_string).collect()),
        "development_root": !verdict.protects(),
        "protects": verdict.protects(),
    })
}

/// Prints one JSON object.
pub fn json(value: &Value) -> io::Result<()> {
    writeln!(io::stdout(), "{value:#}")
}
