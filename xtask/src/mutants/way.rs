//! Rows C1 to C4: what is on the way, without one defence each. There is no image to attack; the attack is the row's own test, which
//! must fail where its defence is gone.

use super::{Nursery, write_if_other};
use crate::build;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;

/// A defence, and the test that rests on it.
pub struct WayMutant {
    /// Its name, which begins with the row.
    pub name: &'static str,
    /// What is taken out.
    pub about: &'static str,
    /// File, what it says exactly once, and what it says instead.
    change: (&'static str, &'static str, &'static str),
    /// The target of `cargo test -p privacy`, and the test's name in it.
    test: (&'static str, &'static str),
}

const LIB: &str = "--lib";

/// All of them.
pub const WAY_MUTANTS: &[WayMutant] = &[
    WayMutant {
        name: "c1-no-name",
        about: "the comparison of a proof's name with the party that was asked for",
        change: ("privacy/src/keys.rs", "if logged.entry.name != *name {", "if false {"),
        test: ("--test=keys", "c1_a_key_without_a_proof_for_its_use_is_not_used"),
    },
    WayMutant {
        name: "c1-no-floor",
        about: "the memory of the newest key that was seen",
        change: ("privacy/src/keys.rs", "if proven.version < seen.version {", "if false {"),
        test: ("--test=keys", "c1_an_older_key_is_refused_once_a_newer_one_was_seen"),
    },
    WayMutant {
        name: "c1-no-check",
        about: "the client's check of each token that an issuer gives",
        change: ("privacy/src/token/request.rs", "if !self.key.verifies(&token) {", "if false {"),
        test: (LIB, "token::request::tests::c1_a_signature_that_does_not_hold_gives_no_token_of_its_batch"),
    },
    WayMutant {
        name: "c2-no-jitter",
        about: "the chance in the hour of the next fetch",
        change: ("privacy/src/token/wallet.rs", "u64::from_le_bytes(random) % JITTER", "0"),
        test: (LIB, "token::wallet::tests::c2_the_hour_of_a_fetch_is_drawn_and_does_not_follow_from_use"),
    },
    WayMutant {
        name: "c2-no-cap",
        about: "the cap on an account's tokens",
        change: ("privacy/src/issuer/quota.rs", "asked.min(self.cap.saturating_sub(had))", "asked"),
        test: (LIB, "issuer::quota::tests::c2_a_cap_holds_across_a_restart_and_for_each_epoch_and_account"),
    },
    WayMutant {
        name: "c3-no-store",
        about: "the store of spent tokens",
        change: ("privacy/src/token/till.rs", "self.spent.spend(spend).await", "Ok(drop(spend))"),
        test: ("--test=tokens", "c3_a_token_is_taken_once_also_after_a_restart"),
    },
    WayMutant {
        name: "c3-no-challenge",
        about: "the comparison of a token's challenge with the gateway's",
        change: (
            "privacy/src/token/till.rs",
            "if !self.challenges.contains(token.challenge_digest()) {",
            "if false {",
        ),
        test: ("--test=tokens", "c3_a_token_of_another_issuer_epoch_or_gateway_or_an_altered_one_is_refused"),
    },
    WayMutant {
        name: "c3-doubt-passes",
        about: "the refusal while the store is silent",
        change: (
            "privacy/src/token/spent/mod.rs",
            "Ok(Err(_)) | Err(_) => Err(Refusal::Unavailable)",
            "Ok(Err(_)) | Err(_) => Ok(())",
        ),
        test: ("--test=spent", "c3_a_store_that_is_silent_means_a_refusal_in_bounded_time"),
    },
];

impl WayMutant {
    /// Whether it is meant by a name, or by its row.
    pub fn is_meant(&self, name: &str) -> bool {
        name == self.name || self.name.split('-').next() == Some(name)
    }

    /// Makes its change to `files`, which are read from the checkout where they are not there yet.
    fn patch(&self, files: &mut BTreeMap<&'static str, String>) -> Result<()> {
        let (file, from, to) = self.change;
        let text = match files.entry(file) {
            Entry::Occupied(text) => text.into_mut(),
            Entry::Vacant(place) => place.insert(original(file)?),
        };
        let count = text.matches(from).count();
        ensure!(count == 1, "{}: {file} has {count} times what is to be changed:\n{from}", self.name);
        *text = text.replacen(from, to, 1);
        Ok(())
    }
}

fn original(file: &str) -> Result<String> {
    fs::read_to_string(build::root().join(file)).with_context(|| format!("cannot read {file}"))
}

/// Makes each, or all in one, and runs their tests; fails if one passes.
pub(super) fn run(chosen: &[&WayMutant], together: bool) -> Result<()> {
    let nursery = Nursery::new()?;
    println!("| mutant | what is taken out | test | what happened |\n|---|---|---|---|");
    let mut survivors = Vec::new();
    for group in chosen.chunks(if together { chosen.len() } else { 1 }) {
        let mut files = BTreeMap::new();
        group.iter().try_for_each(|mutant| mutant.patch(&mut files))?;
        for (file, text) in &files {
            write_if_other(&nursery.source.join(file), text.as_bytes())?;
        }
        let outcomes: Result<Vec<bool>> = group.iter().map(|mutant| mutant.survives(&nursery)).collect();
        for file in files.keys() {
            write_if_other(&nursery.source.join(file), original(file)?.as_bytes())?;
        }
        for (mutant, passed) in group.iter().zip(outcomes?) {
            let outcome = if passed { "**passed**" } else { "failed, as it must" };
            println!("| {} | {} | `{}` | {outcome} |", mutant.name, mutant.about, mutant.test.1);
            if passed {
                survivors.push(mutant.name);
            }
        }
    }
    ensure!(survivors.is_empty(), "these tests pass without their defence: {survivors:?}");
    Ok(())
}

impl WayMutant {
    /// Whether its test passes all the same.
    fn survives(&self, nursery: &Nursery) -> Result<bool> {
        let (target, test) = self.test;
        let cargo = |more: &[&str]| {
            nursery.output(
                "cargo",
                &[&["test", "--release", "--locked", "-p", "privacy", target], more].concat(),
            )
        };
        // First by itself: what does not compile has shown nothing.
        let built = cargo(&["--no-run"])?;
        ensure!(built.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&built.stderr));
        let output = cargo(&["--", "--exact", test])?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.contains("running 1 test"), "{}: there is no test {test}: {said}", self.name);
        Ok(output.status.success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_can_be_made_together() {
        let mut files = BTreeMap::new();
        WAY_MUTANTS.iter().try_for_each(|mutant| mutant.patch(&mut files)).unwrap();
    }

    #[test]
    fn every_mutant_can_be_made_and_its_test_is_there() {
        for mutant in WAY_MUTANTS {
            mutant.patch(&mut BTreeMap::new()).unwrap();
            let name = mutant.test.1.rsplit("::").next().unwrap();
            let grep = std::process::Command::new("git")
                .args(["grep", "-q", &format!("fn {name}()"), "--", "privacy"])
                .current_dir(build::root())
                .status();
            assert!(grep.unwrap().success(), "{}: no test {name}", mutant.name);
        }
    }
}
