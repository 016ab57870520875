//! Anonymous tokens: issuing, checking, and remembering which are spent.

use super::{Figures, Subject, lines};
use crate::setup;
use anyhow::Result;

/// Tokens issued and redeemed per second, by store, and with two gateways on one store.
pub const SUBJECT: Subject =
    Subject { name: "tokens", about: "anonymous tokens: issuing, checking, stores of spent ones", run };

fn run(figures: &mut Figures<'_>) -> Result<()> {
    setup::for_stores()?;
    lines::add(figures, "bench -p privacy --bench tokens")
}
