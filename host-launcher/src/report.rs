//! What happens, for a person or for a program.

use crate::ending::Ending;
use crate::supervise::Happening;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Instant;
use wire::event::Event;

/// Writes down what happens: on standard output, and in a file as JSON if one was asked for.
pub struct Report {
    json: bool,
    file: Option<File>,
    listen: SocketAddrV4,
    start: Instant,
}

impl Report {
    /// Begins a report. `events` is opened for appending.
    pub fn new(json: bool, events: Option<&Path>, listen: SocketAddrV4) -> io::Result<Self> {
        let file = events.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Self { json, file, listen, start: Instant::now() })
    }

    /// Something to know before the guest starts.
    pub fn note(&mut self, name: &str, value: &str) {
        self.line(&format!("{name}: {value}"), json!({ "note": name, "value": value }));
    }

    /// Something happened.
    pub fn tell(&mut self, happening: &Happening) {
        let seconds = self.start.elapsed().as_secs_f64();
        match happening {
            Happening::Event(event) => {
                self.line(&event_line(seconds, *event), event_json(seconds, *event));
                if matches!(event, Event::Listening { .. }) {
                    let address = self.listen.to_string();
                    self.line(&format!("listening on {address}"), json!({ "listening": address }));
                }
            }
            Happening::ModelLine(line) => {
                self.line(
                    &format!("{seconds:9.3} snp-model: {line}"),
                    json!({ "seconds": seconds, "model": line }),
                );
            }
            Happening::QemuLine(line) => {
                self.line(
                    &format!("{seconds:9.3} qemu: {line}"),
                    json!({ "seconds": seconds, "qemu": line }),
                );
            }
            // Numbers for programs; a person is not shown them after every event.
            Happening::Counts(counts) => {
                let counts: serde_json::Map<String, Value> =
                    counts.iter().map(|(name, count)| (name.clone(), (*count).into())).collect();
                self.object(&json!({ "seconds": seconds, "counts": counts }));
            }
            Happening::Stop | Happening::Closed => {}
        }
    }

    /// The guest has ended. A person reads the reason last, on standard error.
    pub fn end(&mut self, ending: &Ending) {
        let text = ending.to_string();
        let code = ending.exit_code();
        eprintln!("cloister-launch: {text}");
        let object = json!({ "ended": code, "reason": text });
        if self.json {
            println!("{object}");
        }
        if let Some(file) = &mut self.file {
            let _ = writeln!(file, "{object}");
        }
    }

    /// Something that only programs read.
    fn object(&mut self, json: &Value) {
        if self.json {
            let mut output = io::stdout().lock();
            let _ = writeln!(output, "{json}").and_then(|()| output.flush());
        }
        if let Some(file) = &mut self.file {
            let _ = writeln!(file, "{json}");
        }
    }

    fn line(&mut self, text: &str, json: Value) {
        // Whoever read this may have gone; the guest is served on.
        let mut output = io::stdout().lock();
        let written = if self.json { writeln!(output, "{json}") } else { writeln!(output, "{text}") };
        let _ = written.and_then(|()| output.flush());
        if let Some(file) = &mut self.file {
            let _ = writeln!(file, "{json}");
        }
    }
}

fn event_line(seconds: f64, event: Event) -> String {
    let numbers = format!("{event:?}");
    let numbers = numbers.trim_start_matches(event.name()).trim();
    format!("{seconds:9.3} {}{}{numbers}", event.explain(), if numbers.is_empty() { "" } else { " " })
}

fn event_json(seconds: f64, event: Event) -> Value {
    let bytes = event.encode();
    let detail = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let value = bytes[8..].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    json!({ "seconds": seconds, "event": event.name(), "detail": detail, "value": value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::event::DeviceKind;

    #[test]
    fn an_event_is_a_line_or_an_object() {
        let event = Event::WeightsVerified { bytes: 0x1_0000_0002 };
        assert_eq!(
            event_line(1.5, event),
            "    1.500 the weights are those of the manifest { bytes: 4294967298 }"
        );
        let object = event_json(1.5, event);
        assert_eq!(object["event"], "WeightsVerified");
        assert_eq!(object["value"], 0x1_0000_0002u64);
        assert_eq!(event_json(0.0, Event::DeviceReady { device: DeviceKind::Weights })["detail"], 2);
        assert_eq!(event_line(0.0, Event::Started {}), "    0.000 the image has started");
    }
}
