//! The budget: what the image may cost those who read it. Its numbers only fall.

use super::Totals;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io};

/// Where the budget stands, below the checkout's root.
pub const BUDGET_FILE: &str = "image-builder/budget.toml";

/// How far a figure may lie below its budget before the budget has to follow, in percent.
const SLACK_PERCENT: u64 = 3;

/// The most that each total may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget(pub Totals);

/// Why the image is outside its budget, or the budget cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// The file cannot be read.
    #[error("the budget {BUDGET_FILE} cannot be read: {0}")]
    Read(io::Error),
    /// The file is not a budget.
    #[error("the budget {BUDGET_FILE} is not one: {0}")]
    Parse(String),
    /// More than allowed.
    #[error("{name} is {actual}, over the budget of {allowed}; find what can go, the budget does not rise")]
    Over {
        /// Which total.
        name: &'static str,
        /// What it is.
        actual: u64,
        /// What it may be.
        allowed: u64,
    },
    /// So much less than allowed that what was won could be lost again unseen.
    #[error("{name} fell to {actual}; lower its budget of {allowed} in {BUDGET_FILE} to keep that")]
    Loose {
        /// Which total.
        name: &'static str,
        /// What it is.
        actual: u64,
        /// What it may be.
        allowed: u64,
    },
    /// A budget rose between two versions of the file.
    #[error("the budget of {name} rose from {before} to {after}; budgets only fall")]
    Rose {
        /// Which total.
        name: &'static str,
        /// The older budget.
        before: u64,
        /// The newer budget.
        after: u64,
    },
}

fn fields(totals: &Totals) -> [(&'static str, u64); 5] {
    [
        ("image_bytes", totals.image_bytes),
        ("crates", totals.crates),
        ("dependency_lines", totals.dependency_lines),
        ("own_lines", totals.own_lines),
        ("unsafe_blocks", totals.unsafe_blocks),
    ]
}

impl Budget {
    /// Reads the budget of the checkout at `root`.
    pub fn load(root: &Path) -> Result<Self, BudgetError> {
        Self::parse(&fs::read_to_string(root.join(BUDGET_FILE)).map_err(BudgetError::Read)?)
    }

    /// Reads the text of a budget file.
    pub fn parse(text: &str) -> Result<Self, BudgetError> {
        toml::from_str(text).map(Self).map_err(|error| BudgetError::Parse(error.to_string()))
    }

    /// Holds `totals` against the budget, in both directions.
    pub fn check(&self, totals: &Totals) -> Result<(), BudgetError> {
        for ((name, allowed), (_, actual)) in fields(&self.0).into_iter().zip(fields(totals)) {
            if actual > allowed {
                return Err(BudgetError::Over { name, actual, allowed });
            }
            if actual * 100 < allowed * (100 - SLACK_PERCENT) {
                return Err(BudgetError::Loose { name, actual, allowed });
            }
        }
        Ok(())
    }

    /// The budget before the checkout's: that of its last commit if the file was changed since, else that of the commit
    /// before the file's last change. `None` without a history, as in a source archive or a shallow clone.
    pub fn before(root: &Path) -> Result<Option<Self>, BudgetError> {
        let git = |arguments: &[&str]| {
            let output =
                Command::new("git").arg("-C").arg(root).args(arguments).stdin(Stdio::null()).output();
            let output = output.ok().filter(|output| output.status.success())?;
            String::from_utf8(output.stdout).ok()
        };
        let at = |commit: &str| git(&["show", &format!("{commit}:./{BUDGET_FILE}")]);
        let Some(newest) = at("HEAD") else { return Ok(None) };
        let now = fs::read_to_string(root.join(BUDGET_FILE)).map_err(BudgetError::Read)?;
        let before = if now == newest {
            let changes = git(&["log", "-2", "--format=%H", "--", BUDGET_FILE]).unwrap_or_default();
            changes.lines().nth(1).and_then(at)
        } else {
            Some(newest)
        };
        before.map(|text| Self::parse(&text)).transpose()
    }

    /// Checks that this budget, newer than `before`, raises nothing.
    pub fn follows(&self, before: &Self) -> Result<(), BudgetError> {
        for ((name, before), (_, after)) in fields(&before.0).into_iter().zip(fields(&self.0)) {
            if after > before {
                return Err(BudgetError::Rose { name, before, after });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTALS: Totals = Totals {
        image_bytes: 1000,
        crates: 100,
        dependency_lines: 1000,
        own_lines: 1000,
        unsafe_blocks: 100,
    };

    #[test]
    fn a_total_may_be_neither_over_its_budget_nor_far_below() {
        let budget = Budget(TOTALS);
        assert!(budget.check(&TOTALS).is_ok());
        let more = Totals { own_lines: 1001, ..TOTALS };
        assert!(matches!(budget.check(&more), Err(BudgetError::Over { name: "own_lines", .. })));
        let less = Totals { unsafe_blocks: 96, ..TOTALS };
        assert!(matches!(budget.check(&less), Err(BudgetError::Loose { name: "unsafe_blocks", .. })));
    }

    #[test]
    fn a_budget_may_fall_but_not_rise() {
        let (high, low) = (Budget(TOTALS), Budget(Totals { crates: 99, ..TOTALS }));
        assert!(low.follows(&high).is_ok());
        assert!(matches!(high.follows(&low), Err(BudgetError::Rose { name: "crates", .. })));
    }

    #[test]
    fn the_budget_before_is_the_one_that_git_has() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |crates: u64| {
            let text = format!(
                "image_bytes = 9\ncrates = {crates}\ndependency_lines = 9\nown_lines = 9\nunsafe_blocks = 9\n"
            );
            fs::create_dir_all(root.join("image-builder")).unwrap();
            fs::write(root.join(BUDGET_FILE), text).unwrap();
        };
        let git = |arguments: &[&str]| {
            let who = ["-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false"];
            let done = Command::new("git").arg("-C").arg(root).args(who).args(arguments).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        };
        let before = || Budget::before(root).unwrap().map(|budget| budget.0.crates);
        write(61);
        assert_eq!(before(), None);
        git(&["init", "--quiet"]);
        git(&["add", "."]);
        git(&["commit", "--quiet", "--message", "first"]);
        assert_eq!(before(), None);
        write(60);
        assert_eq!(before(), Some(61));
        git(&["commit", "--quiet", "--all", "--message", "second"]);
        assert_eq!(before(), Some(61));
        git(&["commit", "--quiet", "--allow-empty", "--message", "third"]);
        assert_eq!(before(), Some(61));
        write(62);
        let raised = Budget::load(root).unwrap().follows(&Budget::before(root).unwrap().unwrap());
        assert!(matches!(raised, Err(BudgetError::Rose { name: "crates", before: 60, after: 62 })));
    }

    #[test]
    fn a_budget_with_another_field_or_without_one_is_refused() {
        assert!(Budget::parse("image_bytes = 1").is_err());
        assert!(Budget::parse("what = 1").is_err());
    }
}
