//! The hashes and proofs of RFC 6962 trees with SHA-256.
//!
//! Verification follows RFC 9162, sections 2.1.3.2 and 2.1.4.2: iterative, with every number bounded, so that no proof
//! can cost more than its own length.

use sha2::{Digest, Sha256};

/// A hash of the tree.
pub type Hash = [u8; 32];

/// Most hashes that a proof in a tree of less than 2^63 leaves can have (tlog-witness).
pub const MAX_PROOF: usize = 63;

/// Why a proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The index is outside the tree, or the older tree is the larger one.
    #[error("the proof is for a place that the tree does not have")]
    OutOfRange,
    /// Too few or too many hashes for these sizes.
    #[error("the proof has another length than trees of these sizes need")]
    Length,
    /// It leads to another root.
    #[error("the proof leads to another root than the tree has")]
    Root,
}

/// The hash of a leaf (RFC 6962, section 2.1).
pub fn leaf_hash(data: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(data).finalize().into()
}

/// The hash of an inner node (RFC 6962, section 2.1).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of the tree without leaves.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Checks that `leaf` is at `index` in the tree of this size and root (RFC 9162, section 2.1.3.2).
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), TreeError> {
    if index >= size {
        return Err(TreeError::OutOfRange);
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return Err(TreeError::Length);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            if node & 1 == 0 {
                let zeros = node.trailing_zeros().min(63);
                node >>= zeros;
                last >>= zeros;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    match (last, hash == *root) {
        (0, true) => Ok(()),
        (0, false) => Err(TreeError::Root),
        _ => Err(TreeError::Length),
    }
}

/// Checks that the tree of `new` leaves has that of `old` leaves as its beginning (RFC 9162, section 2.1.4.2). The empty
/// tree is the beginning of every tree, by an empty proof.
pub fn verify_consistency(
    (old, old_root): (u64, &Hash),
    (new, new_root): (u64, &Hash),
    proof: &[Hash],
) -> Result<(), TreeError> {
    if old > new {
        return Err(TreeError::OutOfRange);
    }
    if old == 0 || old == new {
        let roots = if old == new { old_root == new_root } else { *old_root == empty_root() };
        return match (proof.is_empty(), roots) {
            (true, true) => Ok(()),
            (true, false) => Err(TreeError::Root),
            (false, _) => Err(TreeError::Length),
        };
    }
    // A complete older tree is itself the first node of the path.
    let mut path = proof.iter();
    let first = if old.is_power_of_two() { old_root } else { path.next().ok_or(TreeError::Length)? };
    let (mut node, mut last) = (old - 1, new - 1);
    let odd = node.trailing_ones();
    node >>= odd;
    last >>= odd;
    let (mut from, mut to) = (*first, *first);
    for sibling in path {
        if last == 0 {
            return Err(TreeError::Length);
        }
        if node & 1 == 1 || node == last {
            from = node_hash(sibling, &from);
            to = node_hash(sibling, &to);
            if node & 1 == 0 {
                let zeros = node.trailing_zeros().min(63);
                node >>= zeros;
                last >>= zeros;
            }
        } else {
            to = node_hash(&to, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    match (last, from == *old_root && to == *new_root) {
        (0, true) => Ok(()),
        (0, false) => Err(TreeError::Root),
        _ => Err(TreeError::Length),
    }
}
