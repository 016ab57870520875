//! Byte-pair merging: the pair with the lowest rank first, of equal ones the leftmost, until none is left.
use super::vocabulary::Vocabulary;
use super::{Error, array, bytes};
use crate::gguf::{self, Value};
use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use zeroize::Zeroizing;

const MERGES: &str = "tokenizer.ggml.merges";
/// In place of a neighbour: there is none.
const NONE: u32 = u32::MAX;

/// The merges of a model.
#[derive(Clone, Debug)]
pub(super) struct Merges {
    /// In the order of the pair, for binary search.
    sorted: Vec<Merge>,
}

#[derive(Clone, Copy, Debug)]
struct Merge {
    left: u32,
    right: u32,
    rank: u32,
    result: u32,
}

/// A merge that is possible: complements of its rank and of its left symbol's place, and the two tokens. The largest
/// one is the one to do next.
type Candidate = [u32; 4];

/// Working memory for pieces up to a certain length. It holds a user's text and is wiped when dropped.
pub(super) struct Scratch {
    /// The token at each place; it stands for all bytes up to the next place in use.
    tokens: Zeroizing<Vec<u32>>,
    previous: Zeroizing<Vec<u32>>,
    next: Zeroizing<Vec<u32>>,
    candidates: Zeroizing<Vec<Candidate>>,
}

impl Scratch {
    pub(super) fn new(longest: usize) -> Self {
        // Each of fewer than `longest` merges takes one pair and can make two new ones possible: with these
        // capacities nothing is ever reallocated, which would leave copies behind.
        Self {
            tokens: Zeroizing::new(Vec::with_capacity(longest)),
            previous: Zeroizing::new(Vec::with_capacity(longest)),
            next: Zeroizing::new(Vec::with_capacity(longest)),
            candidates: Zeroizing::new(Vec::with_capacity(3 * longest)),
        }
    }
}

impl Merges {
    pub(super) fn from_gguf(file: &gguf::File<'_>, vocabulary: &Vocabulary) -> Result<Self, Error> {
        let merges = array(file, MERGES)?;
        let mut sorted = Vec::with_capacity(merges.len());
        for (index, merge) in merges.iter().enumerate() {
            let Value::String(merge) = merge else { return Err(Error::WrongType(MERGES)) };
            let rank = u32::try_from(index).map_err(|_| Error::BadMerge(index))?;
            sorted.push(parse(merge, rank, vocabulary).ok_or(Error::BadMerge(index))?);
        }
        // Of a pair that is listed twice, the first listing counts.
        sorted.sort_unstable_by_key(|merge| (merge.left, merge.right, merge.rank));
        sorted.dedup_by_key(|merge| (merge.left, merge.right));
        Ok(Self { sorted })
    }

    fn find(&self, left: u32, right: u32) -> Option<Merge> {
        let found = self.sorted.binary_search_by_key(&(left, right), |merge| (merge.left, merge.right));
        found.ok().map(|at| self.sorted[at])
    }

    /// Appends the tokens of one piece.
    pub(super) fn encode(
        &self,
        piece: &[u8],
        vocabulary: &Vocabulary,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) {
        let Scratch { tokens, previous, next, candidates } = scratch;
        tokens.clear();
        tokens.extend(piece.iter().filter_map(|byte| vocabulary.single(*byte)));
        let len = tokens.len() as u32;
        previous.clear();
        previous.extend((0..len).map(|at| at.checked_sub(1).unwrap_or(NONE)));
        next.clear();
        next.extend((1..=len).map(|at| if at < len { at } else { NONE }));

        candidates.clear();
        let mut queue = BinaryHeap::from(core::mem::take(&mut **candidates));
        let consider = |queue: &mut BinaryHeap<Candidate>, tokens: &[u32], left: u32, right: u32| {
            if left != NONE && right != NONE {
                let pair = (tokens[left as usize], tokens[right as usize]);
                if let Some(merge) = self.find(pair.0, pair.1) {
                    queue.push([!merge.rank, !left, pair.0, pair.1]);
                }
            }
        };
        for right in 1..len {
            consider(&mut queue, tokens, right - 1, right);
        }
        while let Some([_, left, left_token, right_token]) = queue.pop() {
            let left = !left;
            let right = next[left as usize];
            // The pair may have gone since it was queued: one of the two merged with its other neighbour. A place
            // that was merged away keeps no token, so it cannot look like one that is still there.
            if tokens[left as usize] != left_token || right == NONE || tokens[right as usize] != right_token {
                continue;
            }
            let Some(merge) = self.find(left_token, right_token) else { continue };
            let after = next[right as usize];
            tokens[left as usize] = merge.result;
            tokens[right as usize] = NONE;
            next[left as usize] = after;
            if after != NONE {
                previous[after as usize] = left;
            }
            consider(&mut queue, tokens, previous[left as usize], left);
            consider(&mut queue, tokens, left, after);
        }
        **candidates = queue.into_vec();
        out.extend(tokens.iter().copied().filter(|token| *token != NONE));
    }
}

/// A merge is written as its two tokens with a space between them; the first of them is not empty.
fn parse(merge: &str, rank: u32, vocabulary: &Vocabulary) -> Option<Merge> {
    let (left, right) = merge.split_once(' ')?;
    let (mut left_bytes, right_bytes) = (bytes::from_str(left)?, bytes::from_str(right)?);
    let (left, right) = (vocabulary.find(&left_bytes)?, vocabulary.find(&right_bytes)?);
    left_bytes.extend_from_slice(&right_bytes);
    Some(Merge { left, right, rank, result: vocabulary.find(&left_bytes)? })
}
