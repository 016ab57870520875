//! The shape of a model, from the metadata of its file.
use crate::error::LoadError;
use crate::gguf::{self, Value};
use alloc::format;
use alloc::string::String;

/// The only architecture so far, as `general.architecture` names it.
const ARCHITECTURE: &str = "llama";
/// No dimension of a model is larger. It keeps products of two of them, times their bytes, far from overflow.
const LARGEST: u64 = 1 << 24;

/// The shape of a Llama-family decoder. The names are those of the metadata keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Positions that the model was trained for.
    pub context_length: usize,
    /// Elements of a token's state.
    pub embedding_length: usize,
    /// Layers.
    pub block_count: usize,
    /// Elements of the hidden state of the feed-forward part.
    pub feed_forward_length: usize,
    /// Query heads.
    pub head_count: usize,
    /// Key and value heads; each serves `head_count / head_count_kv` query heads.
    pub head_count_kv: usize,
    /// Elements of a head.
    pub head_length: usize,
    /// Elements of a head that are rotated by position.
    pub rope_length: usize,
    /// The base of the rotation's wavelengths.
    pub rope_base: f32,
    /// What is added to the mean square before the root.
    pub rms_epsilon: f32,
    /// Tokens.
    pub vocabulary_length: usize,
}

impl Config {
    /// Elements of all query heads together.
    pub(crate) fn query_length(&self) -> usize {
        self.head_count * self.head_length
    }

    /// Elements of all key heads, or of all value heads, together.
    pub(crate) fn key_value_length(&self) -> usize {
        self.head_count_kv * self.head_length
    }

    pub(crate) fn from_gguf(file: &gguf::File<'_>, vocabulary_length: usize) -> Result<Self, LoadError> {
        match file.value("general.architecture") {
            Some(Value::String(ARCHITECTURE)) => {}
            Some(Value::String(other)) => return Err(LoadError::UnsupportedArchitecture(other.into())),
            Some(_) => return Err(LoadError::BadValue("general.architecture".into())),
            None => return Err(LoadError::MissingValue("general.architecture".into())),
        }
        let keys = Keys { file };
        keys.refuse_unsupported()?;

        let embedding_length = keys.required("embedding_length")?;
        let head_count = keys.required("attention.head_count")?;
        let head_count_kv = keys.optional("attention.head_count_kv")?.unwrap_or(head_count);
        if !head_count.is_multiple_of(head_count_kv) {
            return Err(keys.bad("attention.head_count_kv"));
        }
        let head_length = match keys.optional("attention.key_length")? {
            Some(length) => length,
            None if embedding_length.is_multiple_of(head_count) => embedding_length / head_count,
            None => return Err(keys.bad("attention.head_count")),
        };
        if keys.optional("attention.value_length")?.is_some_and(|length| length != head_length) {
            return Err(keys.bad("attention.value_length"));
        }
        let rope_length = keys.optional("rope.dimension_count")?.unwrap_or(head_length);
        if rope_length > head_length || !rope_length.is_multiple_of(2) {
            return Err(keys.bad("rope.dimension_count"));
        }
        if keys.optional("vocab_size")?.is_some_and(|length| length != vocabulary_length) {
            return Err(keys.bad("vocab_size"));
        }
        let rope_base = keys.number("rope.freq_base")?.unwrap_or(10_000.0);
        if rope_base < 1.0 {
            return Err(keys.bad("rope.freq_base"));
        }
        let epsilon = "attention.layer_norm_rms_epsilon";
        let rms_epsilon = keys.number(epsilon)?.ok_or_else(|| keys.missing(epsilon))?;
        if rms_epsilon < 0.0 {
            return Err(keys.bad(epsilon));
        }
        Ok(Self {
            context_length: keys.required("context_length")?,
            embedding_length,
            block_count: keys.required("block_count")?,
            feed_forward_length: keys.required("feed_forward_length")?,
            head_count,
            head_count_kv,
            head_length,
            rope_length,
            rope_base,
            rms_epsilon,
            vocabulary_length,
        })
    }
}

/// The keys of the architecture.
struct Keys<'a> {
    file: &'a gguf::File<'a>,
}

impl Keys<'_> {
    fn name(key: &str) -> String {
        format!("{ARCHITECTURE}.{key}")
    }

    fn bad(&self, key: &str) -> LoadError {
        LoadError::BadValue(Self::name(key))
    }

    fn missing(&self, key: &str) -> LoadError {
        LoadError::MissingValue(Self::name(key))
    }

    /// A dimension: positive, and not absurd.
    fn optional(&self, key: &str) -> Result<Option<usize>, LoadError> {
        let value = match self.file.value(&Self::name(key)) {
            None => return Ok(None),
            Some(Value::Unsigned(value)) => Some(value),
            Some(Value::Signed(value)) => u64::try_from(value).ok(),
            Some(_) => None,
        };
        let value = value.filter(|value| (1..=LARGEST).contains(value)).ok_or_else(|| self.bad(key))?;
        Ok(Some(value as usize))
    }

    fn required(&self, key: &str) -> Result<usize, LoadError> {
        self.optional(key)?.ok_or_else(|| self.missing(key))
    }

    /// A finite number.
    fn number(&self, key: &str) -> Result<Option<f32>, LoadError> {
        match self.file.value(&Self::name(key)) {
            None => Ok(None),
            Some(Value::Float(value)) if (value as f32).is_finite() => Ok(Some(value as f32)),
            Some(_) => Err(self.bad(key)),
        }
    }

    /// What would change the result and is not computed here must not be ignored.
    fn refuse_unsupported(&self) -> Result<(), LoadError> {
        let scaling = Self::name("rope.scaling.type");
        match self.file.value(&scaling) {
            None | Some(Value::String("none")) => {}
            Some(_) => return Err(LoadError::UnsupportedFeature(scaling)),
        }
        let experts = Self::name("expert_count");
        match self.file.value(&experts) {
            None | Some(Value::Unsigned(0)) => Ok(()),
            Some(_) => Err(LoadError::UnsupportedFeature(experts)),
        }
    }
}
