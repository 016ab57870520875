//! What a boot costs: instructions and exits of the guest from its first instruction to "the guest is listening".
//!
//! QEMU counts instructions (`-icount`, one thread), so everything repeats exactly. An iteration of a string instruction is
//! one there, as is each of the some 80 instructions with which the model enters and leaves the guest; processors count less.

use super::{Figures, Subject};
use crate::guest::{Guest, Start};
use crate::{build, manifest};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;
use wire::event::{DeviceKind, Event};

/// Instructions and exits of a boot.
pub const SUBJECT: Subject =
    Subject { name: "boot", about: "instructions and exits until the guest listens, by RAM and vCPUs", run };

const COMMAND: &str = "cargo bench-all boot";
const GIB: [u32; 3] = [1, 4, 16];
const VCPUS: [u32; 3] = [1, 2, 4];
/// Ticks of an instruction under the launcher's `-icount shift=1`.
const TICKS: u64 = 2;

/// What the guest had cost when it said something, the first and the last time that it did.
pub(super) struct Boot(Vec<(u64, Cost)>);

#[derive(Clone, Copy)]
pub(super) struct Cost {
    pub instructions: u64,
    exits: u64,
}

fn run(figures: &mut Figures<'_>) -> Result<()> {
    let folder = build::target()?.join("bench/boot");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut validation = Vec::new();
    for gib in GIB {
        for vcpus in VCPUS {
            let boot = boot(&folder, gib, vcpus)?;
            let listening = boot.last(Event::Listening { port: 0 })?;
            let weights = boot.until_verified()?;
            let name = |what: &str| format!("{what}, {gib} GiB, {vcpus} vCPUs");
            let millions = |instructions: u64| instructions as f64 / 1e6;
            figures.add(name("exits"), listening.exits as f64, "1", COMMAND);
            let rest = listening.instructions - weights;
            figures.add(name("instructions"), millions(listening.instructions), "M", COMMAND);
            figures.add(name("instructions but for the weights"), millions(rest), "M", COMMAND);
            if vcpus == VCPUS[0] {
                validation
                    .push((gib, boot.stage(Event::EntropyReady {}, Event::MemoryValidated { mib: 0 })?));
            }
            if (gib, vcpus) == (GIB[0], VCPUS[0]) {
                for (what, from, to) in stages() {
                    figures.add(
                        format!("instructions: {what}"),
                        millions(boot.stage(from, to)?),
                        "M",
                        COMMAND,
                    );
                }
            }
        }
    }
    if let [(few, least), .., (many, most)] = validation[..] {
        let each = (most - least) as f64 / f64::from(many - few);
        figures.add("instructions of validation for each further GiB", each / 1e6, "M", COMMAND);
    }
    Ok(())
}

/// The parts of a boot, each between two events.
fn stages() -> [(&'static str, Event, Event); 7] {
    let (random, memory, attested) =
        (Event::EntropyReady {}, Event::MemoryValidated { mib: 0 }, Event::Attested {});
    let (copied, verified) = (Event::WeightsProgress { percent: 0 }, Event::WeightsVerified { bytes: 0 });
    [
        ("entropy", Event::Started {}, random),
        ("taking memory over", random, memory),
        ("a report", memory, attested),
        ("disk, and copying the weights", attested, copied),
        ("hashing the weights", copied, verified),
        ("loading the model", verified, Event::ModelReady {}),
        (
            "card, key, certificate, and evaluating the tasks' instructions",
            Event::ModelReady {},
            Event::Listening { port: 0 },
        ),
    ]
}

fn boot(folder: &Path, gib: u32, vcpus: u32) -> Result<Boot> {
    let file = folder.join("manifest.toml");
    let values = [("machine", "memory_mib", i64::from(gib) << 10), ("machine", "vcpus", vcpus.into())];
    manifest::variant(&file, &build::weights(), &values)?;
    counted(folder, &file)
}

/// Builds the image of a manifest into `folder` and boots it until it listens.
pub(super) fn counted(folder: &Path, manifest: &Path) -> Result<Boot> {
    build::image_of(manifest, folder)?;
    let rom = folder.join("cloister.rom");
    let state = folder.join("state").to_str().context("a path is not UTF-8")?.to_owned();
    let arguments = vec!["--icount".into(), "--json".into(), "--state".into(), state];
    let mut guest = Guest::boot(&Start { image: &rom, weights: &build::weights(), arguments })?;
    // The counts come a moment after the event.
    let counts = format!("\"event\":{},", code(Event::Listening { port: 0 }));
    guest.wait_for(&counts, Duration::from_secs(60))?;
    ensure!(guest.stop()?.success(), "the launcher did not end cleanly:\n{}", guest.output());
    Ok(Boot::read(&guest.output()))
}

/// The number by which the model's counts name an event: the third and fourth byte of its encoding.
fn code(event: Event) -> u64 {
    let bytes = event.encode();
    u16::from_le_bytes([bytes[2], bytes[3]]).into()
}

impl Boot {
    /// Reads what the launcher said.
    fn read(text: &str) -> Self {
        let counts = text.lines().filter_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let number = |name: &str| line["counts"][name].as_u64();
            let instructions = number("guest_ticks")? / TICKS;
            Some((number("event")?, Cost { instructions, exits: number("exits")? }))
        });
        Self(counts.collect())
    }

    pub(super) fn last(&self, event: Event) -> Result<Cost> {
        let found = self.0.iter().rev().find(|(said, _)| *said == code(event));
        found.map(|(_, cost)| *cost).with_context(|| format!("the guest did not say {}", event.name()))
    }

    fn first(&self, event: Event) -> Result<Cost> {
        let found = self.0.iter().find(|(said, _)| *said == code(event));
        found.map(|(_, cost)| *cost).with_context(|| format!("the guest did not say {}", event.name()))
    }

    pub(super) fn stage(&self, from: Event, to: Event) -> Result<u64> {
        Ok(self.last(to)?.instructions - self.last(from)?.instructions)
    }

    /// Instructions from where the disk is ready to where the weights are verified: copying and hashing.
    fn until_verified(&self) -> Result<u64> {
        let disk = self.first(Event::DeviceReady { device: DeviceKind::Weights })?;
        Ok(self.last(Event::WeightsVerified { bytes: 0 })?.instructions - disk.instructions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_by_their_event() {
        let line = |event: Event, ticks: u64| {
            let (code, exits) = (code(event), ticks / 10);
            format!(
                "{{\"seconds\":1,\"counts\":{{\"event\":{code},\"guest_ticks\":{ticks},\"exits\":{exits}}}}}\n"
            )
        };
        let [disk, card] =
            [DeviceKind::Weights, DeviceKind::Network].map(|device| Event::DeviceReady { device });
        let verified = Event::WeightsVerified { bytes: 1 };
        let text = [line(disk, 20), "no line\n".into(), line(verified, 80), line(card, 100)].concat();
        let boot = Boot::read(&text);
        assert_eq!(boot.until_verified().unwrap(), 30);
        assert_eq!(boot.stage(verified, card).unwrap(), 10);
        assert_eq!(boot.last(card).unwrap().exits, 10);
        assert!(boot.last(Event::ModelReady {}).is_err());
    }
}
