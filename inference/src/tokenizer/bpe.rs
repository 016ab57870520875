//! Byte-pair merging: the pair with the lowest rank first, of equal ones the leftmost, until none is left.
use super::table::{Table, hash_pair};
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
    /// By the pair.
    table: Table<Merge>,
}

#[derive(Clone, Copy, Debug)]
struct Merge {
    left: u32,
    right: u32,
    rank: u32,
    result: u32,
}

impl Merge {
    fn is(&self, left: u32, right: u32) -> bool {
        (self.left, self.right) == (left, right)
    }
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
        let mut table = Table::new(merges.len());
        let mut scratch = Vec::new();
        for (index, merge) in merges.iter().enumerate() {
            let Value::String(merge) = merge else { return Err(Error::WrongType(MERGES)) };
            let rank = u32::try_from(index).map_err(|_| Error::BadMerge(index))?;
            let merge = parse(merge, rank, vocabulary, &mut scratch).ok_or(Error::BadMerge(index))?;
            // Of a pair that is listed twice, the first listing counts.
            table
                .insert(hash_pair(merge.left, merge.right), merge, |other| other.is(merge.left, merge.right));
        }
        Ok(Self { table })
    }

    fn find(&self, left: u32, right: u32) -> Option<Merge> {
        self.table.find(hash_pair(left, right), |merge| merge.is(left, right))
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
fn parse(merge: &str, rank: u32, vocabulary: &Vocabulary, bytes: &mut Vec<u8>) -> Option<Merge> {
    let (left, right) = merge.split_once(' ')?;
    bytes.clear();
    if !bytes::push(left, bytes) {
        return None;
    }
    let middle = bytes.len();
    if !bytes::push(right, bytes) {
        return None;
    }
    let (left, right) = (vocabulary.find(&bytes[..middle])?, vocabulary.find(&bytes[middle..])?);
    Some(Merge { left, right, rank, result: vocabulary.find(bytes)? })
}
