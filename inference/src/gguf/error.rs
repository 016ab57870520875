//! What can be wrong with a file.
#[cfg(feature = "host")]
use super::TensorType;
#[cfg(feature = "host")]
use super::types::foreign_name;
use alloc::string::String;
#[cfg(feature = "host")]
use core::fmt;

/// The part of a file in which reading stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Magic, version and counts.
    Header,
    /// The key of the metadata entry with this index.
    Key(u64),
    /// The value of this key.
    Value(String),
    /// The name of the tensor with this index.
    TensorName(u64),
    /// Shape, type and offset of this tensor.
    TensorInfo(String),
    /// The elements of this tensor.
    TensorData(String),
}

#[cfg(feature = "host")]
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => write!(f, "the header"),
            Self::Key(index) => write!(f, "the key of metadata entry {index}"),
            Self::Value(key) => write!(f, "the value of '{key}'"),
            Self::TensorName(index) => write!(f, "the name of tensor {index}"),
            Self::TensorInfo(name) => write!(f, "the description of tensor '{name}'"),
            Self::TensorData(name) => write!(f, "the data of tensor '{name}'"),
        }
    }
}

/// Why a file was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The first bytes are not `GGUF`.
    NotGguf,
    /// A version other than 2 or 3.
    Version(u32),
    /// The file ends inside this part.
    Truncated(Part),
    /// More metadata entries or tensors than any model has.
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// The count in the file.
        count: u64,
    },
    /// A key or tensor name that is empty, too long, or not UTF-8.
    BadName(Part),
    /// The same key twice.
    DuplicateKey(String),
    /// A value whose type number is not defined.
    UnknownValueType {
        /// The key.
        key: String,
        /// The number in the file.
        id: u32,
    },
    /// A value that its type does not allow: a string that is not UTF-8, a truth value that is neither 0 nor 1, an
    /// array in an array.
    BadValue(String),
    /// `general.alignment` is not a power of two of at least 8.
    BadAlignment,
    /// The same tensor name twice.
    DuplicateTensor(String),
    /// A tensor whose type the engine does not support.
    UnsupportedType {
        /// The tensor.
        tensor: String,
        /// The number in the file.
        id: u32,
    },
    /// A tensor with no or too many dimensions, an empty one, or one whose size does not fit its type or memory.
    BadShape(String),
    /// A tensor whose offset breaks the file's alignment.
    Misaligned(String),
    /// Two tensors that share bytes.
    Overlap {
        /// The one that begins first.
        first: String,
        /// The one that begins inside it.
        second: String,
    },
}

#[cfg(feature = "host")]
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGguf => write!(f, "this is not a GGUF file: it does not begin with 'GGUF'"),
            Self::Version(version) => {
                write!(
                    f,
                    "GGUF version {version} is not supported; convert the file to version 3, little-endian"
                )
            }
            Self::Truncated(part) => {
                write!(f, "the GGUF file ends in {part}; it is incomplete, so get it again")
            }
            Self::TooMany { what, count } => write!(f, "the GGUF file claims {count} {what}; it is damaged"),
            Self::BadName(part) => {
                write!(f, "{part} is empty, too long or not UTF-8; the GGUF file is damaged")
            }
            Self::DuplicateKey(key) => write!(f, "the GGUF file has '{key}' twice"),
            Self::UnknownValueType { key, id } => {
                write!(f, "the value of '{key}' has type {id}, which GGUF does not define")
            }
            Self::BadValue(key) => write!(f, "the value of '{key}' is not valid for its type"),
            Self::BadAlignment => write!(f, "general.alignment is not a power of two of at least 8"),
            Self::DuplicateTensor(name) => write!(f, "the GGUF file has tensor '{name}' twice"),
            Self::UnsupportedType { tensor, id } => {
                write!(
                    f,
                    "tensor '{tensor}' has type {id} ({}), which is not supported; supported are",
                    foreign_name(*id)
                )?;
                for (index, kind) in TensorType::ALL.into_iter().enumerate() {
                    write!(f, "{}{}", if index == 0 { " " } else { ", " }, kind.name())?;
                }
                Ok(())
            }
            Self::BadShape(name) => {
                write!(f, "tensor '{name}' has a shape that its type or memory cannot hold")
            }
            Self::Misaligned(name) => write!(f, "the data of tensor '{name}' breaks the file's alignment"),
            Self::Overlap { first, second } => {
                write!(f, "the data of tensors '{first}' and '{second}' overlap; the GGUF file is damaged")
            }
        }
    }
}

#[cfg(feature = "host")]
impl core::error::Error for Error {}
