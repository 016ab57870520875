//! The writer: metadata and tensors in, the bytes of a GGUF version 3 file out.
//!
//! ```
//! use inference::gguf::{File, TensorType, write::Writer};
//! let mut writer = Writer::new();
//! writer.set("general.architecture", "llama");
//! writer.set("llama.block_count", 1_u32);
//! writer.tensor("token_embd.weight", &[32, 2], TensorType::Q8_0, &[0.5; 64])?;
//! let bytes = writer.finish();
//! assert_eq!(File::parse(&bytes).unwrap().tensor("token_embd.weight").unwrap().elements(), 64);
//! # Ok::<(), inference::gguf::write::Error>(())
//! ```
use super::{DEFAULT_ALIGNMENT, MAGIC, TensorType, ValueType, pack};

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// The version that is written.
const VERSION: u32 = 3;

/// A metadata value. Made by `into()` from the Rust type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An unsigned integer.
    U32(u32),
    /// A wide unsigned integer.
    U64(u64),
    /// A signed integer.
    I32(i32),
    /// A floating-point number.
    F32(f32),
    /// A truth value.
    Bool(bool),
    /// A string.
    String(String),
    /// Strings, for example a vocabulary.
    Strings(Vec<String>),
    /// Signed integers, for example token types.
    I32s(Vec<i32>),
    /// Floating-point numbers, for example scores.
    F32s(Vec<f32>),
}

macro_rules! value_from {
    ($($rust:ty => $variant:ident),*) => {
        $(impl From<$rust> for Value {
            fn from(value: $rust) -> Self {
                Self::$variant(value)
            }
        })*
    };
}
value_from!(u32 => U32, u64 => U64, i32 => I32, f32 => F32, bool => Bool, String => String,
    Vec<String> => Strings, Vec<i32> => I32s, Vec<f32> => F32s);

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.into())
    }
}

/// Why a tensor cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The values do not fill the shape.
    Count {
        /// The tensor.
        tensor: String,
        /// Elements in the shape.
        expected: usize,
        /// Elements given.
        given: usize,
    },
    /// The first dimension is not a multiple of the type's block.
    Block(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { tensor, expected, given } => {
                write!(f, "tensor '{tensor}' has room for {expected} elements and was given {given}")
            }
            Self::Block(tensor) => {
                write!(f, "the rows of tensor '{tensor}' do not fill whole blocks of its type")
            }
        }
    }
}

impl core::error::Error for Error {}

/// A file in the making.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
}

#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    dimensions: Vec<usize>,
    kind: TensorType,
    data: Vec<u8>,
}

impl Writer {
    /// An empty file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a metadata value; one that was set before is replaced.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        let value = value.into();
        match self.metadata.iter_mut().find(|(existing, _)| existing == key) {
            Some((_, existing)) => *existing = value,
            None => self.metadata.push((key.to_string(), value)),
        }
        self
    }

    /// Adds a tensor: values in row-major order, dimensions with the row length first, stored as `kind`.
    ///
    /// # Errors
    /// When the values do not fill the shape, or rows do not fill the type's blocks.
    pub fn tensor(
        &mut self,
        name: &str,
        dimensions: &[usize],
        kind: TensorType,
        values: &[f32],
    ) -> Result<&mut Self, Error> {
        let expected = dimensions.iter().product();
        if values.len() != expected {
            return Err(Error::Count { tensor: name.into(), expected, given: values.len() });
        }
        let row = dimensions.first().copied().unwrap_or(0);
        if row == 0 || !row.is_multiple_of(kind.block_elements()) {
            return Err(Error::Block(name.into()));
        }
        let data = pack::encode(kind, values);
        self.tensors.push(Tensor { name: name.into(), dimensions: dimensions.into(), kind, data });
        Ok(self)
    }

    /// The file.
    #[must_use]
    pub fn finish(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        put_u64(&mut out, self.tensors.len());
        put_u64(&mut out, self.metadata.len());
        for (key, value) in &self.metadata {
            put_string(&mut out, key);
            put_value(&mut out, value);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            put_string(&mut out, &tensor.name);
            out.extend_from_slice(&(tensor.dimensions.len() as u32).to_le_bytes());
            for dimension in &tensor.dimensions {
                put_u64(&mut out, *dimension);
            }
            out.extend_from_slice(&(tensor.kind as u32).to_le_bytes());
            put_u64(&mut out, offset);
            offset = (offset + tensor.data.len()).next_multiple_of(DEFAULT_ALIGNMENT as usize);
        }
        for tensor in &self.tensors {
            pad(&mut out);
            out.extend_from_slice(&tensor.data);
        }
        pad(&mut out);
        out
    }
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
}

fn put_u64(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&(value as u64).to_le_bytes());
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_type(out: &mut Vec<u8>, kind: ValueType) {
    out.extend_from_slice(&(kind as u32).to_le_bytes());
}

fn put_array(out: &mut Vec<u8>, element: ValueType, len: usize) {
    put_type(out, ValueType::Array);
    put_type(out, element);
    put_u64(out, len);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U32(value) => {
            put_type(out, ValueType::U32);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::U64(value) => {
            put_type(out, ValueType::U64);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::I32(value) => {
            put_type(out, ValueType::I32);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::F32(value) => {
            put_type(out, ValueType::F32);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::Bool(value) => {
            put_type(out, ValueType::Bool);
            out.push(u8::from(*value));
        }
        Value::String(text) => {
            put_type(out, ValueType::String);
            put_string(out, text);
        }
        Value::Strings(texts) => {
            put_array(out, ValueType::String, texts.len());
            texts.iter().for_each(|text| put_string(out, text));
        }
        Value::I32s(values) => {
            put_array(out, ValueType::I32, values.len());
            values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
        }
        Value::F32s(values) => {
            put_array(out, ValueType::F32, values.len());
            values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
        }
    }
}
