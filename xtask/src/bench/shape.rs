//! What an observer of sizes and times can tell: two classes of chats go through the service on this host, with and without
//! the traffic shape of REQUIREMENTS C6, and a classifier guesses the class from the ciphertext.

mod chats;
mod classifier;
mod host;

use super::{Figures, Subject};
use crate::capture::{Observer, Record};
use anyhow::{Context, Result, ensure};
use chats::{Class, Dice};
use classifier::{Auc, Example, auc};
use client::session::Session;
use client::{policy, task};
use host::Host;
use std::sync::Arc;
use std::time::Duration;
use wire::task::SummarizeRequest;

/// See the module.
pub const SUBJECT: Subject =
    Subject { name: "shape", about: "what sizes and times of the ciphertext tell of a chat", run };

/// Clients at the same time, each with a connection and an observer of its own.
const CLIENTS: u64 = 4;
/// Exchanges for each client, of a class that chance picks.
const EXCHANGES: usize = 180;
const PATIENCE: Duration = Duration::from_secs(60);
const COMMAND: &str = "cargo bench-all shape";

fn run(figures: &mut Figures<'_>) -> Result<()> {
    for (is_shaped, name) in [(false, "without shape"), (true, "with shape")] {
        for (what, classes) in chats::EXPERIMENTS {
            let name = format!("{what}, {name}");
            let only = &figures.options().only;
            if !only.is_empty() && !only.iter().any(|words| name.contains(words)) {
                continue;
            }
            let host = Host::start(is_shaped)?;
            let examples = capture(&host, is_shaped, *classes)?;
            let mut add = |of: &str, kept: std::ops::Range<usize>| {
                let kept: Vec<Example> = examples.iter().map(|example| example.only(kept.clone())).collect();
                let Auc { area, margin } = auc(&kept);
                figures.add(format!("{name}: AUC of {of}"), area, "AUC", COMMAND);
                figures.add(format!("{name}: 95 % of {of}, plus or minus"), margin, "AUC", COMMAND);
            };
            add("sizes and times", 0..FEATURES);
            add("sizes", SIZES);
            add("times", TIMES);
            // Which one it is.
            for (feature, of) in NAMES.iter().enumerate() {
                add(of, feature..feature + 1);
            }
            let seconds = examples.iter().map(|example| example.features[DURATION]).sum::<f64>();
            let mean = 1000.0 * seconds / examples.len() as f64;
            figures.add(format!("{name}: mean duration of an answer"), mean, "ms", COMMAND);
        }
    }
    Ok(())
}

/// Exchanges of both classes, from several clients at once.
fn capture(host: &Host, is_shaped: bool, classes: [Class; 2]) -> Result<Vec<Example>> {
    let clients: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> =
            (0..CLIENTS).map(|seed| scope.spawn(move || client(host, is_shaped, classes, seed))).collect();
        handles.into_iter().map(|handle| handle.join()).collect()
    });
    let mut examples = Vec::new();
    for client in clients {
        examples.extend(client.map_err(|_| anyhow::anyhow!("a client panicked"))??);
    }
    Ok(examples)
}

fn client(host: &Host, is_shaped: bool, classes: [Class; 2], seed: u64) -> Result<Vec<Example>> {
    let observer = Observer::before(host.address())?;
    let policy = Arc::new(policy::load(host.policy())?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut dice = Dice::new(seed);
    let mut examples = Vec::new();
    runtime.block_on(async {
        let session = Session::connect(observer.address(), policy, PATIENCE, |_| {}).await?;
        let mut session = if is_shaped { session } else { session.without_padding() };
        let mut before = observer.latest().len();
        // The first exchange of a connection is not like the others and is left out.
        for turn in 0..=EXCHANGES {
            // By chance: in turns, what one exchange leaves behind would show in the next.
            let class = dice.below(2);
            let request = SummarizeRequest { messages: classes[class](&mut dice), max_tokens: None };
            task::summarize(&mut session, &request, |_| {}).await?;
            let records = observer.latest().split_off(before);
            before += records.len();
            if turn > 0 {
                examples.push(Example { features: features(&records)?, is_second: class == 1 });
            }
        }
        Ok(examples)
    })
}

/// What is made of an exchange: these of its sizes and these of its times.
const FEATURES: usize = 12;
const SIZES: std::ops::Range<usize> = 0..6;
const TIMES: std::ops::Range<usize> = 6..FEATURES;
const DURATION: usize = 6;
const NAMES: [&str; FEATURES] = [
    "bytes asked",
    "bytes answered",
    "records",
    "mean size",
    "spread of sizes",
    "largest size",
    "time to the last record",
    "time to the first record",
    "mean gap",
    "spread of gaps",
    "largest gap",
    "mean time",
];

/// Sums, means, spreads and extremes of what an observer sees of one exchange.
fn features(records: &[Record]) -> Result<[f64; FEATURES]> {
    let (asked, answer): (Vec<&Record>, Vec<&Record>) = records.iter().partition(|r| r.from_client);
    let first = asked.first().context("an exchange without a request")?.at;
    ensure!(!answer.is_empty(), "an exchange without an answer");
    let lengths = |records: &[&Record]| records.iter().map(|r| r.length as f64).collect::<Vec<_>>();
    let sent = lengths(&answer);
    let times: Vec<f64> = answer.iter().map(|r| (r.at.saturating_sub(first)).as_secs_f64()).collect();
    let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let (size, size_spread) = moments(&sent);
    let (gap, gap_spread) = moments(&gaps);
    let largest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    Ok([
        lengths(&asked).iter().sum(),
        sent.iter().sum(),
        sent.len() as f64,
        size,
        size_spread,
        largest(&sent),
        times.last().copied().unwrap_or(0.0),
        times.first().copied().unwrap_or(0.0),
        gap,
        gap_spread,
        largest(&gaps),
        times.iter().sum::<f64>() / times.len() as f64,
    ])
}

/// Mean and standard deviation.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, square.sqrt())
}
