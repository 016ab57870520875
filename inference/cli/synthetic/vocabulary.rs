//! A made-up byte-level BPE vocabulary: every byte, then words that grow by merges, then control tokens.
use super::Random;
use std::collections::BTreeSet;

/// Tokens, their types, and the merges that make them.
pub struct Vocabulary {
    pub tokens: Vec<String>,
    /// `llama_token_type`.
    pub types: Vec<i32>,
    pub merges: Vec<String>,
}

const ORDINARY: i32 = 1;
const CONTROL: i32 = 3;
/// About as often as in English text.
const LETTERS: &[u8] =
    b"eeeeeeeeeeeetttttttttaaaaaaaaooooooooiiiiiiinnnnnnnsssssshhhhhhrrrrrrddddlllluuucccmmmwwffggyyppbbvk";
const LONGEST: usize = 14;

/// Makes a vocabulary whose last tokens are the control tokens.
pub fn make(len: usize, control: &[&str], random: &mut Random) -> Vocabulary {
    let mut tokens: Vec<String> = (0..=255).map(|byte| character(byte).to_string()).collect();
    let space = character(b' ').to_string();
    let mut known: BTreeSet<String> = tokens.iter().cloned().collect();
    let mut merges = Vec::new();
    // What can be the left or the right part of a word.
    let mut left: Vec<String> = LETTERS.iter().map(|letter| character(*letter).to_string()).collect();
    left.extend(std::iter::repeat_n(space.clone(), LETTERS.len() / 2));
    let mut right: Vec<String> = left[..LETTERS.len()].to_vec();
    while tokens.len() + control.len() < len {
        let (first, second) = (random.pick(&left), random.pick(&right));
        let word = format!("{first}{second}");
        if word.chars().count() > LONGEST || !known.insert(word.clone()) {
            continue;
        }
        merges.push(format!("{first} {second}"));
        if !word.starts_with(&space) {
            right.push(word.clone());
        }
        left.push(word.clone());
        tokens.push(word);
    }
    let mut types = vec![ORDINARY; tokens.len()];
    for name in control {
        tokens.push((*name).into());
        types.push(CONTROL);
    }
    Vocabulary { tokens, types, merges }
}

/// The character that stands for a byte in byte-level BPE: itself if it prints, or one from U+0100 on.
fn character(byte: u8) -> char {
    let code = match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
        0..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x100 + 33 + u32::from(byte - 0x7f),
        0xad => 0x143,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}
