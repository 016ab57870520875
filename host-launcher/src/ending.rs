//! How a guest ended, and what that means for a person and for a script.

use std::fmt;
use wire::event::Event;
use wire::termination::{REASON_SET, Termination};

/// QEMU's exit status when the SNP model writes `value` to the debug-exit port.
const fn debug_exit(value: i32) -> i32 {
    value << 1 | 1
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The operator asked for it.
    Stopped,
    /// The guest ended itself, for this reason if it said one.
    Terminated(Option<(Termination, u64)>),
    /// The guest broke a rule of SEV-SNP; real hardware would not have gone on.
    Violation(String),
    /// The SNP model broke.
    ModelBroke(String),
    /// QEMU ended without any of these.
    QemuDied {
        /// Its exit status; `None` if a signal ended it.
        status: Option<i32>,
        /// What it said last.
        said: String,
    },
}

/// What was seen of a guest by the time it ended.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The operator asked for an end.
    pub stop: bool,
    /// The guest's own last words.
    pub terminating: Option<(Termination, u64)>,
    /// What the SNP model said last.
    pub model_line: Option<String>,
    /// What QEMU said last.
    pub qemu_lines: Vec<String>,
}

impl Seen {
    /// Remembers an event that says something about the end.
    pub fn event(&mut self, event: Event) {
        if let Event::Terminating { reason, value } = event {
            self.terminating = Some((reason, value));
        }
    }

    /// The ending, given QEMU's exit status (`None` if a signal ended it).
    pub fn ending(self, status: Option<i32>) -> Ending {
        let model_line = self.model_line.unwrap_or_default();
        let after =
            |what: &str| model_line.split_once(what).map_or(&*model_line, |(_, rest)| rest).trim().to_owned();
        const TERMINATED: i32 = debug_exit(0x10);
        const VIOLATION: i32 = debug_exit(0x11);
        const INTERNAL: i32 = debug_exit(0x12);
        match status {
            _ if self.stop => Ending::Stopped,
            Some(TERMINATED) => Ending::Terminated(self.terminating.or_else(|| reason_in(&model_line))),
            Some(VIOLATION) => Ending::Violation(after("violation:")),
            Some(INTERNAL) => Ending::ModelBroke(after("internal:")),
            _ if self.terminating.is_some() => Ending::Terminated(self.terminating),
            _ => Ending::QemuDied { status, said: self.qemu_lines.join("\n") },
        }
    }
}

/// The reason in the model's line `guest terminated: set S code C`, for a guest that had no events yet.
fn reason_in(line: &str) -> Option<(Termination, u64)> {
    let mut words = line.split_once("guest terminated:")?.1.split_whitespace();
    let mut number = |name: &str| words.by_ref().skip_while(|w| *w != name).nth(1).and_then(number);
    let (set, code) = (number("set")?, number("code")?);
    let reason = Termination::from_code(code)?;
    (set == REASON_SET).then_some((reason, 0))
}

fn number(text: &str) -> Option<u8> {
    let text = text.trim_end_matches([',', ';', '.']);
    match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

impl Ending {
    /// The exit code of its class, as `--help` lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Terminated(_) => 10,
            Self::Violation(_) => 11,
            Self::ModelBroke(_) => 12,
            Self::QemuDied { .. } => 13,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped, as you asked"),
            Self::Terminated(Some((reason, value))) => {
                write!(f, "the guest ended itself ({reason:?}, {value:#x}): {}", reason.explain())
            }
            Self::Terminated(None) => f.write_str(
                "the guest ended itself with a reason that this launcher does not know; use the launcher of the image's version",
            ),
            Self::Violation(what) => {
                write!(f, "the guest broke a rule of SEV-SNP, which is a defect of the image: {what}")
            }
            Self::ModelBroke(what) => write!(f, "the SNP model broke, which is a defect of it: {what}"),
            Self::QemuDied { status, said } => {
                match status {
                    Some(0) => f.write_str("the guest is gone without a word, as after a triple fault")?,
                    Some(status) => write!(f, "QEMU ended with status {status}")?,
                    None => f.write_str("QEMU was ended by a signal")?,
                }
                match said.as_str() {
                    "" => f.write_str("; start it again, and with `--qmp` to look inside"),
                    said => write!(f, "; it said:\n{said}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_of_qemu_has_its_meaning() {
        let model_said = |line: &str| Seen { model_line: Some(line.into()), ..Seen::default() };
        let reason = (Termination::WeightsMismatch, 3);
        let told = Seen { terminating: Some(reason), ..Seen::default() };
        for (seen, status, ending, code) in [
            (Seen { stop: true, ..Seen::default() }, None, Ending::Stopped, 0),
            (told.clone(), Some(33), Ending::Terminated(Some(reason)), 10),
            (told, Some(0), Ending::Terminated(Some(reason)), 10),
            (
                model_said("snp-model: guest terminated: set 5 code 3"),
                Some(33),
                Ending::Terminated(Some((Termination::CBit, 0))),
                10,
            ),
            (model_said("snp-model: guest terminated: set 0 code 3"), Some(33), Ending::Terminated(None), 10),
            (
                model_said("snp-model: guest terminated: set 5 code 200"),
                Some(33),
                Ending::Terminated(None),
                10,
            ),
            (
                model_said("snp-model: violation: PVALIDATE twice at 0x200000"),
                Some(35),
                Ending::Violation("PVALIDATE twice at 0x200000".into()),
                11,
            ),
            (model_said("snp-model: internal: no RAM"), Some(37), Ending::ModelBroke("no RAM".into()), 12),
            (Seen::default(), Some(1), Ending::QemuDied { status: Some(1), said: String::new() }, 13),
            (Seen::default(), None, Ending::QemuDied { status: None, said: String::new() }, 13),
        ] {
            let found = seen.ending(status);
            assert_eq!(found, ending);
            assert_eq!(found.exit_code(), code, "{found}");
        }
    }

    #[test]
    fn a_reason_is_explained() {
        let text = Ending::Terminated(Some((Termination::WeightsMismatch, 0))).to_string();
        assert!(text.contains(Termination::WeightsMismatch.explain()), "{text}");
    }

    /// Rows of the guide's tables that begin with a number and a name.
    fn rows(part: &str) -> Vec<(u16, &'static str)> {
        let row = |line: &'static str| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            Some((cells.next()?.parse().ok()?, cells.next()?.strip_prefix('`')?.strip_suffix('`')?))
        };
        let guide = include_str!("../../docs/OPERATORS.md");
        let (_, rest) = guide.split_once(part).expect("the guide has this part");
        rest.lines().skip(1).take_while(|line| !line.starts_with('#')).filter_map(row).collect()
    }

    #[test]
    fn the_operators_guide_has_a_row_for_every_event_and_every_code() {
        assert_eq!(rows("### Every event"), wire::event::Event::ALL);
        let codes = rows("### Every code with which a guest ends itself");
        let all: Vec<_> =
            Termination::ALL.iter().map(|reason| (*reason as u16, format!("{reason:?}"))).collect();
        let all: Vec<_> = all.iter().map(|(code, name)| (*code, name.as_str())).collect();
        assert_eq!(codes, all);
    }
}
