//! The tokenizer: byte-level BPE from a GGUF vocabulary.
//!
//! Plain text yields ordinary tokens only. Tokens of every other type (control, user-defined, unknown, unused) are
//! outside the index that [`Tokenizer::encode`] searches, and merges may only name tokens inside it, so no text can
//! spell one. Nothing is cached between calls: the time a text takes does not depend on what others sent before.
mod bpe;
mod bytes;
mod error;
mod pieces;
mod unicode;
mod vocabulary;

pub use error::Error;
pub use pieces::PreTokenizer;

use crate::gguf::{self, Value};
use alloc::vec::Vec;
use bpe::{Merges, Scratch};
use vocabulary::Vocabulary;

/// Turns text into tokens and tokens into bytes.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    merges: Merges,
    pre_tokenizer: PreTokenizer,
}

impl Tokenizer {
    /// Reads vocabulary and merges from a model file.
    ///
    /// # Errors
    /// When the file has no tokenizer of a kind that is supported, or a broken one.
    pub fn from_gguf(file: &gguf::File<'_>) -> Result<Self, Error> {
        let model = string(file, "tokenizer.ggml.model")?;
        if model != "gpt2" {
            return Err(Error::UnsupportedModel(model.into()));
        }
        let pre = string(file, "tokenizer.ggml.pre")?;
        let pre_tokenizer =
            PreTokenizer::from_name(pre).ok_or_else(|| Error::UnsupportedPreTokenizer(pre.into()))?;
        let vocabulary = Vocabulary::from_gguf(file)?;
        let merges = Merges::from_gguf(file, &vocabulary)?;
        Ok(Self { vocabulary, merges, pre_tokenizer })
    }

    /// The tokens of a text, ordinary ones only: text that looks like a control token is spelled out.
    ///
    /// A byte for which the vocabulary has no token is left out, as llama.cpp does; vocabularies that are in use
    /// have all bytes that occur in UTF-8.
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        // A token stands for at least one byte, so the list never grows past this and leaves no copies behind.
        let mut tokens = Vec::with_capacity(text.len());
        let longest = self.pre_tokenizer.pieces(text).map(str::len).max().unwrap_or(0);
        let mut scratch = Scratch::new(longest);
        for piece in self.pre_tokenizer.pieces(text) {
            self.merges.encode(piece.as_bytes(), &self.vocabulary, &mut scratch, &mut tokens);
        }
        tokens
    }

    /// The control token of this name, for example `<|im_end|>`.
    #[must_use]
    pub fn control(&self, name: &str) -> Option<u32> {
        self.vocabulary.control(name)
    }

    /// The bytes that a token stands for; none for a token that is not text, or not in the vocabulary. They need
    /// not be whole characters.
    #[must_use]
    pub fn decode(&self, token: u32) -> &[u8] {
        self.vocabulary.bytes(token)
    }

    /// The number of tokens.
    #[must_use]
    pub fn vocabulary_len(&self) -> usize {
        self.vocabulary.len()
    }

    /// How text is divided before merging.
    #[must_use]
    pub fn pre_tokenizer(&self) -> PreTokenizer {
        self.pre_tokenizer
    }
}

fn string<'a>(file: &gguf::File<'a>, key: &'static str) -> Result<&'a str, Error> {
    match file.value(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Error::WrongType(key)),
        None => Err(Error::Missing(key)),
    }
}

fn array<'a>(file: &gguf::File<'a>, key: &'static str) -> Result<gguf::Array<'a>, Error> {
    match file.value(key) {
        Some(Value::Array(array)) => Ok(array),
        Some(_) => Err(Error::WrongType(key)),
        None => Err(Error::Missing(key)),
    }
}
