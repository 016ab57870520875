//! The tokenizer: byte-level BPE or SentencePiece from a GGUF vocabulary.
//!
//! Plain text yields ordinary tokens only (and, with SentencePiece, tokens of single bytes). Tokens of every other type
//! (control, user-defined, unknown, unused) are outside the index that [`Tokenizer::encode`] searches, and merges may
//! only name tokens inside it, so no text can spell one. In this the tokenizer differs from llama.cpp, which finds
//! user-defined tokens in text. Nothing is cached between calls: the time a text takes does not depend on what others
//! sent before.
mod bpe;
mod bytes;
mod error;
mod pieces;
mod sentence_piece;
mod table;
mod unicode;
mod vocabulary;

pub use error::Error;
pub use pieces::PreTokenizer;

use crate::gguf::{self, Value};
use alloc::string::String;
use alloc::vec::Vec;
use bpe::{Merges, Scratch};
use sentence_piece::Scores;
use vocabulary::Vocabulary;
use zeroize::Zeroizing;

/// Turns text into tokens and tokens into bytes.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    rules: Rules,
    /// Whether a text that begins a prompt or follows a control token has a space put before it.
    space_prefix: bool,
}

#[derive(Clone, Debug)]
enum Rules {
    Bpe { merges: Merges, pre_tokenizer: PreTokenizer },
    SentencePiece(Scores),
}

/// `tokenizer.ggml.model`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bpe,
    SentencePiece,
}

impl Tokenizer {
    /// Reads vocabulary and merges or scores from a model file.
    ///
    /// # Errors
    /// When the file has no tokenizer of a kind that is supported, or a broken one.
    pub fn from_gguf(file: &gguf::File<'_>) -> Result<Self, Error> {
        let kind = match string(file, "tokenizer.ggml.model")? {
            "gpt2" => Kind::Bpe,
            "llama" => Kind::SentencePiece,
            other => return Err(Error::UnsupportedModel(other.into())),
        };
        let space_prefix = match file.value("tokenizer.ggml.add_space_prefix") {
            None => kind == Kind::SentencePiece,
            Some(Value::Bool(prefix)) => prefix && kind == Kind::SentencePiece,
            Some(_) => return Err(Error::WrongType("tokenizer.ggml.add_space_prefix")),
        };
        if kind == Kind::SentencePiece {
            let vocabulary = Vocabulary::from_gguf(file, kind)?;
            let rules = Rules::SentencePiece(Scores::from_gguf(file, &vocabulary)?);
            return Ok(Self { vocabulary, rules, space_prefix });
        }
        let pre = string(file, "tokenizer.ggml.pre")?;
        let pre_tokenizer =
            PreTokenizer::from_name(pre).ok_or_else(|| Error::UnsupportedPreTokenizer(pre.into()))?;
        let vocabulary = Vocabulary::from_gguf(file, kind)?;
        let merges = Merges::from_gguf(file, &vocabulary)?;
        Ok(Self { vocabulary, rules: Rules::Bpe { merges, pre_tokenizer }, space_prefix })
    }

    /// The tokens of a text that begins a prompt or follows a control token; ordinary ones only: text that looks like
    /// a control token is spelled out.
    ///
    /// A byte for which the vocabulary has no token is left out, as llama.cpp does; vocabularies that are in use
    /// have all bytes that occur in UTF-8.
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.encode_continued(text, self.space_prefix)
    }

    /// The tokens of a text that follows other text, with a space between the two or nothing. Ordinary ones only.
    #[must_use]
    pub fn encode_continued(&self, text: &str, space: bool) -> Vec<u32> {
        // A token stands for at least one byte, so the list never grows past this and leaves no copies behind.
        let mut tokens = Vec::with_capacity(text.len() + 1);
        match &self.rules {
            Rules::SentencePiece(_) if text.is_empty() => {}
            Rules::SentencePiece(scores) => scores.encode(text, space, &self.vocabulary, &mut tokens),
            Rules::Bpe { merges, pre_tokenizer } if space => {
                let mut spaced = Zeroizing::new(String::with_capacity(text.len() + 1));
                spaced.push(' ');
                spaced.push_str(text);
                self.encode_pieces(&spaced, merges, *pre_tokenizer, &mut tokens);
            }
            Rules::Bpe { merges, pre_tokenizer } => {
                self.encode_pieces(text, merges, *pre_tokenizer, &mut tokens);
            }
        }
        tokens
    }

    fn encode_pieces(&self, text: &str, merges: &Merges, rules: PreTokenizer, tokens: &mut Vec<u32>) {
        let longest = rules.pieces(text).map(str::len).max().unwrap_or(0);
        let mut scratch = Scratch::new(longest);
        for piece in rules.pieces(text) {
            let whole = rules.takes_whole_pieces().then(|| self.vocabulary.find(piece.as_bytes())).flatten();
            match whole {
                Some(token) => tokens.push(token),
                None => merges.encode(piece.as_bytes(), &self.vocabulary, &mut scratch, tokens),
            }
        }
    }

    /// The control token or user-defined token of this name, for example `<|im_end|>`.
    #[must_use]
    pub fn control(&self, name: &str) -> Option<u32> {
        self.vocabulary.control(name)
    }

    /// All control tokens and user-defined tokens, in the order of their names.
    pub fn controls(&self) -> impl Iterator<Item = (&str, u32)> {
        self.vocabulary.controls()
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

    /// How text is divided before merging; SentencePiece does not divide it.
    #[must_use]
    pub fn pre_tokenizer(&self) -> Option<PreTokenizer> {
        match &self.rules {
            Rules::Bpe { pre_tokenizer, .. } => Some(*pre_tokenizer),
            Rules::SentencePiece(_) => None,
        }
    }

    /// Whether a space is put before a text that begins a prompt or follows a control token.
    #[must_use]
    pub fn space_prefix(&self) -> bool {
        self.space_prefix
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
