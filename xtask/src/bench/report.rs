//! How results are shown: a table for people, JSON for scripts, both with machine and commit.

use super::Figure;
use crate::build;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

#[derive(Serialize)]
struct Results<'a> {
    commit: String,
    /// Whether files differ from the commit.
    changed: bool,
    processor: String,
    processors: usize,
    figures: &'a [Figure],
}

/// The results as JSON.
pub fn json(figures: &[Figure]) -> Result<String> {
    let git = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("git").args(arguments).current_dir(build::root()).output();
        let output = output.context("cannot start git")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let results = Results {
        commit: git(&["rev-parse", "HEAD"])?,
        changed: !git(&["status", "--porcelain"])?.is_empty(),
        processor: model.map_or("unknown", |(_, name)| name).to_owned(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        figures,
    };
    Ok(serde_json::to_string_pretty(&results)? + "\n")
}

/// The figures of an earlier run; none where there is no such file.
pub fn read(path: &Path) -> Result<Vec<Figure>> {
    #[derive(Deserialize)]
    struct Earlier {
        figures: Vec<Figure>,
    }
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let Earlier { figures } =
        serde_json::from_slice(&text).with_context(|| format!("{} is not of a run", path.display()))?;
    Ok(figures)
}

/// The results as a table, a command below the figures that it gives.
pub fn table(figures: &[Figure]) -> String {
    let width = figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut subject = "";
    for (index, figure) in figures.iter().enumerate() {
        if figure.subject != subject {
            subject = &figure.subject;
            let _ = writeln!(text, "\n{subject}");
        }
        let _ = writeln!(text, "  {:<width$}  {:>15} {}", figure.name, number(figure.value), figure.unit);
        let last = figures.get(index + 1).is_none_or(|next| next.command != figure.command);
        if last {
            let _ = writeln!(text, "    $ {}", figure.command);
        }
    }
    text
}

/// A number as a person reads it: whole numbers in groups of three digits, others with what matters of them.
pub fn number(value: f64) -> String {
    if value.fract() != 0.0 {
        return if value.abs() < 10.0 { format!("{value:.3}") } else { format!("{value:.1}") };
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let shown = [0.0, 999.0, 1000.0, -1_234_567.0, 1.0 / 3.0, 12.3456].map(number);
        assert_eq!(shown, ["0", "999", "1,000", "-1,234,567", "0.333", "12.3"]);
    }

    #[test]
    fn a_command_stands_once_below_its_figures() {
        let figure = |name: &str, command: &str| Figure {
            subject: "s".into(),
            name: name.into(),
            value: 1.0,
            unit: "bytes".into(),
            command: command.into(),
        };
        let text = table(&[figure("a", "x"), figure("b", "x"), figure("c", "y")]);
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert_eq!((lines[0], lines[3], lines[5]), ("s", "$ x", "$ y"));
    }
}
