//! Expected values: types that cannot say "nothing is expected" (REQUIREMENTS B7).

use crate::report::Product;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A list with at least one element: "nothing is expected" cannot be said with it (REQUIREMENTS B7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<T>", into = "Vec<T>")]
#[serde(bound(serialize = "T: Clone + Serialize", deserialize = "T: Deserialize<'de>"))]
pub struct NonEmpty<T>(Vec<T>);

/// A list was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at least one value is needed here, or nothing would be checked")]
pub struct Empty;

impl<T> TryFrom<Vec<T>> for NonEmpty<T> {
    type Error = Empty;

    fn try_from(list: Vec<T>) -> Result<Self, Empty> {
        if list.is_empty() { Err(Empty) } else { Ok(Self(list)) }
    }
}

impl<T> From<T> for NonEmpty<T> {
    fn from(only: T) -> Self {
        Self(vec![only])
    }
}

impl<T> From<NonEmpty<T>> for Vec<T> {
    fn from(list: NonEmpty<T>) -> Self {
        list.0
    }
}

impl<T> std::ops::Deref for NonEmpty<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

/// A SHA-384 digest that is expected; not all zeros, which is what absent fields of a report hold.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 48]);

/// Text that names no digest or chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} characters that are not {expected}, or all zeros")]
pub struct NotHex {
    expected: &'static str,
    found: usize,
}

impl Digest {
    /// The digest's bytes.
    pub const fn as_bytes(&self) -> &[u8; 48] {
        &self.0
    }
}

impl TryFrom<[u8; 48]> for Digest {
    type Error = NotHex;

    fn try_from(bytes: [u8; 48]) -> Result<Self, NotHex> {
        if bytes == [0; 48] { Err(NotHex { expected: "96 hex digits", found: 96 }) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<String> for Digest {
    type Error = NotHex;

    fn try_from(text: String) -> Result<Self, NotHex> {
        let mut bytes = [0; 48];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| NotHex { expected: "96 hex digits", found: text.len() })?;
        bytes.try_into()
    }
}

impl std::str::FromStr for Digest {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        text.to_owned().try_into()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        hex::encode(digest.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A chip's hardware id: 64 bytes, Turin 8; not all zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChipId(Vec<u8>);

impl ChipId {
    /// The id's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<String> for ChipId {
    type Error = NotHex;

    fn try_from(text: String) -> Result<Self, NotHex> {
        let refused = NotHex { expected: "128 or 16 hex digits", found: text.len() };
        let bytes = hex::decode(&text).map_err(|_| refused)?;
        let has_length = Product::ALL.iter().any(|product| product.hardware_id_len() == bytes.len());
        if has_length && bytes.iter().any(|&byte| byte != 0) { Ok(Self(bytes)) } else { Err(refused) }
    }
}

impl From<ChipId> for String {
    fn from(id: ChipId) -> Self {
        hex::encode(id.0)
    }
}

/// An image that is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its name, for people.
    pub name: String,
    /// Its version, for people.
    pub version: String,
    /// The model that it serves, for people.
    pub model: String,
    /// The digest of its measured manifest. The launch digest covers the manifest, so the two belong together.
    pub manifest_digest: Digest,
    /// Its launch digests, one for each container, vCPU count and CPU type that is accepted.
    pub launch_digests: NonEmpty<Digest>,
}
