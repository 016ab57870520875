//! The parts that entries are made of.

use super::EntryError;
use crate::merkle::Hash;
use serde::{Deserialize, Serialize};
use std::fmt;
use wire::canonical::{Reader, Writer};

/// Most characters of a [`Name`].
const MAX_NAME: usize = 128;

/// A field is outside its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} is not as it must be")]
pub struct FieldError(pub(super) &'static str);

/// The name of a thing, a role, a file, a container or a CPU type: 1 to 128 ASCII letters, digits, `.`, `_` and `-`, not
/// starting with a dot. So two names that look the same are the same, and none is a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Name {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let good =
            (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('.');
        if good { Ok(Self(text.into())) } else { Err(FieldError("name")) }
    }
}

impl TryFrom<String> for Name {
    type Error = FieldError;

    fn try_from(text: String) -> Result<Self, FieldError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The launch digest of an image on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// The container: `rom` or `igvm`.
    pub container: Name,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// CPU type, by QEMU's name.
    pub cpu_type: Name,
    /// What the AMD-SP reports as MEASUREMENT.
    #[serde(with = "hex::serde")]
    pub digest: [u8; 48],
}

impl Launch {
    /// What the digest is for; entries are in this order.
    pub fn machine(&self) -> (&Name, u32, &Name) {
        (&self.container, self.vcpus, &self.cpu_type)
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.bytes(self.container.as_bytes()).number(self.vcpus.into()).bytes(self.cpu_type.as_bytes());
        w.bytes(&self.digest);
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, EntryError> {
        Ok(Self {
            container: r.text()?.parse()?,
            vcpus: r.number()?,
            cpu_type: r.text()?.parse()?,
            digest: r.array()?,
        })
    }
}

/// A published file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name, without a folder.
    pub name: Name,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-384 of its bytes.
    #[serde(with = "hex::serde")]
    pub sha384: [u8; 48],
}

impl File {
    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, EntryError> {
        Ok(Self { name: r.text()?.parse()?, size: r.number()?, sha384: r.array()? })
    }
}

pub(super) fn write_files(files: &[File], w: &mut Writer) {
    w.number(files.len() as u64);
    for file in files {
        w.bytes(file.name.as_bytes()).number(file.size).bytes(&file.sha384);
    }
}

/// An entry that is not to be trusted any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// Its leaf hash.
    #[serde(with = "hex::serde")]
    pub leaf: Hash,
    /// Why, in a word, such as `withdrawn` or `key-compromise`.
    pub reason: Name,
}

impl Revoked {
    pub(super) fn write(&self, w: &mut Writer) {
        w.bytes(&self.leaf).bytes(self.reason.as_bytes());
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, EntryError> {
        Ok(Self { leaf: r.array()?, reason: r.text()?.parse()? })
    }
}

/// A list with its count before it. The count is no reason to allocate: the list ends with the bytes.
pub(super) fn read_list<T>(
    r: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, EntryError>,
) -> Result<Vec<T>, EntryError> {
    let count: u16 = r.number()?;
    (0..count).map(|_| read(r)).collect()
}

/// Whether a list is strictly ascending by a key, and so has one order and nothing twice.
pub(super) fn ascending<'a, T, K: Ord>(list: &'a [T], key: impl Fn(&'a T) -> K) -> bool {
    list.windows(2).all(|pair| matches!(pair, [a, b] if key(a) < key(b)))
}

/// An optional hash as hex.
pub(super) mod optional_hash {
    use super::Hash;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(hash: &Option<Hash>, serializer: S) -> Result<S::Ok, S::Error> {
        match hash {
            Some(hash) => hex::serde::serialize(hash, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Hash>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| {
            let mut hash = Hash::default();
            hex::decode_to_slice(text, &mut hash).map(|()| hash).map_err(serde::de::Error::custom)
        })
        .transpose()
    }
}
