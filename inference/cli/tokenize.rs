//! `cloister-engine tokenize`.
use crate::load::ModelArguments;
use anyhow::{Context, Result};
use std::io::Read;
use std::path::PathBuf;

/// Prints the tokens of a text as a JSON array. Text never becomes a control token: what looks like one is spelled out.
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
    let file = arguments.model.read()?;
    let gguf = inference::gguf::File::parse(&file)?;
    let tokenizer = inference::Tokenizer::from_gguf(&gguf)?;
    let mut ids = Vec::new();
    for name in &arguments.control {
        let id = tokenizer.control(name).or_else(|| name.parse().ok());
        ids.push(id.with_context(|| format!("the model has no control token '{name}'"))?);
    }
    ids.extend(tokenizer.encode(&text));
    if arguments.show {
        for id in ids {
            println!("{id:>7}  {:?}", String::from_utf8_lossy(tokenizer.decode(id)));
        }
    } else {
        println!("{}", serde_json::to_string(&ids)?);
    }
    Ok(())
}
