//! The shape of a model, from the metadata of its file.
use crate::error::LoadError;
use crate::gguf::{self, Value};
use alloc::format;
use alloc::string::String;

/// A kind of decoder, as `general.architecture` names it. Tensors, the order of operations and the metadata that count
/// are those of llama.cpp's `src/models/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2 and 3, SmolLM2, Mistral 7B and Nemo, and others of their kind.
    Llama,
    /// Ministral 3: as Llama, with queries that grow with the position.
    Mistral3,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3: with norms on queries and keys.
    Qwen3,
}

impl Architecture {
    /// All of them, for messages.
    pub const ALL: [Self; 4] = [Self::Llama, Self::Mistral3, Self::Qwen2, Self::Qwen3];

    /// The name in model files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral3 => "mistral3",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// The architecture of a file. This is the first thing to ask of it.
    pub(crate) fn from_gguf(file: &gguf::File<'_>) -> Result<Self, LoadError> {
        match file.value(ARCHITECTURE) {
            Some(Value::String(name)) => Self::ALL
                .into_iter()
                .find(|known| known.name() == name)
                .ok_or_else(|| LoadError::UnsupportedArchitecture(name.into())),
            Some(_) => Err(LoadError::BadValue(ARCHITECTURE.into())),
            None => Err(LoadError::MissingValue(ARCHITECTURE.into())),
        }
    }

    /// Whether positions turn elements `i` and `i + half` of a head (`LLAMA_ROPE_TYPE_NEOX`) and not neighbours
    /// (`LLAMA_ROPE_TYPE_NORM`): converters have reordered the rows of the queries and keys of the Llama kinds.
    pub(crate) fn rotates_halves(self) -> bool {
        matches!(self, Self::Qwen2 | Self::Qwen3)
    }

    /// Whether queries and keys are normalised, head by head.
    pub(crate) fn normalises_heads(self) -> bool {
        self == Self::Qwen3
    }

    /// Whether a file may have `rope_freqs.weight`.
    pub(crate) fn has_rope_factors(self) -> bool {
        matches!(self, Self::Llama | Self::Mistral3)
    }
}

/// How positions beyond those of the original training are made to fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeScaling {
    /// Positions are divided by this.
    pub factor: f32,
    /// What queries and keys are multiplied with.
    pub magnitude: f32,
    /// For YaRN, which divides only the long wavelengths.
    pub yarn: Option<Yarn>,
}

/// The parameters of YaRN (<https://arxiv.org/abs/2309.00071>, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// Positions of the original training.
    pub original_context: usize,
    /// Rotations in the original context above which a wavelength is left as it is.
    pub beta_fast: f32,
    /// Rotations in the original context below which positions are divided by the whole factor.
    pub beta_slow: f32,
}

/// Queries that grow with the position: by `1 + scale · ln(1 + floor(position / every))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// The slope.
    pub scale: f32,
    /// Positions with the same factor.
    pub every: usize,
}

const ARCHITECTURE: &str = "general.architecture";
/// No dimension of a model is larger. It keeps products of two of them, times their bytes, far from overflow.
const LARGEST: u64 = 1 << 24;

/// The shape of a decoder. The names are those of the metadata keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The kind of decoder.
    pub architecture: Architecture,
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
    /// How positions are scaled.
    pub rope_scaling: RopeScaling,
    /// How many positions a token attends to, its own and those before it; all of them if there is no such limit.
    pub sliding_window: Option<usize>,
    /// How queries grow with the position, if they do.
    pub temperature: Option<Temperature>,
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

    /// What queries at a position are multiplied with.
    pub(crate) fn temperature_at(&self, position: usize) -> f32 {
        self.temperature.map_or(1.0, |temperature| {
            let steps = position / temperature.every;
            crate::math::ln(steps as f64 + 1.0) as f32 * temperature.scale + 1.0
        })
    }

    pub(crate) fn from_gguf(file: &gguf::File<'_>, vocabulary_length: usize) -> Result<Self, LoadError> {
        let architecture = Architecture::from_gguf(file)?;
        let keys = Keys { file, architecture };
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
        let context_length = keys.required("context_length")?;
        let original_context = keys.optional("rope.scaling.original_context_length")?;
        Ok(Self {
            architecture,
            context_length,
            embedding_length,
            block_count: keys.required("block_count")?,
            feed_forward_length: keys.required("feed_forward_length")?,
            head_count,
            head_count_kv,
            head_length,
            rope_length,
            rope_base,
            rope_scaling: keys.rope_scaling(original_context.unwrap_or(context_length))?,
            sliding_window: keys.optional_or_zero("attention.sliding_window")?,
            temperature: keys.temperature(original_context.unwrap_or(context_length))?,
            rms_epsilon,
            vocabulary_length,
        })
    }
}

/// The keys of the architecture.
struct Keys<'a> {
    file: &'a gguf::File<'a>,
    architecture: Architecture,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.name())
    }

    fn bad(&self, key: &str) -> LoadError {
        LoadError::BadValue(self.name(key))
    }

    fn missing(&self, key: &str) -> LoadError {
        LoadError::MissingValue(self.name(key))
    }

    /// A dimension: positive, and not absurd.
    fn optional(&self, key: &str) -> Result<Option<usize>, LoadError> {
        match self.optional_or_zero(key)? {
            None if self.file.value(&self.name(key)).is_some() => Err(self.bad(key)),
            value => Ok(value),
        }
    }

    /// A dimension, or none where it is 0.
    fn optional_or_zero(&self, key: &str) -> Result<Option<usize>, LoadError> {
        let value = match self.file.value(&self.name(key)) {
            None => return Ok(None),
            Some(Value::Unsigned(value)) => Some(value),
            Some(Value::Signed(value)) => u64::try_from(value).ok(),
            Some(_) => None,
        };
        let value = value.filter(|value| *value <= LARGEST).ok_or_else(|| self.bad(key))?;
        Ok(Some(value as usize).filter(|value| *value > 0))
    }

    fn required(&self, key: &str) -> Result<usize, LoadError> {
        self.optional(key)?.ok_or_else(|| self.missing(key))
    }

    /// A finite number.
    fn number(&self, key: &str) -> Result<Option<f32>, LoadError> {
        match self.file.value(&self.name(key)) {
            None => Ok(None),
            Some(Value::Float(value)) if (value as f32).is_finite() => Ok(Some(value as f32)),
            Some(_) => Err(self.bad(key)),
        }
    }

    /// A finite number above zero.
    fn positive(&self, key: &str) -> Result<Option<f32>, LoadError> {
        match self.number(key)? {
            Some(value) if value <= 0.0 => Err(self.bad(key)),
            value => Ok(value),
        }
    }

    /// What `rope.scaling` asks for, as llama.cpp reads it (`llama_model_base::load_hparams`, `llama_context`).
    fn rope_scaling(&self, original_context: usize) -> Result<RopeScaling, LoadError> {
        let key = self.name("rope.scaling.type");
        let kind = match self.file.value(&key) {
            None => "linear",
            Some(Value::String(kind)) if ["none", "linear", "yarn"].contains(&kind) => kind,
            Some(Value::String(kind)) => {
                return Err(LoadError::UnsupportedFeature { key, value: kind.into() });
            }
            Some(_) => return Err(LoadError::BadValue(key)),
        };
        let magnitude = self.positive("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let factor = match self.number("rope.scaling.factor")? {
            None => self.number("rope.scale_linear")?,
            factor => factor,
        };
        // llama.cpp takes 0 as "not set".
        let factor = factor.filter(|factor| *factor != 0.0 && kind != "none").unwrap_or(1.0);
        if factor < 0.0 {
            return Err(self.bad("rope.scaling.factor"));
        }
        if kind != "yarn" {
            return Ok(RopeScaling { factor, magnitude, yarn: None });
        }
        // These keys count for Ministral only; for the others llama.cpp has the defaults.
        let tuned = |key, default| match self.architecture {
            Architecture::Mistral3 => self.positive(key).map(|value| value.unwrap_or(default)),
            _ => Ok(default),
        };
        let yarn = Yarn {
            original_context,
            beta_fast: tuned("rope.scaling.yarn_beta_fast", 32.0)?,
            beta_slow: tuned("rope.scaling.yarn_beta_slow", 1.0)?,
        };
        let log_multiplier = match self.architecture {
            Architecture::Mistral3 => self.number("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0),
            _ => 0.0,
        };
        let gain =
            |multiplier: f32| 0.1 * multiplier * crate::math::ln(f64::from(factor.max(1.0))) as f32 + 1.0;
        let magnitude =
            magnitude * gain(1.0) / if log_multiplier == 0.0 { 1.0 } else { gain(log_multiplier) };
        if !(magnitude.is_finite() && magnitude > 0.0) {
            return Err(self.bad("rope.scaling.yarn_log_multiplier"));
        }
        Ok(RopeScaling { factor, magnitude, yarn: Some(yarn) })
    }

    fn temperature(&self, every: usize) -> Result<Option<Temperature>, LoadError> {
        if self.architecture != Architecture::Mistral3 {
            return Ok(None);
        }
        let scale = self.number("attention.temperature_scale")?.filter(|scale| *scale != 0.0);
        Ok(scale.map(|scale| Temperature { scale, every }))
    }

    /// What would change the result and is not computed here must not be ignored.
    fn refuse_unsupported(&self) -> Result<(), LoadError> {
        for (key, harmless) in [
            ("expert_count", Value::Unsigned(0)),
            ("attention.causal", Value::Bool(true)),
            ("attention.sliding_window_pattern", Value::Unsigned(1)),
        ] {
            let key = self.name(key);
            if let Some(value) = self.file.value(&key).filter(|value| *value != harmless) {
                // A number with a fraction would bring the code that prints one into the image.
                let value = match value {
                    Value::Unsigned(value) => format!("{value}"),
                    Value::Bool(value) => format!("{value}"),
                    _ => "of another type".into(),
                };
                return Err(LoadError::UnsupportedFeature { key, value });
            }
        }
        Ok(())
    }
}
