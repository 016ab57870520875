//! The tree hash of a weights file: one SHA-384 per MiB, and one over those.
//!
//! Leaves depend on nothing but their own MiB and its place, so every CPU can hash some of them; the root is then a
//! few kilobytes of work. Labels keep leaves and root apart, and the length closes the root.

use crate::canonical::Writer;
use sha2::{Digest, Sha384};

/// Bytes of a leaf; only the last one may be shorter, and it is never empty.
pub const LEAF_BYTES: usize = 1 << 20;

/// Digest of a leaf, or of the whole file.
pub type WeightsDigest = [u8; 48];

const LEAF: &str = "cloister weights v1: leaf";
const ROOT: &str = "cloister weights v1: root";

fn labelled(label: &str) -> Sha384 {
    Sha384::new_with_prefix(Writer::new(label).finish())
}

/// The leaf at `index` starting; its bytes follow in any pieces.
fn leaf_hasher(index: u64) -> Sha384 {
    labelled(LEAF).chain_update(index.to_le_bytes())
}

/// The digest of the leaf at `index`, which is the file's bytes from `index * LEAF_BYTES` on.
pub fn leaf(index: u64, bytes: &[u8]) -> WeightsDigest {
    leaf_hasher(index).chain_update(bytes).finalize().into()
}

/// The root over leaves that were hashed elsewhere, given in order.
pub struct RootHasher(Sha384);

impl RootHasher {
    /// No leaves yet.
    pub fn new() -> Self {
        Self(labelled(ROOT))
    }

    /// The next leaf.
    pub fn leaf(&mut self, digest: &WeightsDigest) {
        self.0.update(digest);
    }

    /// The root of a file of `length` bytes.
    pub fn finish(self, length: u64) -> WeightsDigest {
        self.0.chain_update(length.to_le_bytes()).finalize().into()
    }
}

impl Default for RootHasher {
    fn default() -> Self {
        Self::new()
    }
}

/// The same root, fed the file's bytes in order and in any pieces.
pub struct TreeHasher {
    root: RootHasher,
    leaf: Sha384,
    length: u64,
}

impl TreeHasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self { root: RootHasher::new(), leaf: leaf_hasher(0), length: 0 }
    }

    /// The next bytes of the file.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = LEAF_BYTES - (self.length % LEAF_BYTES as u64) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.leaf.update(now);
            self.length += now.len() as u64;
            if now.len() == room {
                self.close_leaf();
            }
            bytes = later;
        }
    }

    /// The root.
    pub fn finish(mut self) -> WeightsDigest {
        if !self.length.is_multiple_of(LEAF_BYTES as u64) {
            self.close_leaf();
        }
        self.root.finish(self.length)
    }

    fn close_leaf(&mut self) {
        let next = leaf_hasher(self.length / LEAF_BYTES as u64);
        let done = core::mem::replace(&mut self.leaf, next);
        self.root.leaf(&done.finalize().into());
    }
}

impl Default for TreeHasher {
    fn default() -> Self {
        Self::new()
    }
}

/// The root of everything that `reader` yields, and how many bytes that was.
#[cfg(any(feature = "std", test))]
pub fn root(mut reader: impl std::io::Read) -> std::io::Result<(WeightsDigest, u64)> {
    let mut hasher = TreeHasher::new();
    let mut buffer = alloc::vec![0; LEAF_BYTES];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => {
                let length = hasher.length;
                return Ok((hasher.finish(), length));
            }
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};

    fn file(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    fn in_parallel(bytes: &[u8]) -> WeightsDigest {
        let leaves: Vec<WeightsDigest> = std::thread::scope(|scope| {
            let threads: Vec<_> = bytes
                .chunks(LEAF_BYTES)
                .enumerate()
                .map(|(index, chunk)| scope.spawn(move || leaf(index as u64, chunk)))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        let mut root = RootHasher::new();
        leaves.iter().for_each(|leaf| root.leaf(leaf));
        root.finish(bytes.len() as u64)
    }

    #[test]
    fn pieces_and_parallel_leaves_give_one_root() {
        for length in [0, 1, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, 2 * LEAF_BYTES, 2 * LEAF_BYTES + 77]
        {
            let bytes = file(length);
            let whole = in_parallel(&bytes);
            assert_eq!(root(&bytes[..]).unwrap(), (whole, length as u64), "{length} bytes at once");
            for piece in [513, 65_536, LEAF_BYTES + 3] {
                let mut hasher = TreeHasher::new();
                bytes.chunks(piece).for_each(|part| hasher.update(part));
                assert_eq!(hasher.finish(), whole, "{length} bytes in pieces of {piece}");
            }
        }
    }

    #[test]
    fn any_changed_cut_or_moved_byte_changes_the_root() {
        let bytes = file(LEAF_BYTES + 4096);
        let good = root(&bytes[..]).unwrap().0;
        for at in [0, 1, LEAF_BYTES - 1, LEAF_BYTES, bytes.len() - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_ne!(root(&bad[..]).unwrap().0, good, "byte {at}");
            assert_ne!(root(&bytes[..at]).unwrap().0, good, "cut at {at}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_ne!(root(&longer[..]).unwrap().0, good);
        let mut swapped = vec![7; 2 * LEAF_BYTES];
        swapped[..LEAF_BYTES].fill(9);
        let forth = root(&swapped[..]).unwrap().0;
        swapped.rotate_left(LEAF_BYTES);
        assert_ne!(root(&swapped[..]).unwrap().0, forth);
    }
}
