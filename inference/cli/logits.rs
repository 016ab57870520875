//! `cloister-engine logits`.
use crate::load::ModelArguments;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// Writes the logits after each of the given tokens: little-endian f32, one row of vocabulary size per token.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// The tokens: a JSON array of ids, or ids separated by white space or commas.
    #[arg(long)]
    ids: PathBuf,
    /// Where the logits go.
    #[arg(long)]
    out: PathBuf,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
}

/// Evaluates the text and writes.
pub fn run(arguments: &Arguments) -> Result<()> {
    let text = std::fs::read_to_string(&arguments.ids)
        .with_context(|| format!("cannot read {}", arguments.ids.display()))?;
    let ids =
        parse_ids(&text).with_context(|| format!("{} is not a list of ids", arguments.ids.display()))?;
    let threads = arguments.model.start_threads()?;
    let model = arguments.model.load(arguments.model.open()?, &threads)?;
    let place = || format!("cannot write {}", arguments.out.display());
    let mut out = BufWriter::new(File::create(&arguments.out).with_context(place)?);
    let mut written = Ok(());
    inference::logits_by_row(&model, &ids, &threads, |row| {
        if written.is_ok() {
            written = row.iter().try_for_each(|logit| out.write_all(&logit.to_le_bytes()));
        }
    })?;
    written.and_then(|()| out.flush()).with_context(place)?;
    let (rows, columns) = (ids.len(), model.config().vocabulary_length);
    if arguments.json {
        println!("{}", serde_json::json!({ "rows": rows, "columns": columns, "kernels": model.kernels() }));
    } else {
        println!("wrote {rows} rows of {columns} logits to {}", arguments.out.display());
    }
    Ok(())
}

/// Ids as JSON or separated by white space or commas.
fn parse_ids(text: &str) -> Result<Vec<u32>> {
    if text.trim_start().starts_with('[') {
        return Ok(serde_json::from_str(text)?);
    }
    let words = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    words.map(|word| word.parse().with_context(|| format!("'{word}' is not an id"))).collect()
}

#[cfg(test)]
mod tests {
    use super::parse_ids;

    #[test]
    fn ids_are_read_in_both_forms_or_refused() {
        for text in ["[1, 2,3]", " 1 2\n3\n", "1,2, 3", "\n[1,2,3]\n"] {
            assert_eq!(parse_ids(text).unwrap(), [1, 2, 3]);
        }
        assert!(parse_ids("").unwrap().is_empty());
        for text in ["[1, -2]", "1 2x", "4294967296", "[1", "{}", "1.0"] {
            assert!(parse_ids(text).is_err(), "{text}");
        }
    }
}
