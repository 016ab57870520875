//! A model: its shape, its tokenizer and its weights, which stay where the file is.
use crate::config::{Architecture, Config};
use crate::error::LoadError;
use crate::gguf::{self, TensorType};
use crate::kernels::pack::{Fetch, Packed, pack};
use crate::kernels::{Isa, Kernels};
use crate::tokenizer::Tokenizer;
use crate::workers::{SingleThread, Workers};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, DerefMut, Range};

/// A loaded model. The weights are where the file was.
#[derive(Debug)]
pub struct Model<'w> {
    config: Config,
    tokenizer: Tokenizer,
    pub(crate) kernels: &'static Kernels,
    weights: Weights<'w>,
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Vec<f32>,
    /// Missing where the embedding serves again.
    output: Option<Matrix>,
    /// What each rotation's frequency is divided by, where the file says so (Llama 3).
    pub(crate) rope_factors: Option<Vec<f32>>,
}

/// The bytes of a GGUF file, for a model to keep.
pub enum Weights<'w> {
    /// Somebody else's.
    Borrowed(&'w mut [u8]),
    /// The model's own.
    Owned(Vec<u8>),
}

impl<'w> From<&'w mut [u8]> for Weights<'w> {
    fn from(gguf: &'w mut [u8]) -> Self {
        Self::Borrowed(gguf)
    }
}

impl From<Vec<u8>> for Weights<'_> {
    fn from(gguf: Vec<u8>) -> Self {
        Self::Owned(gguf)
    }
}

/// A copy is made, which takes as much memory again.
impl From<&[u8]> for Weights<'_> {
    fn from(gguf: &[u8]) -> Self {
        Self::Owned(gguf.into())
    }
}

/// A copy is made, which takes as much memory again.
impl From<&Vec<u8>> for Weights<'_> {
    fn from(gguf: &Vec<u8>) -> Self {
        Self::Owned(gguf.clone())
    }
}

impl Deref for Weights<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl DerefMut for Weights<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Weights<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weights({} bytes)", self.len())
    }
}

/// The weights of a layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) query: Matrix,
    pub(crate) key: Matrix,
    pub(crate) value: Matrix,
    /// For each element of a head, where the architecture normalises heads.
    pub(crate) query_norm: Option<Vec<f32>>,
    pub(crate) key_norm: Option<Vec<f32>>,
    pub(crate) attention_output: Matrix,
    pub(crate) feed_forward_norm: Vec<f32>,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

impl Layer {
    fn matrices(&mut self) -> [&mut Matrix; 7] {
        let Self { query, key, value, attention_output, gate, up, down, .. } = self;
        [query, key, value, attention_output, gate, up, down]
    }
}

/// A weight matrix, and what is added to its products.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub(crate) kind: TensorType,
    /// Elements of a row, which is the length of the vectors that the matrix is multiplied with.
    pub(crate) width: usize,
    /// Rows, which is the length of the products.
    pub(crate) height: usize,
    /// As long as the products, or empty.
    pub(crate) bias: Vec<f32>,
    /// Where in the file it is.
    place: Range<usize>,
    /// The last rows, packed, if they do not fill a group.
    tail: Vec<u8>,
}

impl<'w> Model<'w> {
    /// Reads a model from the bytes of a GGUF file. The weights are brought into the order in which they are read
    /// best, where they are; after that, the bytes are no GGUF file any more.
    ///
    /// # Errors
    /// When the file is broken, incomplete, or asks for what is not supported; the error names it.
    pub fn load(gguf: impl Into<Weights<'w>>) -> Result<Self, LoadError> {
        Self::load_with(gguf, Isa::best(), &SingleThread)
    }

    /// The same with a chosen set of instructions, and by so many workers. Instructions that the processor lacks are
    /// replaced by the plainest.
    ///
    /// # Errors
    /// Those of [`Model::load`].
    pub fn load_with(
        gguf: impl Into<Weights<'w>>,
        isa: Isa,
        workers: &impl Workers,
    ) -> Result<Self, LoadError> {
        Self::fetch(gguf.into(), isa, workers, &|_, _| ())
    }

    /// The same, where the bytes of matrices are fetched only now.
    pub(crate) fn fetch(
        mut gguf: Weights<'w>,
        isa: Isa,
        workers: &impl Workers,
        fetch: Fetch<'_>,
    ) -> Result<Self, LoadError> {
        let mut model = Self::read(&gguf, isa)?;
        // What is packed must not be read as a file again.
        if let Some(magic) = gguf.first_chunk_mut() {
            *magic = *b"used";
        }
        let layers = model.layers.iter_mut().flat_map(Layer::matrices);
        for matrix in layers.chain([&mut model.embedding]).chain(&mut model.output) {
            let data = (matrix.place.start, &mut gguf[matrix.place.clone()]);
            matrix.tail = pack((matrix.kind, matrix.width, matrix.height), data, fetch, workers)?;
        }
        model.weights = gguf;
        Ok(model)
    }

    /// Reads everything but the weights of matrices.
    fn read(gguf: &[u8], isa: Isa) -> Result<Self, LoadError> {
        let file = gguf::File::parse(gguf)?;
        let architecture = Architecture::from_gguf(&file)?;
        let tokenizer = Tokenizer::from_gguf(&file)?;
        let config = Config::from_gguf(&file, tokenizer.vocabulary_len())?;
        let mut tensors = Tensors { start: gguf.as_ptr() as usize, file: &file, taken: BTreeSet::new() };

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
            true => Some(tensors.matrix("output", embedding_length, vocabulary)?),
            false => None,
        };
        let rope_factors = match architecture.has_rope_factors() && tensors.has("rope_freqs.weight") {
            true => Some(tensors.vector("rope_freqs", config.rope_length / 2)?),
            false => None,
        };
        tensors.finish()?;
        let kernels = isa.kernels().ok_or(LoadError::Processor)?;
        let weights = Weights::Owned(Vec::new());
        Ok(Self { config, tokenizer, kernels, weights, embedding, layers, output_norm, output, rope_factors })
    }

    /// A matrix with its weights.
    pub(crate) fn packed<'s>(&'s self, matrix: &'s Matrix) -> Packed<'s> {
        let Matrix { kind, width, height, tail, .. } = matrix;
        let tiles = &self.weights[matrix.place.clone()];
        Packed { kind: *kind, width: *width, height: *height, tiles, tail }
    }

    /// The matrix that gives the logits.
    pub(crate) fn output(&self) -> &Matrix {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// The memory that holds the weights, and is only read from now on.
    #[must_use]
    pub fn weights(&self) -> &[u8] {
        &self.weights
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
    /// The address of the file.
    start: usize,
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
    fn matrix(&mut self, name: &str, width: usize, height: usize) -> Result<Matrix, LoadError> {
        let tensor = self.take(&format!("{name}.weight"), &[width, height])?;
        let bias = format!("{name}.bias");
        let bias = match self.has(&bias) {
            true => self.take(&bias, &[height])?.values(),
            false => Vec::new(),
        };
        let first = tensor.data().as_ptr() as usize - self.start;
        let place = first..first + tensor.data().len();
        Ok(Matrix { kind: tensor.kind(), width, height, bias, place, tail: Vec::new() })
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
