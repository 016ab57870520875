//! `cargo demo`: the main job, end to end.

use crate::guest::{Guest, Start};
use crate::log::Log;
use crate::privacy::Privacy;
use crate::{build, guest, setup};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

/// Messages of the sample that are summarised.
const LAST: &str = "12";

/// Builds everything, boots the image in the SNP model and summarises a chat in an attested session, with an anonymous token
/// through relay and gateway.
pub fn run(chat: Option<PathBuf>) -> Result<()> {
    setup::for_demo()?;
    let say = |text: &str| eprintln!("demo: {text}");
    say("building the programs");
    build::programs()?;

    let folder = build::target()?.join("demo");
    let state = folder.join("state");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    say("building the image");
    build::image(&folder)?;

    say("publishing the image in a log of this machine, with two builders' keys and a witness");
    let log = Log::start(&folder.join("log"))?;
    let proof = log.publish(&folder)?;

    say("booting the image in the SNP model (software emulation, no SEV-SNP hardware: it protects nothing)");
    let start = Start {
        image: &folder.join("cloister.rom"),
        weights: &build::weights(),
        // The host attaches the log's proof to its certificates; the guest hands it on to the client.
        arguments: ["--state".as_ref(), state.as_os_str(), "--proof".as_ref(), proof.as_os_str()]
            .map(|argument| argument.to_string_lossy().into_owned())
            .to_vec(),
    };
    let mut guest = Guest::boot(&start)?;
    let policy = log.policy("0.1.0", &guest::development_root(&state))?;

    say("starting issuer, gateway and relay; their keys are in the log, too");
    let privacy = Privacy::start(&folder.join("privacy"), &log, &guest.server(), &|at| Ok(at.to_owned()))?;
    privacy.extend(&policy, privacy.relay.address())?;

    let chat = chat.unwrap_or_else(|| build::root().join("models/samples/family-android.txt"));
    say(&format!("summarising the last {LAST} messages of {}, through relay and gateway", chat.display()));
    build::run(
        Command::new(build::program("cloister")?)
            .arg("summarize")
            .arg(chat)
            .args(["--last", LAST, "--policy"])
            .arg(policy),
    )?;
    privacy.stop()?;
    guest.stop()?;
    println!("demo: ok");
    Ok(())
}
