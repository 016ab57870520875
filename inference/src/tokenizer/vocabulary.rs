//! The tokens: their bytes, their kinds, and the index from bytes to token.
use super::table::{Table, hash_bytes};
use super::{Error, Kind, array, bytes};
use crate::gguf::{self, Value};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
/// What SentencePiece writes for a space (U+2581).
pub(super) const SPACE: char = '▁';

/// All tokens of a model.
#[derive(Clone, Debug)]
pub(super) struct Vocabulary {
    /// The bytes of all tokens, one after the other.
    text: Vec<u8>,
    /// Where in `text` each token ends.
    ends: Vec<usize>,
    /// The ordinary tokens by their bytes: the only ones that text can become, beside those of single bytes.
    index: Table<u32>,
    /// The token of each single byte.
    single: [Option<u32>; 256],
    /// Tokens that only a frame can have, by their names.
    control: BTreeMap<String, u32>,
    /// Bytes of the longest ordinary token.
    longest: usize,
}

/// The kinds of tokens that differ here, of `tokenizer.ggml.token_type`.
enum TokenKind {
    /// Text; written in the characters that stand for bytes, or with the sign for spaces.
    Ordinary,
    /// Text that is written as itself and that merges do not make (type 4, "user defined").
    Literal,
    /// Framing.
    Control,
    /// A byte that is no part of another token, written `<0x0A>` (type 6; SentencePiece only).
    Byte,
    /// Unknown (2) and unused (5).
    Silent,
}

impl Vocabulary {
    pub(super) fn from_gguf(file: &gguf::File<'_>, model: Kind) -> Result<Self, Error> {
        let tokens = array(file, TOKENS)?;
        let len = tokens.len();
        if len == 0 || u32::try_from(len).is_err() {
            return Err(Error::VocabularySize(len));
        }
        let types = file.value(TYPES).map(|_| array(file, TYPES)).transpose()?;
        if let Some(types) = types
            && types.len() != len
        {
            return Err(Error::TypeCount { tokens: len, types: types.len() });
        }
        let mut types = types.map(|types| types.iter());

        let mut vocabulary = Self {
            text: Vec::with_capacity(len * 8),
            ends: Vec::with_capacity(len),
            index: Table::new(len),
            single: [None; 256],
            control: BTreeMap::new(),
            longest: 0,
        };
        for (number, token) in tokens.iter().enumerate() {
            let Value::String(name) = token else { return Err(Error::WrongType(TOKENS)) };
            let kind = types.as_mut().map_or(Some(TokenKind::Ordinary), |types| types.next().and_then(kind));
            let known = kind.is_some_and(|kind| vocabulary.push(number as u32, name, &kind, model));
            if !known {
                return Err(Error::BadTokenType(number));
            }
        }
        Ok(vocabulary)
    }

    /// Appends a token; `false` if there is none of its type in this model.
    fn push(&mut self, token: u32, name: &str, kind: &TokenKind, model: Kind) -> bool {
        let start = self.text.len();
        let mut ordinary = false;
        match (kind, model) {
            (TokenKind::Ordinary, Kind::Bpe) => {
                ordinary = bytes::push(name, &mut self.text);
                // Other characters than those that stand for bytes can only be meant literally.
                if !ordinary {
                    self.text.extend_from_slice(name.as_bytes());
                }
            }
            (TokenKind::Ordinary, Kind::SentencePiece) => {
                ordinary = !name.is_empty();
                let parts = name.split(SPACE).enumerate();
                for (index, part) in parts {
                    self.text.extend_from_slice(if index == 0 { b"" } else { b" " });
                    self.text.extend_from_slice(part.as_bytes());
                }
            }
            (TokenKind::Literal, _) => {
                self.text.extend_from_slice(name.as_bytes());
                self.control.entry(name.into()).or_insert(token);
            }
            (TokenKind::Control, _) => {
                self.control.entry(name.into()).or_insert(token);
            }
            (TokenKind::Byte, Kind::Bpe) => return false,
            (TokenKind::Byte, Kind::SentencePiece) => {
                let digits = name.strip_prefix("<0x").and_then(|name| name.strip_suffix('>'));
                let byte = digits.filter(|digits| digits.len() == 2 && !digits.starts_with('+'));
                let Some(byte) = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
                    return false;
                };
                self.text.push(byte);
                self.single[usize::from(byte)] = Some(token);
            }
            (TokenKind::Silent, _) => {}
        }
        self.ends.push(self.text.len());
        if ordinary {
            let bytes = &self.text[start..];
            if let ([byte], Kind::Bpe) = (bytes, model) {
                self.single[usize::from(*byte)].get_or_insert(token);
            }
            self.longest = self.longest.max(bytes.len());
            let (text, ends) = (&self.text, &self.ends);
            self.index.insert(hash_bytes(bytes), token, |other| slice(text, ends, *other) == bytes);
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn bytes(&self, token: u32) -> &[u8] {
        slice(&self.text, &self.ends, token)
    }

    pub(super) fn control(&self, name: &str) -> Option<u32> {
        self.control.get(name).copied()
    }

    pub(super) fn controls(&self) -> impl Iterator<Item = (&str, u32)> {
        self.control.iter().map(|(name, token)| (name.as_str(), *token))
    }

    /// The token of one byte.
    pub(super) fn single(&self, byte: u8) -> Option<u32> {
        self.single[usize::from(byte)]
    }

    /// The ordinary token with these bytes; of several, the first.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<u32> {
        if bytes.len() > self.longest {
            return None;
        }
        self.index.find(hash_bytes(bytes), |token| self.bytes(*token) == bytes)
    }
}

fn kind(value: Value<'_>) -> Option<TokenKind> {
    let number = match value {
        Value::Signed(number) => u64::try_from(number).ok()?,
        Value::Unsigned(number) => number,
        _ => return None,
    };
    // `llama_token_type` in llama.cpp's include/llama.h.
    Some(match number {
        1 => TokenKind::Ordinary,
        2 | 5 => TokenKind::Silent,
        3 => TokenKind::Control,
        4 => TokenKind::Literal,
        6 => TokenKind::Byte,
        _ => return None,
    })
}

fn slice<'a>(text: &'a [u8], ends: &[usize], token: u32) -> &'a [u8] {
    let token = token as usize;
    let start = token.checked_sub(1).and_then(|before| ends.get(before).copied()).unwrap_or(0);
    ends.get(token).and_then(|end| text.get(start..*end)).unwrap_or(&[])
}
