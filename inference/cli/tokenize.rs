//! `cloister-engine tokenize`.
use crate::load::{self, ModelArguments};
use anyhow::{Context, Result};
use std::io::Read;
use std::path::PathBuf;

/// Prints the tokens of a text as a JSON array.
///
/// Text does not become a control token, here as in the guest: what looks like one is spelled out, which is what
/// `llama-tokenize --no-parse-special --no-bos` prints. `--special` and `--bos` print what it does by default.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// The text; from standard input if neither this nor a file is given.
    #[arg(long, conflicts_with = "file")]
    text: Option<String>,
    /// A file with the text, UTF-8.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Put control tokens before the text, by name or id, for example `--control '<|im_start|>'`.
    #[arg(long)]
    control: Vec<String>,
    /// Put the token that begins a text first, if the model was trained with one.
    #[arg(long)]
    bos: bool,
    /// Let names of control tokens in the text become these tokens, to compare with programs that do.
    #[arg(long)]
    special: bool,
    /// Print each token with its text, one in a line, instead of the array.
    #[arg(long)]
    show: bool,
}

/// Reads and prints.
pub fn run(arguments: &Arguments) -> Result<()> {
    let text = match (&arguments.text, &arguments.file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        (None, None) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input as UTF-8")?;
            text
        }
    };
    let file = arguments.model.open()?;
    let gguf = inference::gguf::File::parse(file.bytes())?;
    let tokenizer = inference::Tokenizer::from_gguf(&gguf)?;
    let mut ids = Vec::new();
    if arguments.bos {
        ids.extend(load::begin_token(&gguf));
    }
    for name in &arguments.control {
        let id = tokenizer.control(name).or_else(|| name.parse().ok());
        ids.push(id.with_context(|| format!("the model has no control token '{name}'"))?);
    }
    let mut rest = text.as_str();
    while let Some((at, name, token)) = Some(rest).filter(|_| arguments.special).and_then(|rest| {
        // The first in the text; of those at one place the longest.
        let named = tokenizer.controls().filter(|(name, _)| !name.is_empty());
        let found = named.filter_map(|(name, token)| Some((rest.find(name)?, name, token)));
        found.min_by_key(|(at, name, _)| (*at, std::cmp::Reverse(name.len())))
    }) {
        ids.extend(tokenizer.encode(&rest[..at]));
        ids.push(token);
        rest = &rest[at + name.len()..];
    }
    ids.extend(tokenizer.encode(rest));
    if arguments.show {
        for id in ids {
            println!("{id:>7}  {:?}", String::from_utf8_lossy(tokenizer.decode(id)));
        }
    } else {
        println!("{}", serde_json::to_string(&ids)?);
    }
    Ok(())
}
