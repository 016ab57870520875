//! The tokens: their bytes, their kinds, and the index from bytes to token.
use super::{Error, array, bytes};
use crate::gguf::{self, Value};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

/// All tokens of a model.
#[derive(Clone, Debug)]
pub(super) struct Vocabulary {
    /// The bytes of all tokens, one after the other.
    text: Vec<u8>,
    /// Where in `text` each token ends.
    ends: Vec<usize>,
    /// The ordinary tokens in the order of their bytes: the only ones that text can become.
    index: Vec<u32>,
    /// The token of each single byte.
    single: [Option<u32>; 256],
    control: BTreeMap<String, u32>,
}

/// The kinds of tokens that differ here, of `tokenizer.ggml.token_type`.
enum Kind {
    /// Text; written in the characters that stand for bytes.
    Ordinary,
    /// Text that is written as itself and that merges do not make (type 4, "user defined").
    Literal,
    /// Framing.
    Control,
    /// Unknown (2) and unused (5).
    Silent,
}

impl Vocabulary {
    pub(super) fn from_gguf(file: &gguf::File<'_>) -> Result<Self, Error> {
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
            text: Vec::new(),
            ends: Vec::with_capacity(len),
            index: Vec::with_capacity(len),
            single: [None; 256],
            control: BTreeMap::new(),
        };
        for (number, token) in tokens.iter().enumerate() {
            let Value::String(name) = token else { return Err(Error::WrongType(TOKENS)) };
            let kind = types.as_mut().map_or(Some(Kind::Ordinary), |types| types.next().and_then(kind));
            let kind = kind.ok_or(Error::BadTokenType(number))?;
            vocabulary.push(number as u32, name, &kind);
        }
        let Self { text, ends, index, .. } = &mut vocabulary;
        index.sort_unstable_by_key(|token| (slice(text, ends, *token), *token));
        Ok(vocabulary)
    }

    fn push(&mut self, token: u32, name: &str, kind: &Kind) {
        match (kind, bytes::from_str(name)) {
            (Kind::Ordinary, Some(bytes)) => {
                self.text.extend_from_slice(&bytes);
                if let [byte] = bytes[..] {
                    self.single[usize::from(byte)].get_or_insert(token);
                }
                self.index.push(token);
            }
            // An ordinary token in other characters than those that stand for bytes can only be meant literally.
            (Kind::Ordinary, None) | (Kind::Literal, _) => self.text.extend_from_slice(name.as_bytes()),
            (Kind::Control, _) => {
                self.control.entry(name.into()).or_insert(token);
            }
            (Kind::Silent, _) => {}
        }
        self.ends.push(self.text.len());
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

    /// The ordinary token of one byte.
    pub(super) fn single(&self, byte: u8) -> Option<u32> {
        self.single[usize::from(byte)]
    }

    /// The ordinary token with these bytes; of several, the first.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<u32> {
        let at = self.index.partition_point(|token| self.bytes(*token) < bytes);
        self.index.get(at).copied().filter(|token| self.bytes(*token) == bytes)
    }
}

fn kind(value: Value<'_>) -> Option<Kind> {
    let number = match value {
        Value::Signed(number) => u64::try_from(number).ok()?,
        Value::Unsigned(number) => number,
        _ => return None,
    };
    // `llama_token_type` in llama.cpp's include/llama.h. Type 6, "byte", belongs to SentencePiece.
    Some(match number {
        1 => Kind::Ordinary,
        2 | 5 => Kind::Silent,
        3 => Kind::Control,
        4 => Kind::Literal,
        _ => return None,
    })
}

fn slice<'a>(text: &'a [u8], ends: &[usize], token: u32) -> &'a [u8] {
    let token = token as usize;
    let start = token.checked_sub(1).and_then(|before| ends.get(before).copied()).unwrap_or(0);
    ends.get(token).and_then(|end| text.get(start..*end)).unwrap_or(&[])
}
