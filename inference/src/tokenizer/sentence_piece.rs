//! SentencePiece as Llama 2 and Mistral use it: neighbours that make a token are joined, the one with the highest
//! score first, of equal ones the leftmost; a character that is in no token is spelled out in bytes
//! (`llm_tokenizer_spm` in llama.cpp).
use super::vocabulary::{SPACE, Vocabulary};
use super::{Error, array};
use crate::gguf::{self, Value};
use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use zeroize::Zeroizing;

const SCORES: &str = "tokenizer.ggml.scores";
/// In place of a neighbour: there is none.
const NONE: u32 = u32::MAX;

/// How good each token is, as a number that has the order of the scores.
#[derive(Clone, Debug)]
pub(super) struct Scores(Vec<u32>);

/// A join that is possible: the rank of its token, the complement of its first symbol's place, and its length in bytes.
/// The largest one is the one to do next.
type Candidate = [u32; 3];

impl Scores {
    pub(super) fn from_gguf(file: &gguf::File<'_>, vocabulary: &Vocabulary) -> Result<Self, Error> {
        let scores = array(file, SCORES)?;
        if scores.len() != vocabulary.len() {
            return Err(Error::ScoreCount { tokens: vocabulary.len(), scores: scores.len() });
        }
        let rank = |score: Value<'_>| match score {
            Value::Float(score) => Ok(rank(score as f32)),
            _ => Err(Error::WrongType(SCORES)),
        };
        scores.iter().map(rank).collect::<Result<_, _>>().map(Self)
    }

    /// Appends the tokens of a text, with a space before it or as it is.
    pub(super) fn encode(&self, text: &str, space: bool, vocabulary: &Vocabulary, out: &mut Vec<u32>) {
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() + 1));
        bytes.extend_from_slice(if space { b" " } else { b"" });
        for (index, part) in text.split(SPACE).enumerate() {
            bytes.extend_from_slice(if index == 0 { b"" } else { b" " });
            bytes.extend_from_slice(part.as_bytes());
        }
        let starts = || (0..bytes.len()).filter(|at| bytes[*at] & 0xc0 != 0x80);
        let count = starts().count();
        // Each symbol stands for the bytes from its start; one that was joined to another has no length.
        let mut start = Zeroizing::new(Vec::with_capacity(count));
        start.extend(starts().map(|at| at as u32));
        let mut length = Zeroizing::new(Vec::with_capacity(count));
        length.extend(
            (0..count).map(|at| start.get(at + 1).copied().unwrap_or(bytes.len() as u32) - start[at]),
        );
        let mut previous = Zeroizing::new(Vec::with_capacity(count));
        previous.extend((0..count as u32).map(|at| at.checked_sub(1).unwrap_or(NONE)));
        let mut next = Zeroizing::new(Vec::with_capacity(count));
        next.extend((1..=count as u32).map(|at| if at < count as u32 { at } else { NONE }));

        // Fewer than `count` joins each take one candidate and add at most two: nothing is reallocated.
        let mut queue = BinaryHeap::with_capacity(3 * count);
        let consider = |queue: &mut BinaryHeap<Candidate>, length: &[u32], left: u32, right: u32| {
            if left == NONE || right == NONE {
                return;
            }
            let len = length[left as usize] + length[right as usize];
            let from = start[left as usize] as usize;
            if let Some(token) = vocabulary.find(&bytes[from..from + len as usize]) {
                queue.push([self.0[token as usize], !left, len]);
            }
        };
        for right in 1..count as u32 {
            consider(&mut queue, &length, right - 1, right);
        }
        while let Some([_, left, len]) = queue.pop() {
            let left = !left as usize;
            let right = next[left];
            // The pair may have gone since it was queued.
            if length[left] == 0 || right == NONE || length[left] + length[right as usize] != len {
                continue;
            }
            let after = next[right as usize];
            length[left] = len;
            length[right as usize] = 0;
            next[left] = after;
            if after != NONE {
                previous[after as usize] = left as u32;
            }
            consider(&mut queue, &length, previous[left], left as u32);
            consider(&mut queue, &length, left as u32, after);
        }
        drop(Zeroizing::new(queue.into_vec()));
        for (start, length) in start.iter().zip(length.iter()).filter(|(_, length)| **length > 0) {
            let symbol = &bytes[*start as usize..][..*length as usize];
            match vocabulary.find(symbol) {
                Some(token) => out.push(token),
                None => out.extend(symbol.iter().filter_map(|byte| vocabulary.single(*byte))),
            }
        }
    }
}

/// A number that is larger where the score is; both zeros are the same.
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn ranks_have_the_order_of_the_scores() {
        let scores = [f32::NEG_INFINITY, -1e9, -2.5, -1e-30, 0.0, 1e-30, 3.0, f32::INFINITY];
        assert!(scores.windows(2).all(|pair| rank(pair[0]) < rank(pair[1])));
        assert_eq!(rank(-0.0), rank(0.0));
    }
}
