//! The default image's manifest, and manifests that differ from it in a few values.

use crate::build::root;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The file from which the default image is built.
pub fn path() -> PathBuf {
    root().join("models/manifest.toml")
}

fn default() -> Result<Table> {
    let path = path();
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    text.parse().with_context(|| format!("{} is not TOML", path.display()))
}

/// vCPUs of the default image, which boots with no other number.
pub fn vcpus() -> Result<u32> {
    let manifest = default()?;
    let count = manifest.get("machine").and_then(|machine| machine.get("vcpus")).and_then(Value::as_integer);
    count.and_then(|count| count.try_into().ok()).context("the default manifest has no machine.vcpus")
}

/// Writes a manifest to `out` that is the default one but for these values of its tables, and for the weights if others are
/// given.
pub fn variant<V: Clone + Into<Value>>(out: &Path, weights: &Path, values: &[(&str, &str, V)]) -> Result<()> {
    let mut manifest = default()?;
    let weights = weights.to_str().context("the path of the weights is not UTF-8")?;
    let values = values.iter().map(|(table, key, value)| (*table, *key, value.clone().into()));
    for (table, key, value) in values.chain([("model", "weights", weights.into())]) {
        let table = manifest.get_mut(table).and_then(Value::as_table_mut);
        let known = table.and_then(|table| table.get_mut(key));
        *known.with_context(|| format!("the default manifest has no {key}"))? = value;
    }
    fs::write(out, manifest.to_string()).with_context(|| format!("cannot write {}", out.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_builder::source::Source;

    #[test]
    fn a_variant_differs_in_what_was_said_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("manifest.toml");
        let values = [("machine", "vcpus", i64::from(vcpus().unwrap()) + 1), ("limits", "output_tokens", 7)];
        variant(&file, &crate::build::weights(), &values).unwrap();
        let mut one = Source::load(&path()).unwrap().manifest;
        let other = Source::load(&file).unwrap().manifest;
        assert_ne!(one, other);
        one.machine.vcpus += 1;
        one.limits.output_tokens = 7;
        assert_eq!(one, other);
        assert!(variant(&file, &crate::build::weights(), &[("machine", "nothing", 1)]).is_err());
    }
}
