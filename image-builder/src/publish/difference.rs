//! In which fields two entries differ.

use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use transparency::entry::Entry;

/// What a field is shown as where an entry lacks it.
const ABSENT: &str = "nothing";

/// A field in which two entries differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The field, such as `subject.image.launches[rom, 2 vCPUs, EPYC-Genoa].digest`.
    pub field: String,
    /// What the first entry has there.
    pub first: String,
    /// What the second one has.
    pub second: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} and {}", self.field, self.first, self.second)
    }
}

/// All fields in which two entries differ.
pub fn between(first: &Entry, second: &Entry) -> Vec<Difference> {
    let value = |entry| serde_json::to_value(entry).unwrap_or_default();
    let mut found = Vec::new();
    walk("", Some(&value(first)), Some(&value(second)), &mut found);
    found
}

fn walk(field: &str, first: Option<&Value>, second: Option<&Value>, found: &mut Vec<Difference>) {
    if first == second {
        return;
    }
    let (ours, theirs) = (parts(first), parts(second));
    if ours.is_empty() && theirs.is_empty() {
        let shown = |value: Option<&Value>| match value {
            None => ABSENT.into(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        found.push(Difference { field: field.into(), first: shown(first), second: shown(second) });
        return;
    }
    for part in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
        let separator = if field.is_empty() || part.starts_with('[') { "" } else { "." };
        walk(&format!("{field}{separator}{part}"), ours.get(part).copied(), theirs.get(part).copied(), found);
    }
}

/// The parts of an object or list, by a name that stays the same if others are missing.
fn parts(value: Option<&Value>) -> BTreeMap<String, &Value> {
    match value {
        Some(Value::Object(fields)) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
        Some(Value::Array(items)) => {
            let named = |(at, item): (usize, &Value)| match (&item["name"], &item["container"]) {
                (Value::String(name), _) => format!("[{name}]"),
                (_, Value::String(container)) => {
                    let cpu = item["cpu_type"].as_str().unwrap_or_default();
                    format!("[{container}, {} vCPUs, {cpu}]", item["vcpus"])
                }
                _ => format!("[{at}]"),
            };
            items.iter().enumerate().map(|(at, item)| (named((at, item)), item)).collect()
        }
        _ => BTreeMap::new(),
    }
}
