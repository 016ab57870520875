//! The element types of metadata and of tensors.
use crate::blocks::{self, BLOCK, SUPER_BLOCK};

/// The type of a metadata value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ValueType {
    /// Unsigned, 8 bits.
    U8 = 0,
    /// Signed, 8 bits.
    I8 = 1,
    /// Unsigned, 16 bits.
    U16 = 2,
    /// Signed, 16 bits.
    I16 = 3,
    /// Unsigned, 32 bits.
    U32 = 4,
    /// Signed, 32 bits.
    I32 = 5,
    /// IEEE single.
    F32 = 6,
    /// One byte, 0 or 1.
    Bool = 7,
    /// Length (u64) and UTF-8.
    String = 8,
    /// Element type (u32), length (u64) and elements.
    Array = 9,
    /// Unsigned, 64 bits.
    U64 = 10,
    /// Signed, 64 bits.
    I64 = 11,
    /// IEEE double.
    F64 = 12,
}

impl ValueType {
    /// The type with this number in a file.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of one value, for the types whose values all have the same size.
    #[must_use]
    pub fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

/// How the elements of a tensor are stored. Only the types that the engine can compute with; `blocks.rs` has their
/// layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TensorType {
    /// IEEE single.
    F32 = 0,
    /// IEEE half.
    F16 = 1,
    /// Blocks of 32: a half-precision scale and 4 bits each.
    Q4_0 = 2,
    /// Blocks of 32: a half-precision scale and minimum and 4 bits each.
    Q4_1 = 3,
    /// Blocks of 32: a half-precision scale and 5 bits each.
    Q5_0 = 6,
    /// Blocks of 32: a half-precision scale and minimum and 5 bits each.
    Q5_1 = 7,
    /// Blocks of 32: a half-precision scale and 32 signed bytes.
    Q8_0 = 8,
    /// Super-blocks of 256 with 2 bits each, and scales and minima of 4 bits for each 16.
    Q2K = 10,
    /// Super-blocks of 256 with 3 bits each, and scales of 6 bits for each 16.
    Q3K = 11,
    /// Super-blocks of 256 with 4 bits each, and scales and minima of 6 bits for each 32.
    Q4K = 12,
    /// Super-blocks of 256 with 5 bits each, and scales and minima of 6 bits for each 32.
    Q5K = 13,
    /// Super-blocks of 256 with 6 bits each, and scales of 8 bits for each 16.
    Q6K = 14,
    /// The upper half of an IEEE single.
    Bf16 = 30,
}

impl TensorType {
    /// All types, for messages.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The type with this number in a file, if the engine supports it.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == id)
    }

    /// The name that `ggml` uses, elements that are stored together, and the bytes that they take.
    const fn layout(self) -> (&'static str, usize, usize) {
        match self {
            Self::F32 => ("F32", 1, 4),
            Self::F16 => ("F16", 1, 2),
            Self::Bf16 => ("BF16", 1, 2),
            Self::Q8_0 => ("Q8_0", BLOCK, blocks::Q8_0_BYTES),
            Self::Q4_0 => ("Q4_0", BLOCK, blocks::Q4_0_BYTES),
            Self::Q4_1 => ("Q4_1", BLOCK, blocks::Q4_1_BYTES),
            Self::Q5_0 => ("Q5_0", BLOCK, blocks::Q5_0_BYTES),
            Self::Q5_1 => ("Q5_1", BLOCK, blocks::Q5_1_BYTES),
            Self::Q2K => ("Q2_K", SUPER_BLOCK, blocks::Q2_K_BYTES),
            Self::Q3K => ("Q3_K", SUPER_BLOCK, blocks::Q3_K_BYTES),
            Self::Q4K => ("Q4_K", SUPER_BLOCK, blocks::Q4_K_BYTES),
            Self::Q5K => ("Q5_K", SUPER_BLOCK, blocks::Q5_K_BYTES),
            Self::Q6K => ("Q6_K", SUPER_BLOCK, blocks::Q6_K_BYTES),
        }
    }

    /// The name that `ggml` uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.layout().0
    }

    /// Elements that are stored together.
    #[must_use]
    pub fn block_elements(self) -> usize {
        self.layout().1
    }

    /// Bytes of one block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        self.layout().2
    }

    /// Bytes of so many elements; `None` if they do not fill whole blocks or the size does not fit.
    #[must_use]
    pub fn bytes(self, elements: usize) -> Option<usize> {
        if !elements.is_multiple_of(self.block_elements()) {
            return None;
        }
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }
}

/// What `ggml` calls a type that the engine does not support, so that a message can name it (`enum ggml_type`).
#[cfg(feature = "host")]
pub(super) fn foreign_name(id: u32) -> &'static str {
    match id {
        4 => "Q4_2",
        5 => "Q4_3",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        40 => "NVFP4",
        _ => "an unknown type",
    }
}
