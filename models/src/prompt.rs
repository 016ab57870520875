//! Samples as token sequences, in the prompt format that the guest uses (ChatML).

use std::ops::Range;

use crate::bpe::{TURN_END, TURN_START, Vocabulary};
use crate::dataset::{Sample, Task};

/// A sample as tokens.
pub struct Encoded {
    /// The prompt, the answer and the token that ends the turn.
    pub tokens: Vec<u32>,
    /// The answer and the end of its turn within `tokens`.
    pub answer: Range<usize>,
    /// The token ranges that a slot of the answer covers.
    pub slots: Vec<Range<usize>>,
}

/// The messages as the user's turn renders them, each a text of its own.
pub fn rendered(sample: &Sample) -> Vec<String> {
    let render = |(sender, text): &(String, String)| match sample.task {
        Task::Chat => text.clone(),
        _ => format!("{sender}: {text}\n"),
    };
    sample.messages.iter().map(render).collect()
}

/// The prompt, up to and including the line that opens the assistant's turn. `encode` turns plain text into
/// tokens.
pub fn prompt(instruction: &str, messages: &[String], mut encode: impl FnMut(&str) -> Vec<u32>) -> Vec<u32> {
    let mut tokens = Vec::new();
    let newline = encode("\n");
    if !instruction.is_empty() {
        tokens.push(TURN_START);
        tokens.extend(encode("system\n"));
        tokens.extend(encode(instruction));
        tokens.push(TURN_END);
        tokens.extend(&newline);
    }
    tokens.push(TURN_START);
    tokens.extend(encode("user\n"));
    for message in messages {
        tokens.extend(encode(message));
    }
    tokens.push(TURN_END);
    tokens.extend(&newline);
    tokens.push(TURN_START);
    tokens.extend(encode("assistant\n"));
    tokens
}

/// Encodes a sample.
pub fn encode(sample: &Sample, vocabulary: &Vocabulary) -> Encoded {
    let mut tokens = prompt(sample.task.instruction(), &rendered(sample), |text| vocabulary.encode(text));
    let start = tokens.len();
    tokens.extend(vocabulary.encode(&sample.answer_text()));
    let mut slots: Vec<Range<usize>> = Vec::new();
    let mut token = start;
    let mut reached = 0;
    let mut piece_start = 0;
    for piece in &sample.answer {
        let piece_end = piece_start + piece.text.len();
        while token < tokens.len() && reached + vocabulary.bytes(tokens[token]).len() <= piece_start {
            reached += vocabulary.bytes(tokens[token]).len();
            token += 1;
        }
        if piece.slot.is_some() {
            let first = token;
            let (mut last, mut end) = (token, reached);
            while last < tokens.len() && end < piece_end {
                end += vocabulary.bytes(tokens[last]).len();
                last += 1;
            }
            slots.push(first..last);
        }
        piece_start = piece_end;
    }
    tokens.push(TURN_END);
    let answer = start..tokens.len();
    Encoded { tokens, answer, slots }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Difficulty, Split, Texts};

    #[test]
    fn slots_cover_what_they_hold() {
        let texts = Texts::load().unwrap();
        let mut generator = texts.generator(Split::Train, 1);
        let samples: Vec<Sample> = (0..50).map(|_| generator.sample(Difficulty::FULL)).collect();
        let answers: Vec<String> = samples.iter().map(Sample::answer_text).collect();
        let vocabulary = Vocabulary::train(answers.iter().map(String::as_str), 500);
        for sample in &samples {
            let encoded = encode(sample, &vocabulary);
            let held = sample.answer.iter().filter(|piece| piece.slot.is_some());
            for (slot, piece) in encoded.slots.iter().zip(held) {
                let covered = vocabulary.decode(&encoded.tokens[slot.clone()]);
                assert!(covered.contains(&piece.text), "'{covered}' is not '{}'", piece.text);
            }
        }
    }

    #[test]
    fn a_prompt_is_chat_ml() {
        let vocabulary = Vocabulary::train([""], 259);
        let spell = |tokens: &[u32]| -> String {
            let name = |&token: &u32| match token {
                TURN_START => "[".to_owned(),
                TURN_END => "]".to_owned(),
                _ => vocabulary.decode(&[token]),
            };
            tokens.iter().map(name).collect()
        };
        let encode = |text: &str| vocabulary.encode(text);
        let messages = ["Ana: hi\n".to_owned(), "Ben: <|im_end|>\n".to_owned()];
        let framed = spell(&prompt("Do.", &messages, encode));
        assert_eq!(framed, "[system\nDo.]\n[user\nAna: hi\nBen: <|im_end|>\n]\n[assistant\n");
        assert_eq!(spell(&prompt("", &["hi".to_owned()], encode)), "[user\nhi]\n[assistant\n");
    }
}
