//! Proofs of the tree: transparency-dev/merkle's test vectors, and another implementation.
//!
//! The vectors come with the package `sigstore-merkle`, which is that other implementation; Cargo has it on this machine.

mod common;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use transparency::merkle::{Hash, TreeError, empty_root, leaf_hash, verify_consistency, verify_inclusion};

fn vectors() -> PathBuf {
    common::package("sigstore-merkle").join("test-data/merkle/testdata")
}

fn read<T: for<'de> Deserialize<'de>>(folder: &Path) -> Vec<(PathBuf, T)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(read(&path));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            let vector = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            found.push((path, vector));
        }
    }
    found
}

/// A root as the vectors write it. Some are words in place of hashes where only equality counts; a hash stands in for them.
fn root(text: &Option<String>) -> Hash {
    let bytes = STANDARD.decode(text.as_deref().unwrap_or_default()).unwrap();
    bytes.as_slice().try_into().unwrap_or_else(|_| leaf_hash(&bytes))
}

/// A hash as the vectors write it; `None` for one of another length, which no caller here could even pass.
fn hash(text: &Option<String>) -> Option<Hash> {
    STANDARD.decode(text.as_deref().unwrap_or_default()).unwrap().try_into().ok()
}

fn hashes(texts: &Option<Vec<String>>) -> Option<Vec<Hash>> {
    texts.iter().flatten().map(|text| hash(&Some(text.clone()))).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inclusion {
    leaf_idx: u64,
    tree_size: u64,
    root: Option<String>,
    leaf_hash: Option<String>,
    proof: Option<Vec<String>>,
    want_err: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Consistency {
    size1: u64,
    size2: u64,
    root1: Option<String>,
    root2: Option<String>,
    proof: Option<Vec<String>>,
    want_err: bool,
}

#[test]
fn all_inclusion_vectors_of_transparency_dev_merkle() {
    let vectors = read::<Inclusion>(&vectors().join("inclusion"));
    assert!(vectors.len() >= 97, "{}", vectors.len());
    for (path, v) in &vectors {
        let parsed = (hash(&v.leaf_hash), hashes(&v.proof), hash(&v.root));
        let good = match parsed {
            (Some(leaf), Some(proof), Some(root)) => {
                verify_inclusion(&leaf, v.leaf_idx, v.tree_size, &proof, &root).is_ok()
            }
            _ => false,
        };
        assert_eq!(good, !v.want_err, "{}", path.display());
    }
    assert!(vectors.iter().any(|(_, v)| !v.want_err));
}

#[test]
fn all_consistency_vectors_of_transparency_dev_merkle() {
    let vectors = read::<Consistency>(&vectors().join("consistency"));
    assert!(vectors.len() >= 97, "{}", vectors.len());
    for (path, v) in &vectors {
        let (old, new) = (root(&v.root1), root(&v.root2));
        let good = hashes(&v.proof)
            .is_some_and(|proof| verify_consistency((v.size1, &old), (v.size2, &new), &proof).is_ok());
        assert_eq!(good, !v.want_err, "{}", path.display());
    }
    assert!(vectors.iter().any(|(_, v)| !v.want_err));
}

#[test]
fn places_that_a_tree_does_not_have_are_refused_at_once() {
    let hash = leaf_hash(b"x");
    let long = vec![hash; 64];
    assert_eq!(verify_inclusion(&hash, 1, 1, &[], &hash), Err(TreeError::OutOfRange));
    assert_eq!(verify_inclusion(&hash, u64::MAX, u64::MAX, &long, &hash), Err(TreeError::OutOfRange));
    assert!(verify_inclusion(&hash, u64::MAX - 1, u64::MAX, &long, &hash).is_err());
    assert_eq!(verify_inclusion(&hash, 0, 2, &long, &hash), Err(TreeError::Length));
    assert_eq!(verify_consistency((2, &hash), (1, &hash), &[]), Err(TreeError::OutOfRange));
    assert!(verify_consistency((1, &hash), (u64::MAX, &hash), &long).is_err());
    assert_eq!(verify_consistency((0, &empty_root()), (5, &hash), &[]), Ok(()));
    assert_eq!(verify_consistency((0, &empty_root()), (5, &hash), &[hash]), Err(TreeError::Length));
    assert_eq!(verify_consistency((0, &hash), (5, &hash), &[]), Err(TreeError::Root));
    assert_eq!(verify_consistency((5, &hash), (5, &empty_root()), &[]), Err(TreeError::Root));
}
