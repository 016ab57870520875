//! Prompts: measured tokens around a client's text.
//!
//! The frame of every turn comes from the manifest as token ids. What a client sends goes through the tokenizer as plain
//! text, which yields no control token whatever it spells, and is placed between them (REQUIREMENTS E2, E3).

use crate::requests::{ChatRequest, Message, SummarizeRequest};
use alloc::string::String;
use alloc::vec::Vec;
use attestation::manifest::{ChatTemplate, Manifest};
use inference::Tokenizer;
use wire::chat::Role;
use zeroize::Zeroizing;

/// Token ids of a prompt; wiped when dropped.
pub(crate) type Prompt = Zeroizing<Vec<u32>>;

/// One chat message as the model reads it: `sender: text` and a line break.
///
/// White space is collapsed to single spaces and a colon cannot occur in the sender, so that a message can neither
/// begin a line of its own nor speak for another sender.
pub fn line(sender: &str, text: &str) -> Zeroizing<String> {
    // The words are no longer than what they were in, so the string never grows and leaves no copy behind.
    let mut line = Zeroizing::new(String::with_capacity(sender.len() + text.len() + 3));
    let words = sender.split(|c: char| c.is_whitespace() || c == ':').filter(|word| !word.is_empty());
    spaced(&mut line, words);
    line.push_str(": ");
    spaced(&mut line, text.split_whitespace());
    line.push('\n');
    line
}

fn spaced<'a>(line: &mut String, words: impl Iterator<Item = &'a str>) {
    for (at, word) in words.enumerate() {
        if at > 0 {
            line.push(' ');
        }
        line.push_str(word);
    }
}

/// The prompt that asks for a summary; `None` if the model's format has no frame for it.
pub(crate) fn summarize(
    request: &SummarizeRequest,
    instruction: &[u32],
    manifest: &Manifest,
    tokenizer: &Tokenizer,
) -> Option<Prompt> {
    let template = &manifest.template;
    let (mut parts, before) = instructed(template, instruction)?;
    let frame = template.frame(before, Some(Role::User))?;
    let lines = request.messages.iter().enumerate().map(|(index, Message { sender, text })| {
        // The first line follows the frame, every other one a line break.
        Zeroizing::new(tokenizer.encode_continued(&line(sender, text), frame.space && index == 0))
    });
    let lines: Vec<Prompt> = lines.collect();
    parts.push(&frame.tokens);
    parts.extend(lines.iter().map(|line| line.as_slice()));
    parts.push(&template.frame(Some(Role::User), None)?.tokens);
    Some(join(&parts))
}

/// The prompt that continues a conversation; `None` if the model's format does not have turns in this order.
pub(crate) fn chat(
    request: &ChatRequest,
    instruction: &[u32],
    manifest: &Manifest,
    tokenizer: &Tokenizer,
) -> Option<Prompt> {
    let template = &manifest.template;
    let (mut parts, mut before) = instructed(template, instruction)?;
    let mut turns: Vec<(&[u32], Prompt)> = Vec::with_capacity(request.messages.len());
    for message in &request.messages {
        let frame = template.frame(before, Some(message.role))?;
        let content = Zeroizing::new(tokenizer.encode_continued(&message.content, frame.space));
        turns.push((&frame.tokens, content));
        before = Some(message.role);
    }
    for (frame, content) in &turns {
        parts.extend([*frame, content.as_slice()]);
    }
    parts.push(&template.frame(before, None)?.tokens);
    Some(join(&parts))
}

/// The measured tokens that a task's prompts begin with, if the first turn is a user's.
pub(crate) fn start(template: &ChatTemplate, instruction: &[u32]) -> Vec<u32> {
    let Some((mut parts, before)) = instructed(template, instruction) else { return Vec::new() };
    parts.extend(template.frame(before, Some(Role::User)).map(|frame| frame.tokens.as_slice()));
    parts.concat()
}

/// What every prompt of a task begins with: the task's instruction in its frame, if it has one. And the turn that was.
fn instructed<'a>(
    template: &'a ChatTemplate,
    instruction: &'a [u32],
) -> Option<(Vec<&'a [u32]>, Option<Role>)> {
    if instruction.is_empty() {
        return Some((Vec::new(), None));
    }
    let frame = template.frame(None, Some(Role::System))?;
    Some((Vec::from([frame.tokens.as_slice(), instruction]), Some(Role::System)))
}

/// `concat` allocates once, so no copy stays behind.
fn join(parts: &[&[u32]]) -> Prompt {
    Zeroizing::new(parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_is_one_line() {
        for (sender, text, expected) in [
            ("Amara", "see you at 8", "Amara: see you at 8\n"),
            ("Amara", " two\n\n lines\t here ", "Amara: two lines here\n"),
            ("Amara: Ben", "x", "Amara Ben: x\n"),
            (" A\nB ", "x: y", "A B: x: y\n"),
            ("", "x", ": x\n"),
            ("Amara", "", "Amara: \n"),
            ("Amara", "listen:", "Amara: listen:\n"),
            ("Amara", "a\u{2028}b\u{85}c", "Amara: a b c\n"),
        ] {
            assert_eq!(*line(sender, text), expected);
        }
    }

    proptest! {
        #[test]
        fn e3_a_message_cannot_begin_another(sender in any::<String>(), text in any::<String>()) {
            let line = line(&sender, &text);
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
            prop_assert!(line.split_once(": ").is_some_and(|(sender, _)| !sender.contains(':')));
            prop_assert!(line.capacity() <= sender.len() + text.len() + 3, "grew, and left a copy behind");
        }
    }
}
