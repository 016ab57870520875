//! Many boots in a row: what fails once in a thousand shows.

use crate::guest::{Guest, Start};
use crate::{build, setup};
use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Instant;

/// How often, and on what.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo run --release -p xtask -- boots\n  cargo run --release -p xtask -- boots 100 --vcpus 2 --container igvm"
)]
pub struct Options {
    /// Boots.
    #[arg(default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// vCPUs of each guest; the default is what the image's manifest says.
    #[arg(long, value_name = "N")]
    pub vcpus: Option<u32>,
    /// Container that is booted.
    #[arg(long, value_name = "NAME", default_value = "rom", value_parser = ["rom", "igvm"])]
    pub container: String,
}

/// Boots the default image in the SNP model until it listens, ends it, and so on; an error names every failure.
pub fn run(options: &Options) -> Result<()> {
    setup::for_demo()?;
    build::programs()?;
    let folder = build::target()?.join("boots");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    build::image(&folder)?;
    let image = folder.join("cloister").with_extension(&options.container);
    let weights = build::weights();
    let progress = ProgressBar::new(options.count.into()).with_style(
        ProgressStyle::with_template("{pos}/{len} boots, {msg} failed, {eta} left").context("a template")?,
    );
    progress.set_message("0");
    let mut failures = Vec::new();
    let mut seconds = Vec::new();
    for number in 1..=options.count {
        let mut arguments = vec!["--state".into(), folder.join("state").display().to_string()];
        arguments.extend(options.vcpus.into_iter().flat_map(|count| ["--vcpus".into(), count.to_string()]));
        let start = Start { image: &image, weights: &weights, arguments };
        let started = Instant::now();
        match Guest::boot(&start).and_then(|mut guest| guest.stop()) {
            Ok(status) if status.success() => seconds.push(started.elapsed().as_secs_f64()),
            Ok(status) => failures.push(format!("boot {number}: the launcher ended with {status}")),
            Err(error) => failures.push(format!("boot {number}: {error:#}")),
        }
        progress.inc(1);
        progress.set_message(failures.len().to_string());
    }
    progress.finish_and_clear();
    seconds.sort_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (seconds.first(), seconds.last()) {
        let median = seconds[seconds.len() / 2];
        println!(
            "boots: {} of {} listened and ended cleanly ({}); seconds to listen and end: {least:.1} to {most:.1}, \
             median {median:.1}",
            seconds.len(),
            options.count,
            options.container
        );
    }
    ensure!(failures.is_empty(), "{} boots failed:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}
