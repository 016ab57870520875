//! What values a manifest may have: everything that the guest would refuse or could not serve is refused here, by
//! name, before it is measured.

use attestation::manifest::{DeviceSlot, Limits, MAX_VCPUS, Machine, Manifest, Network};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use wire::chat::Role;

/// The tasks that the guest knows.
pub const TASKS: [&str; 4] = ["chat", "reply", "rewrite", "summarize"];
/// Longest name or version, in bytes.
const NAME_BYTES: usize = 64;
/// RAM that the guest needs besides the weights and what clients send, in MiB.
const MEMORY_FOR_ITSELF: u64 = 256;
/// Bytes of TLS and HTTP that a connection may hold besides its request bodies.
const CONNECTION_BYTES: u64 = 64 << 10;
/// Where a device's registers may lie: above all RAM below 4 GiB and q35's PCI configuration window, below the IOAPIC.
const BAR_ADDRESSES: RangeInclusive<u32> = 0xC000_0000..=0xFEBF_C000;
/// Room that a virtio device's memory BAR takes.
const BAR_BYTES: u32 = 16 << 10;

/// A value that the guest would not accept.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the manifest's `{field}` {problem}")]
pub struct OutOfBounds {
    /// The field, as in the TOML file.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

fn refuse<T>(field: &str, problem: impl Into<String>) -> Result<T, OutOfBounds> {
    Err(OutOfBounds { field: field.into(), problem: problem.into() })
}

/// Checks every value, for a model that was trained for `trained` tokens of context.
pub fn check(manifest: &Manifest, trained: u32) -> Result<(), OutOfBounds> {
    for (field, text) in [
        ("image.name", &manifest.image),
        ("image.version", &manifest.version),
        ("model.name", &manifest.model.name),
    ] {
        name(field, text)?;
    }
    limits(manifest, trained)?;
    tokens(manifest)?;
    machine(&manifest.machine, manifest.model.weights_bytes, &manifest.limits)?;
    network(&manifest.network)
}

fn name(field: &str, text: &str) -> Result<(), OutOfBounds> {
    if text.is_empty() || text.len() > NAME_BYTES || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return refuse(field, format!("must be 1 to {NAME_BYTES} visible ASCII characters without spaces"));
    }
    Ok(())
}

fn limits(manifest: &Manifest, trained: u32) -> Result<(), OutOfBounds> {
    let l = &manifest.limits;
    for (field, value, range) in [
        ("limits.context_tokens", l.context_tokens, 16..=trained),
        ("limits.output_tokens", l.output_tokens, 1..=l.context_tokens / 2),
        ("limits.sessions", l.sessions, 1..=1024),
        ("limits.connections", l.connections, l.sessions..=4096),
        ("limits.request_bytes", l.request_bytes, 1024..=16 << 20),
        ("limits.idle_ms", l.idle_ms, 1000..=3_600_000),
        ("limits.pace_ms", l.pace_ms, 5..=10_000),
        ("limits.answer_records", l.answer_records, 1..=1_000_000),
    ] {
        within(field, value, range)?;
    }
    Ok(())
}

fn within(field: &str, value: u32, range: RangeInclusive<u32>) -> Result<(), OutOfBounds> {
    if range.contains(&value) {
        return Ok(());
    }
    let why = match field {
        "limits.context_tokens" => " (the model was not trained for more)",
        "limits.output_tokens" => " (half of the context is for the prompt)",
        "limits.connections" => " (each session needs one)",
        _ => "",
    };
    refuse(field, format!("is {value}, but must be {} to {}{why}", range.start(), range.end()))
}

fn tokens(manifest: &Manifest) -> Result<(), OutOfBounds> {
    let t = &manifest.template;
    if t.stop.is_empty() {
        return refuse("template.stop", "is empty; the guest could not tell where an answer ends");
    }
    let length = |before, after| t.frame(before, after).map(|frame| frame.tokens.len());
    let (Some(user), Some(answer)) = (length(None, Some(Role::User)), length(Some(Role::User), None)) else {
        return refuse("template", "has no frame for a user's turn and the answer to it");
    };
    if answer == 0 {
        return refuse(
            "template",
            "puts no token before an answer; the guest could not tell where it begins",
        );
    }
    if manifest.tasks.is_empty() {
        return refuse("tasks", format!("is empty; name at least one of {}", TASKS.join(", ")));
    }
    let room = (manifest.limits.context_tokens - manifest.limits.output_tokens) as usize;
    for task in &manifest.tasks {
        let field = format!("tasks.{}", task.task);
        if !TASKS.contains(&task.task.as_str()) {
            return refuse(&field, format!("is not a task of the guest; choose from {}", TASKS.join(", ")));
        }
        let system = length(None, Some(Role::System)).zip(length(Some(Role::System), Some(Role::User)));
        let frame = match (task.instruction.is_empty(), system) {
            (true, _) => user,
            (false, Some((system, user))) => system + user,
            (false, None) => {
                return refuse(
                    &field,
                    "has an instruction, but the model's chat format has no system turn for it",
                );
            }
        };
        if frame + answer + task.instruction.len() > room / 2 {
            return refuse(
                &field,
                "leaves less than half of the prompt for messages; shorten the instruction",
            );
        }
    }
    Ok(())
}

fn machine(machine: &Machine, weights_bytes: u64, limits: &Limits) -> Result<(), OutOfBounds> {
    within("machine.memory_mib", machine.memory_mib, 1024..=1 << 20)?;
    within("machine.vcpus", machine.vcpus, 1..=MAX_VCPUS)?;
    // A client may send one request ahead of the one being answered, and buffers double as they grow.
    let connection = 4 * u64::from(limits.request_bytes) + CONNECTION_BYTES;
    let clients = u64::from(limits.connections) * connection;
    let needed = weights_bytes.div_ceil(1 << 20) + clients.div_ceil(1 << 20) + MEMORY_FOR_ITSELF;
    if u64::from(machine.memory_mib) < needed {
        return refuse(
            "machine.memory_mib",
            format!(
                "is too little for these weights and {} connections with requests of {} bytes; give at least {needed}",
                limits.connections, limits.request_bytes
            ),
        );
    }
    let slots = [("machine.network", machine.network), ("machine.weights", machine.weights)];
    for (field, slot) in slots {
        // 0 and 31 are q35's own.
        if !(1..=30).contains(&slot.device) {
            return refuse(&format!("{field}.device"), format!("is {}, but must be 1 to 30", slot.device));
        }
        if !BAR_ADDRESSES.contains(&slot.bar) || !slot.bar.is_multiple_of(BAR_BYTES) {
            return refuse(
                &format!("{field}.bar"),
                format!("is {:#x}, but must be a multiple of 16 KiB from 0xC0000000 to 0xFEBFC000", slot.bar),
            );
        }
    }
    let [(_, a), (field, b)] = slots;
    if a.device == b.device || overlap(a, b) {
        return refuse(field, "is where the other device is; give each its own device number and address");
    }
    Ok(())
}

fn overlap(a: DeviceSlot, b: DeviceSlot) -> bool {
    a.bar.abs_diff(b.bar) < BAR_BYTES
}

fn network(network: &Network) -> Result<(), OutOfBounds> {
    let mask = u32::MAX << (32 - network.prefix);
    let [own, gateway] = [network.address, network.gateway].map(u32::from_be_bytes);
    for (field, address) in [("network.address", own), ("network.gateway", gateway)] {
        if address & !mask == 0 || address & !mask == !mask {
            return refuse(
                field,
                format!("is not a host's address in a network with a prefix of {}", network.prefix),
            );
        }
    }
    if own & mask != gateway & mask || own == gateway {
        return refuse("network.gateway", "is not another host in the guest's own network");
    }
    if network.port == 0 {
        return refuse("network.port", "is 0; give a TCP port, usually 443");
    }
    Ok(())
}

/// An IPv4 address.
pub fn address(field: &str, text: &str) -> Result<[u8; 4], OutOfBounds> {
    match text.parse::<Ipv4Addr>() {
        Ok(address) => Ok(address.octets()),
        Err(_) => refuse(field, format!("is `{text}`, which is not an IPv4 address such as 10.0.2.2")),
    }
}

/// An IPv4 address with the length of its network's prefix.
pub fn subnet(text: &str) -> Result<([u8; 4], u8), OutOfBounds> {
    let parts =
        text.split_once('/').and_then(|(address, prefix)| Some((address, prefix.parse::<u8>().ok()?)));
    match parts {
        Some((host, prefix)) if (1..=30).contains(&prefix) => Ok((address("network.address", host)?, prefix)),
        _ => refuse(
            "network.address",
            format!("is `{text}`, but must be an address with a prefix, such as 10.0.2.15/24"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::manifest;

    fn field_of(change: impl FnOnce(&mut Manifest)) -> String {
        let mut bad = manifest();
        change(&mut bad);
        check(&bad, 64).unwrap_err().field
    }

    #[test]
    fn a_sound_manifest_passes() {
        assert_eq!(check(&manifest(), 64), Ok(()));
    }

    #[test]
    fn nonsense_is_refused_by_the_name_of_its_field() {
        assert_eq!(field_of(|m| m.image.clear()), "image.name");
        assert_eq!(field_of(|m| m.version = "1\n".into()), "image.version");
        assert_eq!(field_of(|m| m.limits.context_tokens = 65), "limits.context_tokens");
        assert_eq!(field_of(|m| m.limits.output_tokens = 33), "limits.output_tokens");
        assert_eq!(field_of(|m| m.limits.sessions = 0), "limits.sessions");
        assert_eq!(field_of(|m| m.limits.connections = 0), "limits.connections");
        assert_eq!(field_of(|m| m.limits.request_bytes = 5), "limits.request_bytes");
        assert_eq!(field_of(|m| m.limits.idle_ms = 0), "limits.idle_ms");
        assert_eq!(field_of(|m| m.limits.pace_ms = 0), "limits.pace_ms");
        assert_eq!(field_of(|m| m.limits.answer_records = 0), "limits.answer_records");
        assert_eq!(field_of(|m| m.template.stop.clear()), "template.stop");
        assert_eq!(field_of(|m| m.tasks.clear()), "tasks");
        assert_eq!(field_of(|m| m.tasks[0].task = "translate".into()), "tasks.translate");
        assert_eq!(field_of(|m| m.tasks[0].instruction = vec![1; 30]), "tasks.chat");
        assert_eq!(field_of(|m| m.machine.memory_mib = 512), "machine.memory_mib");
        assert_eq!(field_of(|m| m.machine.vcpus = 0), "machine.vcpus");
        assert_eq!(field_of(|m| m.machine.vcpus = 65), "machine.vcpus");
        assert_eq!(field_of(|m| m.model.weights_bytes = 1 << 30), "machine.memory_mib");
        let many = |m: &mut Manifest| (m.limits.connections, m.limits.request_bytes) = (4096, 16 << 20);
        assert_eq!(field_of(many), "machine.memory_mib");
        assert_eq!(field_of(|m| m.machine.network.device = 31), "machine.network.device");
        assert_eq!(field_of(|m| m.machine.network.bar = 0x8000_0000), "machine.network.bar");
        assert_eq!(field_of(|m| m.machine.weights.bar += 0x1000), "machine.weights.bar");
        assert_eq!(field_of(|m| m.machine.weights = m.machine.network), "machine.weights");
        assert_eq!(field_of(|m| m.network.address = [10, 0, 2, 255]), "network.address");
        assert_eq!(field_of(|m| m.network.gateway = [10, 0, 3, 2]), "network.gateway");
        assert_eq!(field_of(|m| m.network.gateway = m.network.address), "network.gateway");
        assert_eq!(field_of(|m| m.network.port = 0), "network.port");
    }

    #[test]
    fn addresses_are_read_strictly() {
        assert_eq!(subnet("10.0.2.15/24"), Ok(([10, 0, 2, 15], 24)));
        for text in ["", "10.0.2.15", "10.0.2.15/0", "10.0.2.15/31", "10.0.2/24", "::1/24", "10.0.2.15/24/8"]
        {
            assert_eq!(subnet(text).unwrap_err().field, "network.address", "{text}");
        }
        assert_eq!(address("network.gateway", "10.0.2.256").unwrap_err().field, "network.gateway");
    }
}
