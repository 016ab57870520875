//! Relay and gateway: what a core serves, what each hop adds, what open sessions hold, and two gateways beside one.

use super::{Figures, Subject, lines};
use crate::setup;
use anyhow::Result;

/// Each part of the benchmark can be asked for by `--only`.
const PARTS: [&str; 5] = ["relay", "gateway", "latency", "memory", "scaling"];

/// See the module.
pub const SUBJECT: Subject =
    Subject { name: "privacy", about: "relay and gateway: requests, latency, memory, scaling", run };

fn run(figures: &mut Figures<'_>) -> Result<()> {
    setup::for_stores()?;
    setup::for_load()?;
    let only = figures.options().only.clone();
    for part in PARTS.into_iter().filter(|part| only.is_empty() || only.iter().any(|word| word == part)) {
        lines::add(figures, &format!("bench -p privacy --bench way -- {part}"))?;
    }
    Ok(())
}
