//! A model: its shape, its tokenizer and its weights, which stay where the file is.
use crate::config::{Architecture, Config};
use crate::encode;
use crate::error::LoadError;
use crate::gguf::{self, TensorType};
use crate::kernels::{self, Isa, Kernels, Rows};
use crate::tokenizer::Tokenizer;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A loaded model. The weights are borrowed from the file.
#[derive(Debug)]
pub struct Model<'w> {
    config: Config,
    tokenizer: Tokenizer,
    pub(crate) kernels: &'static Kernels,
    pub(crate) embedding: Matrix<'w>,
    pub(crate) layers: Vec<Layer<'w>>,
    pub(crate) output_norm: Vec<f32>,
    /// The embedding again where the file has no output matrix of its own.
    pub(crate) output: Matrix<'w>,
    /// What each rotation's frequency is divided by, where the file says so (Llama 3).
    pub(crate) rope_factors: Option<Vec<f32>>,
}

/// The weights of a layer.
#[derive(Debug)]
pub(crate) struct Layer<'w> {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Matrix<'w>,
    pub(crate) key: Matrix<'w>,
    pub(crate) value: Matrix<'w>,
    /// For each element of a head, where the architecture normalises heads.
    pub(crate) query_norm: Option<Vec<f32>>,
    pub(crate) key_norm: Option<Vec<f32>>,
    pub(crate) attention_output: Matrix<'w>,
    pub(crate) feed_forward_norm: Vec<f32>,
    pub(crate) gate: Matrix<'w>,
    pub(crate) up: Matrix<'w>,
    pub(crate) down: Matrix<'w>,
}

/// A weight matrix, as it is stored, and what is added to its products.
#[derive(Clone, Debug)]
pub(crate) struct Matrix<'w> {
    pub(crate) kind: TensorType,
    /// Elements of a row, which is the length of the vectors that the matrix is multiplied with.
    pub(crate) width: usize,
    /// Rows, which is the length of the products.
    pub(crate) height: usize,
    /// As long as the products, or empty.
    pub(crate) bias: Vec<f32>,
    data: &'w [u8],
}

impl<'w> Matrix<'w> {
    /// Some of the rows.
    pub(crate) fn rows(&self, range: core::ops::Range<usize>) -> Rows<'w> {
        let bytes = self.kind.bytes(self.width).unwrap_or(0);
        Rows { kind: self.kind, width: self.width, data: &self.data[range.start * bytes..range.end * bytes] }
    }

    /// The values of a row.
    pub(crate) fn decode_row(&self, row: usize, out: &mut [f32]) {
        encode::decode(self.kind, self.rows(row..row + 1).data, out);
    }
}

impl<'w> Model<'w> {
    /// Reads a model from the bytes of a GGUF file.
    ///
    /// # Errors
    /// When the file is broken, incomplete, or asks for what is not supported; the error names it.
    pub fn load(gguf: &'w [u8]) -> Result<Self, LoadError> {
        Self::load_with(gguf, Isa::best())
    }

    /// The same with a chosen set of instructions. One that the processor lacks is replaced by the plainest.
    ///
    /// # Errors
    /// Those of [`Model::load`].
    pub fn load_with(gguf: &'w [u8], isa: Isa) -> Result<Self, LoadError> {
        let file = gguf::File::parse(gguf)?;
        let architecture = Architecture::from_gguf(&file)?;
        let tokenizer = Tokenizer::from_gguf(&file)?;
        let config = Config::from_gguf(&file, tokenizer.vocabulary_len())?;
        let mut tensors = Tensors { file: &file, taken: BTreeSet::new() };

        let (embedding_length, vocabulary) = (config.embedding_length, config.vocabulary_length);
        let (query, key_value) = (config.query_length(), config.key_value_length());
        let feed_forward = config.feed_forward_length;
        let embedding = tensors.matrix("token_embd", embedding_length, vocabulary)?;
        let mut layers = Vec::new();
        for index in 0..config.block_count {
            let name = |part: &str| format!("blk.{index}.{part}");
            let mut head_norm = |part: &str| match architecture.normalises_heads() {
                true => tensors.vector(&name(part), config.head_length).map(Some),
                false => Ok(None),
            };
            let (query_norm, key_norm) = (head_norm("attn_q_norm")?, head_norm("attn_k_norm")?);
            layers.push(Layer {
                attention_norm: tensors.vector(&name("attn_norm"), embedding_length)?,
                query: tensors.matrix(&name("attn_q"), embedding_length, query)?,
                key: tensors.matrix(&name("attn_k"), embedding_length, key_value)?,
                value: tensors.matrix(&name("attn_v"), embedding_length, key_value)?,
                query_norm,
                key_norm,
                attention_output: tensors.matrix(&name("attn_output"), query, embedding_length)?,
                feed_forward_norm: tensors.vector(&name("ffn_norm"), embedding_length)?,
                gate: tensors.matrix(&name("ffn_gate"), embedding_length, feed_forward)?,
                up: tensors.matrix(&name("ffn_up"), embedding_length, feed_forward)?,
                down: tensors.matrix(&name("ffn_down"), feed_forward, embedding_length)?,
            });
        }
        let output_norm = tensors.vector("output_norm", embedding_length)?;
        let output = match tensors.has("output.weight") {
            true => tensors.matrix("output", embedding_length, vocabulary)?,
            false => embedding.clone(),
        };
        let rope_factors = match architecture.has_rope_factors() && tensors.has("rope_freqs.weight") {
            true => Some(tensors.vector("rope_freqs", config.rope_length / 2)?),
            false => None,
        };
        tensors.finish()?;
        let kernels = isa.kernels().unwrap_or(&kernels::plain::KERNELS);
        Ok(Self { config, tokenizer, kernels, embedding, layers, output_norm, output, rope_factors })
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The shape.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The name of the set of kernels that was chosen for this processor.
    #[must_use]
    pub fn kernels(&self) -> &'static str {
        self.kernels.name
    }
}

/// The tensors of a file, taken by name and checked for shape.
struct Tensors<'f, 'w> {
    file: &'f gguf::File<'w>,
    taken: BTreeSet<String>,
}

impl<'w> Tensors<'_, 'w> {
    fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_some()
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<gguf::Tensor<'w>, LoadError> {
        let tensor = self.file.tensor(name).ok_or_else(|| LoadError::MissingTensor(name.into()))?;
        if tensor.dimensions() != shape {
            let (expected, found) = (shape.to_vec(), tensor.dimensions().to_vec());
            return Err(LoadError::Shape { tensor: name.into(), expected, found });
        }
        self.taken.insert(name.into());
        Ok(*tensor)
    }

    /// A matrix, and its bias if the file has one.
    fn matrix(&mut self, name: &str, width: usize, height: usize) -> Result<Matrix<'w>, LoadError> {
        let tensor = self.take(&format!("{name}.weight"), &[width, height])?;
        let bias = format!("{name}.bias");
        let bias = match self.has(&bias) {
            true => self.take(&bias, &[height])?.values(),
            false => Vec::new(),
        };
        Ok(Matrix { kind: tensor.kind(), width, height, bias, data: tensor.data() })
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        Ok(self.take(&format!("{name}.weight"), &[len])?.values())
    }

    /// Fails if the file has a tensor that was not taken.
    fn finish(self) -> Result<(), LoadError> {
        match self.file.tensors().find(|(name, _)| !self.taken.contains(*name)) {
            Some((name, _)) => Err(LoadError::UnknownTensor(name.into())),
            None => Ok(()),
        }
    }
}
