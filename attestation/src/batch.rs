//! One report for many waiting clients: a Merkle tree over SHA-512 whose root is the report's `REPORT_DATA`.
//!
//! Leaves, inner nodes and the padding up to a power of two have a label each, so no value of one kind is ever read as
//! another. A leaf's index names its way to the root bit by bit, lowest first.

use crate::canonical::Writer;
use alloc::{vec, vec::Vec};
use sha2::{Digest, Sha512};

/// Longest path, hence at most 2^16 clients in a batch.
pub const MAX_DEPTH: usize = 16;

/// A node of the tree, a leaf's value included.
pub type Node = [u8; 64];

const LEAF: &str = "cloister batch v1: leaf";
const INNER: &str = "cloister batch v1: inner";
const PADDING: &str = "cloister batch v1: padding";

fn hash(label: &str, parts: &[&Node]) -> Node {
    let mut w = Writer::new(label);
    for part in parts {
        w.bytes(*part);
    }
    Sha512::digest(w.finish()).into()
}

/// The tree over a batch's leaves.
pub struct Tree {
    leaves: usize,
    /// Leaves first and root last; there is always a root.
    levels: Vec<Vec<Node>>,
}

impl Tree {
    /// Hashes all of it. Nothing leads to the root over no leaves, and no path is short enough to lead to one over more
    /// than 2^[`MAX_DEPTH`].
    pub fn new(leaves: &[Node]) -> Self {
        let mut level: Vec<Node> = leaves.iter().map(|leaf| hash(LEAF, &[leaf])).collect();
        level.resize(level.len().next_power_of_two(), hash(PADDING, &[]));
        let mut levels = vec![level];
        while let Some(last) = levels.last()
            && last.len() > 1
        {
            let next = last.chunks_exact(2).map(|pair| hash(INNER, &[&pair[0], &pair[1]])).collect();
            levels.push(next);
        }
        Self { leaves: leaves.len(), levels }
    }

    /// The root.
    pub fn root(&self) -> Node {
        self.levels.last().map_or_else(|| hash(PADDING, &[]), |top| top[0])
    }

    /// The siblings on the way from the leaf at `index` to the root, lowest first; `None` if there is no such leaf.
    pub fn path(&self, index: usize) -> Option<Vec<Node>> {
        if index >= self.leaves {
            return None;
        }
        let (_root, below) = self.levels.split_last()?;
        Some(below.iter().enumerate().map(|(height, level)| level[(index >> height) ^ 1]).collect())
    }
}

/// The root over `leaves`, for those who need no path.
pub fn root(leaves: &[Node]) -> Node {
    Tree::new(leaves).root()
}

/// The root that a leaf, its index and its path lead to; `None` if the index does not fit the path's length or the
/// path is longer than [`MAX_DEPTH`].
#[cfg(feature = "read")]
pub fn climb(leaf: &Node, index: u32, path: &[Node]) -> Option<Node> {
    if path.len() > MAX_DEPTH || index >> path.len() != 0 {
        return None;
    }
    let climbed = path.iter().enumerate().fold(hash(LEAF, &[leaf]), |node, (height, sibling)| {
        if index >> height & 1 == 0 { hash(INNER, &[&node, sibling]) } else { hash(INNER, &[sibling, &node]) }
    });
    Some(climbed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(count: usize) -> Vec<Node> {
        (0..count).map(|i| Sha512::digest(i.to_le_bytes()).into()).collect()
    }

    #[test]
    fn every_leaf_reaches_the_root() {
        for count in 1..=33 {
            let leaves = leaves(count);
            let tree = Tree::new(&leaves);
            let root = Some(tree.root());
            for (index, leaf) in leaves.iter().enumerate() {
                let path = tree.path(index).unwrap();
                assert_eq!(climb(leaf, index as u32, &path), root, "leaf {index} of {count}");
            }
            assert_eq!(tree.path(count), None);
        }
    }

    #[test]
    fn b7_nothing_leads_to_the_root_over_no_leaves() {
        assert_eq!(Tree::new(&[]).path(0), None);
        assert_ne!(climb(&[0; 64], 0, &[]), Some(root(&[])));
        assert_ne!(climb(&root(&[]), 0, &[]), Some(root(&[])));
    }

    #[test]
    fn one_leaf_is_not_its_own_root() {
        let leaves = leaves(1);
        assert_ne!(root(&leaves), leaves[0]);
        assert_eq!(climb(&leaves[0], 0, &[]), Some(root(&leaves)));
    }

    #[test]
    fn an_index_beyond_the_path_or_a_path_beyond_the_depth_is_refused() {
        let leaf = leaves(1)[0];
        assert_eq!(climb(&leaf, 1, &[]), None);
        assert_eq!(climb(&leaf, 2, &[leaf]), None);
        assert!(climb(&leaf, 0, &[leaf; MAX_DEPTH]).is_some());
        assert_eq!(climb(&leaf, 0, &[leaf; MAX_DEPTH + 1]), None);
    }

    proptest! {
        #[test]
        fn b7_any_other_leaf_index_or_path_misses_the_root(
            count in 1usize..40, pick in any::<prop::sample::Index>(), byte in 0usize..64, bit in 0u8..8,
        ) {
            let leaves = leaves(count);
            let tree = Tree::new(&leaves);
            let root = Some(tree.root());
            let index = pick.index(count);
            let good = tree.path(index).unwrap();

            let mut leaf = leaves[index];
            leaf[byte] ^= 1 << bit;
            prop_assert_ne!(climb(&leaf, index as u32, &good), root);

            for height in 0..good.len() {
                let mut bad = good.clone();
                bad[height][byte] ^= 1 << bit;
                prop_assert_ne!(climb(&leaves[index], index as u32, &bad), root);
                prop_assert_ne!(climb(&leaves[index], index as u32 ^ 1 << height, &good), root);
            }
            // An inner node is never a leaf.
            if let Some((first, rest)) = good.split_first() {
                let inner = hash(INNER, &[&hash(LEAF, &[&leaves[index]]), first]);
                prop_assert_ne!(climb(&inner, index as u32 >> 1, rest), root);
            }
        }
    }
}
