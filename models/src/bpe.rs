//! Byte-level byte-pair encoding: the trainer and the encoder.
//!
//! The text is cut as GGUF's pre-tokenizer `smollm` cuts it: every digit by itself, the rest by GPT-2's
//! rules (a word with the space before it, a run of punctuation, a run of white space).

use std::collections::{HashMap, HashSet};

/// Marks a document's end; also the first token of the vocabulary.
pub const END_OF_TEXT: u32 = 0;
/// Opens a turn.
pub const TURN_START: u32 = 1;
/// Closes a turn.
pub const TURN_END: u32 = 2;
/// The control tokens' names, in the order of their ids.
pub const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// A vocabulary and its merges. Ids: control tokens, the 256 bytes, one token for each merge.
pub struct Vocabulary {
    merges: Vec<(u32, u32)>,
    ranks: HashMap<(u32, u32), u32>,
    bytes: Vec<Vec<u8>>,
}

const FIRST_BYTE: u32 = CONTROL.len() as u32;
const FIRST_MERGE: u32 = FIRST_BYTE + 256;

impl Vocabulary {
    /// Learns `size` tokens from `texts`: again and again, the most frequent pair becomes a token.
    pub fn train<'a>(texts: impl IntoIterator<Item = &'a str>, size: usize) -> Self {
        let mut counts: HashMap<&str, u64> = HashMap::new();
        for text in texts {
            for piece in pieces(text) {
                *counts.entry(piece).or_default() += 1;
            }
        }
        // Sorted, so that the result does not depend on the map's order.
        let mut words: Vec<(&str, u64)> = counts.into_iter().collect();
        words.sort_unstable();
        let mut words: Vec<(Vec<u32>, u64)> =
            words.into_iter().map(|(word, n)| (word.bytes().map(byte_token).collect(), n)).collect();
        let mut pairs: HashMap<(u32, u32), u64> = HashMap::new();
        for (word, n) in &words {
            adjacent(word).for_each(|pair| *pairs.entry(pair).or_default() += n);
        }
        let mut merges = Vec::new();
        let mut spelled: Vec<Vec<u8>> = Self::from_merges(vec![]).bytes;
        let mut known: HashSet<Vec<u8>> = HashSet::new();
        let mut doubles: HashSet<(u32, u32)> = HashSet::new();
        while spelled.len() < size {
            let candidates = pairs.iter().filter(|(pair, n)| **n > 1 && !doubles.contains(pair));
            let best = candidates.max_by_key(|&(pair, n)| (n, std::cmp::Reverse(pair)));
            let Some((&pair, _)) = best else { break };
            let joined = [&spelled[pair.0 as usize][..], &spelled[pair.1 as usize]].concat();
            // Two merges may spell the same bytes; the second would be a token that nobody can name.
            if !known.insert(joined.clone()) {
                doubles.insert(pair);
                continue;
            }
            let token = spelled.len() as u32;
            spelled.push(joined);
            merges.push(pair);
            for (word, n) in &mut words {
                if adjacent(word).any(|other| other == pair) {
                    adjacent(word).for_each(|pair| *pairs.entry(pair).or_default() -= *n);
                    merge(word, pair, token);
                    adjacent(word).for_each(|pair| *pairs.entry(pair).or_default() += *n);
                }
            }
        }
        Self::from_merges(merges)
    }

    fn from_merges(merges: Vec<(u32, u32)>) -> Self {
        let mut bytes: Vec<Vec<u8>> = vec![Vec::new(); CONTROL.len()];
        bytes.extend((0..=255u8).map(|byte| vec![byte]));
        for &(left, right) in &merges {
            let joined = [bytes[left as usize].as_slice(), &bytes[right as usize]].concat();
            bytes.push(joined);
        }
        let ranks = merges.iter().copied().zip(0..).collect();
        Self { merges, ranks, bytes }
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The pairs that were merged, in order.
    pub fn merges(&self) -> &[(u32, u32)] {
        &self.merges
    }

    /// The bytes that a token stands for; none for a control token.
    pub fn bytes(&self, token: u32) -> &[u8] {
        &self.bytes[token as usize]
    }

    /// The tokens of a text. Never a control token.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut out = Vec::new();
        for piece in pieces(text) {
            let mut word: Vec<u32> = piece.bytes().map(byte_token).collect();
            let rank = |pair: &[u32]| self.ranks.get(&(pair[0], pair[1])).copied();
            while let Some(rank) = word.windows(2).filter_map(rank).min() {
                merge(&mut word, self.merges[rank as usize], FIRST_MERGE + rank);
            }
            out.append(&mut word);
        }
        out
    }

    #[cfg(test)]
    /// The text of some tokens; bytes that are no UTF-8 become replacement characters.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|&token| self.bytes(token)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn byte_token(byte: u8) -> u32 {
    FIRST_BYTE + u32::from(byte)
}

/// The pairs of neighbours in a word.
fn adjacent(word: &[u32]) -> impl Iterator<Item = (u32, u32)> {
    word.windows(2).map(|pair| (pair[0], pair[1]))
}

/// Replaces every occurrence of `pair`, from the left, by `token`.
fn merge(word: &mut Vec<u32>, pair: (u32, u32), token: u32) {
    let mut kept = 0;
    let mut next = 0;
    while next < word.len() {
        if next + 1 < word.len() && (word[next], word[next + 1]) == pair {
            word[kept] = token;
            next += 2;
        } else {
            word[kept] = word[next];
            next += 1;
        }
        kept += 1;
    }
    word.truncate(kept);
}

/// Cuts a text into the pieces within which merges may happen.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        // What lies between digits is cut as if it were a text of its own.
        let end = rest.find(char::is_numeric).unwrap_or(rest.len());
        let length = match end {
            0 => rest.chars().next()?.len_utf8(),
            _ => piece_length(&rest[..end]),
        };
        let (piece, tail) = rest.split_at(length);
        rest = tail;
        Some(piece)
    })
}

/// The length of the first piece of a text without digits.
fn piece_length(text: &str) -> usize {
    const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
    if let Some(contraction) = CONTRACTIONS.iter().find(|c| text.starts_with(**c)) {
        return contraction.len();
    }
    let class = |c: char| match c {
        c if c.is_whitespace() => 0,
        c if c.is_alphabetic() => 1,
        _ => 2,
    };
    let body = text.strip_prefix(' ').unwrap_or(text);
    match body.chars().next().map(class) {
        Some(kind @ (1 | 2)) => {
            let run = body.find(|c| class(c) != kind).unwrap_or(body.len());
            text.len() - body.len() + run
        }
        _ => {
            let run = text.find(|c: char| !c.is_whitespace()).unwrap_or(text.len());
            let last = text[..run].chars().next_back().map_or(0, char::len_utf8);
            // A run of white space leaves its last character to the word that follows.
            if run == text.len() || run == last { run } else { run - last }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_gpt2_with_single_digits() {
        let cut: Vec<&str> = pieces("Ana: we're at 19:30,  ok?\n\nGrüße 🎉🎉").collect();
        let expected = [
            "Ana",
            ":",
            " we",
            "'re",
            " at",
            " ",
            "1",
            "9",
            ":",
            "3",
            "0",
            ",",
            " ",
            " ok",
            "?",
            "\n",
            "\n",
            "Grüße",
            " 🎉🎉",
        ];
        assert_eq!(cut, expected);
    }

    #[test]
    fn encoding_is_reversible_and_uses_merges() {
        let texts = ["the cat sat on the mat", "the dog sat"];
        let vocabulary = Vocabulary::train(texts, FIRST_MERGE as usize + 12);
        for text in ["the cat", "unseen Ørsted 🚲 12", ""] {
            assert_eq!(vocabulary.decode(&vocabulary.encode(text)), text);
        }
        assert!(vocabulary.encode(" the sat").len() < 4);
        assert!(vocabulary.encode("<|im_end|>").iter().all(|&token| token >= FIRST_BYTE));
    }
}
