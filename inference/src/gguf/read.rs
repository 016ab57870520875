//! The reader.
use super::error::{Error, Part};
use super::types::{TensorType, ValueType};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_DIMENSIONS};
use crate::encode;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
#[cfg(feature = "host")]
use core::fmt;

/// The most metadata entries a file may have. Real models have about 40.
const MAX_ENTRIES: u64 = 1 << 16;
/// The most tensors a file may have. The largest dense models have about 2,000.
const MAX_TENSORS: u64 = 1 << 16;
/// The longest key (GGUF: "at most 2^16 - 1 bytes").
const MAX_KEY: usize = u16::MAX as usize;
/// The longest tensor name (GGUF: "at most 64 bytes").
const MAX_TENSOR_NAME: usize = 64;

/// A file whose every count, length and offset has been checked.
#[derive(Clone, Debug)]
pub struct File<'a> {
    metadata: BTreeMap<&'a str, Value<'a>>,
    tensors: BTreeMap<&'a str, Tensor<'a>>,
}

/// A metadata value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// An unsigned integer of any width.
    Unsigned(u64),
    /// A signed integer of any width.
    Signed(i64),
    /// A floating-point number of either width.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A string.
    String(&'a str),
    /// An array.
    Array(Array<'a>),
}

#[cfg(feature = "host")]
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::String(value) => value.fmt(f),
            Self::Array(array) => write!(f, "an array of {}", array.len),
        }
    }
}

/// An array of metadata values, still in the file's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array<'a> {
    element: ValueType,
    len: usize,
    bytes: &'a [u8],
}

/// A tensor and its data.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    kind: TensorType,
    dimensions: [usize; MAX_DIMENSIONS],
    rank: usize,
    data: &'a [u8],
}

impl<'a> File<'a> {
    /// Reads a whole file.
    ///
    /// # Errors
    /// The first thing found wrong, by name.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut cursor = Cursor { bytes, at: 0 };
        let header = || Part::Header;
        if cursor.take(MAGIC.len(), header)? != MAGIC {
            return Err(Error::NotGguf);
        }
        let version = cursor.u32(header)?;
        if !(2..=3).contains(&version) {
            return Err(Error::Version(version));
        }
        let tensor_count = cursor.u64(header)?;
        let entry_count = cursor.u64(header)?;
        if tensor_count > MAX_TENSORS {
            return Err(Error::TooMany { what: "tensors", count: tensor_count });
        }
        if entry_count > MAX_ENTRIES {
            return Err(Error::TooMany { what: "metadata entries", count: entry_count });
        }

        let mut metadata = BTreeMap::new();
        for index in 0..entry_count {
            let key = cursor.name(MAX_KEY, || Part::Key(index))?;
            let value = cursor.entry(key)?;
            if metadata.insert(key, value).is_some() {
                return Err(Error::DuplicateKey(key.into()));
            }
        }
        let alignment = match metadata.get(ALIGNMENT_KEY) {
            None => DEFAULT_ALIGNMENT,
            Some(Value::Unsigned(alignment)) if alignment.is_power_of_two() && *alignment >= 8 => *alignment,
            Some(_) => return Err(Error::BadAlignment),
        };
        let infos = (0..tensor_count).map(|index| cursor.tensor(index)).collect::<Result<Vec<_>, _>>()?;
        let tensors = place_tensors(bytes, cursor.at, alignment, infos)?;
        Ok(Self { metadata, tensors })
    }

    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Value<'a>> {
        self.metadata.get(key).copied()
    }

    /// The tensor of this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Tensor<'a>> {
        self.tensors.get(name)
    }

    /// All tensors, in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = (&'a str, &Tensor<'a>)> {
        self.tensors.iter().map(|(name, tensor)| (*name, tensor))
    }

    /// All keys and values, in the order of the keys.
    pub fn metadata(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> {
        self.metadata.iter().map(|(key, value)| (*key, *value))
    }
}

impl<'a> Array<'a> {
    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The type of the elements.
    #[must_use]
    pub fn element(&self) -> ValueType {
        self.element
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut cursor = Cursor { bytes: self.bytes, at: 0 };
        let element = self.element;
        // Parsing checked every element once, so reading them again ends at the last one.
        (0..self.len).map_while(move |_| cursor.scalar(element, "").ok())
    }
}

impl<'a> Tensor<'a> {
    /// How the elements are stored.
    #[must_use]
    pub fn kind(&self) -> TensorType {
        self.kind
    }

    /// The dimensions, the one that varies fastest first.
    #[must_use]
    pub fn dimensions(&self) -> &[usize] {
        &self.dimensions[..self.rank]
    }

    /// The number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        // Parsing checked that the product fits.
        self.dimensions().iter().product()
    }

    /// The elements as numbers, in row-major order.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.elements()];
        encode::decode(self.kind, self.data, &mut values);
        values
    }

    /// The elements as they are stored.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        self.data
    }
}

/// A tensor whose place in the file is not yet checked.
struct TensorInfo<'a> {
    name: &'a str,
    kind: TensorType,
    dimensions: [usize; MAX_DIMENSIONS],
    rank: usize,
    bytes: usize,
    offset: u64,
}

/// Gives each tensor its bytes. Tensor data begin at the first multiple of the alignment after the descriptions.
fn place_tensors<'a>(
    bytes: &'a [u8],
    infos_end: usize,
    alignment: u64,
    mut infos: Vec<TensorInfo<'a>>,
) -> Result<BTreeMap<&'a str, Tensor<'a>>, Error> {
    let outside = |name: &str| Error::Truncated(Part::TensorData(name.into()));
    infos.sort_unstable_by_key(|info| (info.offset, info.name));
    let mut tensors = BTreeMap::new();
    let mut previous: Option<(&str, usize)> = None;
    for info in infos {
        let base = (infos_end as u64).checked_next_multiple_of(alignment);
        if !info.offset.is_multiple_of(alignment) {
            return Err(Error::Misaligned(info.name.into()));
        }
        let range = base
            .and_then(|base| base.checked_add(info.offset))
            .and_then(|start| usize::try_from(start).ok())
            .and_then(|start| Some(start..start.checked_add(info.bytes)?))
            .ok_or_else(|| outside(info.name))?;
        let data = bytes.get(range.clone()).ok_or_else(|| outside(info.name))?;
        let tensor = Tensor { kind: info.kind, dimensions: info.dimensions, rank: info.rank, data };
        if tensors.insert(info.name, tensor).is_some() {
            return Err(Error::DuplicateTensor(info.name.into()));
        }
        if let Some((first, end)) = previous
            && end > range.start
        {
            return Err(Error::Overlap { first: first.into(), second: info.name.into() });
        }
        previous = Some((info.name, range.end));
    }
    Ok(tensors)
}

/// A place in the file. Each reading function is told which part it reads, for the error.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize, part: impl FnOnce() -> Part) -> Result<&'a [u8], Error> {
        let taken = self.at.checked_add(len).and_then(|end| Some((self.bytes.get(self.at..end)?, end)));
        let (taken, end) = taken.ok_or_else(|| Error::Truncated(part()))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, part: impl FnOnce() -> Part) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, part)?);
        Ok(bytes)
    }

    fn u32(&mut self, part: impl FnOnce() -> Part) -> Result<u32, Error> {
        self.array(part).map(u32::from_le_bytes)
    }

    fn u64(&mut self, part: impl FnOnce() -> Part) -> Result<u64, Error> {
        self.array(part).map(u64::from_le_bytes)
    }

    /// Bytes preceded by their length.
    fn counted(&mut self, part: impl Fn() -> Part) -> Result<&'a [u8], Error> {
        let len = usize::try_from(self.u64(&part)?).map_err(|_| Error::Truncated(part()))?;
        self.take(len, part)
    }

    /// A key or a tensor's name.
    fn name(&mut self, longest: usize, part: impl Fn() -> Part) -> Result<&'a str, Error> {
        let bytes = self.counted(&part)?;
        let name = core::str::from_utf8(bytes).ok().filter(|name| (1..=longest).contains(&name.len()));
        name.ok_or_else(|| Error::BadName(part()))
    }

    /// A metadata value with its type.
    fn entry(&mut self, key: &str) -> Result<Value<'a>, Error> {
        let part = || Part::Value(String::from(key));
        let kind = self.value_type(key)?;
        if kind != ValueType::Array {
            return self.scalar(kind, key);
        }
        let element = self.value_type(key)?;
        let len = usize::try_from(self.u64(part)?).map_err(|_| Error::Truncated(part()))?;
        let start = self.at;
        match element.size() {
            Some(size) if element != ValueType::Bool => {
                let bytes = len.checked_mul(size).ok_or_else(|| Error::Truncated(part()))?;
                self.take(bytes, part)?;
            }
            // Each element takes at least a byte, so a false length ends with the file, and an array in an array
            // is refused by `scalar`.
            _ => {
                for _ in 0..len {
                    self.scalar(element, key)?;
                }
            }
        }
        Ok(Value::Array(Array { element, len, bytes: &self.bytes[start..self.at] }))
    }

    fn value_type(&mut self, key: &str) -> Result<ValueType, Error> {
        let id = self.u32(|| Part::Value(key.into()))?;
        ValueType::from_id(id).ok_or_else(|| Error::UnknownValueType { key: key.into(), id })
    }

    fn scalar(&mut self, kind: ValueType, key: &str) -> Result<Value<'a>, Error> {
        let part = || Part::Value(String::from(key));
        Ok(match kind {
            ValueType::U8 => Value::Unsigned(u8::from_le_bytes(self.array(part)?).into()),
            ValueType::I8 => Value::Signed(i8::from_le_bytes(self.array(part)?).into()),
            ValueType::U16 => Value::Unsigned(u16::from_le_bytes(self.array(part)?).into()),
            ValueType::I16 => Value::Signed(i16::from_le_bytes(self.array(part)?).into()),
            ValueType::U32 => Value::Unsigned(u32::from_le_bytes(self.array(part)?).into()),
            ValueType::I32 => Value::Signed(i32::from_le_bytes(self.array(part)?).into()),
            ValueType::U64 => Value::Unsigned(u64::from_le_bytes(self.array(part)?)),
            ValueType::I64 => Value::Signed(i64::from_le_bytes(self.array(part)?)),
            ValueType::F32 => Value::Float(f32::from_le_bytes(self.array(part)?).into()),
            ValueType::F64 => Value::Float(f64::from_le_bytes(self.array(part)?)),
            ValueType::Bool => match self.array(part)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                _ => return Err(Error::BadValue(key.into())),
            },
            ValueType::String => {
                let text = core::str::from_utf8(self.counted(part)?);
                Value::String(text.map_err(|_| Error::BadValue(key.into()))?)
            }
            ValueType::Array => return Err(Error::BadValue(key.into())),
        })
    }

    fn tensor(&mut self, index: u64) -> Result<TensorInfo<'a>, Error> {
        let name = self.name(MAX_TENSOR_NAME, || Part::TensorName(index))?;
        let part = || Part::TensorInfo(String::from(name));
        let bad_shape = || Error::BadShape(name.into());
        let rank = usize::try_from(self.u32(part)?).map_err(|_| bad_shape())?;
        if !(1..=MAX_DIMENSIONS).contains(&rank) {
            return Err(bad_shape());
        }
        let mut dimensions = [1; MAX_DIMENSIONS];
        for dimension in &mut dimensions[..rank] {
            *dimension = usize::try_from(self.u64(part)?).ok().filter(|d| *d > 0).ok_or_else(bad_shape)?;
        }
        let id = self.u32(part)?;
        let kind =
            TensorType::from_id(id).ok_or_else(|| Error::UnsupportedType { tensor: name.into(), id })?;
        // A row (the first dimension) must fill whole blocks, and then so do all rows together.
        kind.bytes(dimensions[0]).ok_or_else(bad_shape)?;
        let elements = dimensions.iter().try_fold(1_usize, |product, d| product.checked_mul(*d));
        let bytes = elements.and_then(|elements| kind.bytes(elements)).ok_or_else(bad_shape)?;
        let offset = self.u64(part)?;
        Ok(TensorInfo { name, kind, dimensions, rank, bytes, offset })
    }
}
