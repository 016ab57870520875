//! Pre-tokenisation: the division of text into pieces that merging never crosses.
//!
//! Models name their rules by `tokenizer.ggml.pre`. Those here are the GPT-2 expression
//! `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, alone or after each digit has been
//! made a piece of its own; written out by hand, since the guest has no regular-expression engine.
use super::unicode::{is_letter, is_number};

/// The rules by which text is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreTokenizer {
    /// `gpt-2`: the expression alone.
    Gpt2,
    /// `smollm`: every number character is a piece, the rest goes by the expression.
    SmolLm,
}

impl PreTokenizer {
    /// All rules, for messages.
    pub const ALL: [Self; 2] = [Self::Gpt2, Self::SmolLm];

    /// The rules that a model file calls by this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rules| rules.name() == name)
    }

    /// The name in model files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt-2",
            Self::SmolLm => "smollm",
        }
    }

    /// The pieces of a text, in order; together they are the text.
    pub(super) fn pieces(self, text: &str) -> Pieces<'_> {
        Pieces { rules: self, segment: "", rest: text }
    }
}

/// Iterator over pieces.
pub(super) struct Pieces<'a> {
    rules: PreTokenizer,
    /// What the expression is matched within; look-ahead ends with it.
    segment: &'a str,
    /// The text after the segment.
    rest: &'a str,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.segment.is_empty() {
            let len = match self.rules {
                PreTokenizer::Gpt2 => self.rest.len(),
                PreTokenizer::SmolLm => match run(self.rest, |c| !is_number(c)) {
                    0 => self.rest.chars().next()?.len_utf8(),
                    len => len,
                },
            };
            (self.segment, self.rest) = self.rest.split_at(len);
        }
        if self.segment.is_empty() {
            return None;
        }
        let piece;
        (piece, self.segment) = self.segment.split_at(piece_len(self.segment));
        Some(piece)
    }
}

/// The length of the first match of the expression in a text that is not empty; at least one character.
fn piece_len(text: &str) -> usize {
    const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
    if let Some(contraction) = CONTRACTIONS.into_iter().find(|contraction| text.starts_with(contraction)) {
        return contraction.len();
    }
    let space = usize::from(text.starts_with(' '));
    let word = &text[space..];
    for class in [is_letter, is_number, is_mark] {
        let len = run(word, class);
        if len > 0 {
            return space + len;
        }
    }
    // Here the text begins with white space. When something follows the run, `\s+(?!\S)` leaves the last character
    // to it, unless the run has only that one, which `\s+` then takes.
    let len = run(text, char::is_whitespace);
    match text[..len].char_indices().next_back() {
        Some((last, _)) if last > 0 && len < text.len() => last,
        _ => len,
    }
}

/// `[^\s\p{L}\p{N}]`
fn is_mark(c: char) -> bool {
    !c.is_whitespace() && !is_letter(c) && !is_number(c)
}

/// The length of the longest prefix of characters of a class.
fn run(text: &str, class: impl Fn(char) -> bool) -> usize {
    text.find(|c| !class(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::PreTokenizer;
    use alloc::vec::Vec;

    fn pieces(rules: PreTokenizer, text: &str) -> Vec<&str> {
        rules.pieces(text).collect()
    }

    #[test]
    fn divides_as_the_expression_does() {
        let gpt2 = |text| pieces(PreTokenizer::Gpt2, text);
        assert_eq!(gpt2(""), [""; 0]);
        assert_eq!(gpt2("Hello, it's 10:45pm!"), ["Hello", ",", " it", "'s", " 10", ":", "45", "pm", "!"]);
        assert_eq!(gpt2("a  b\n\nc \n"), ["a", " ", " b", "\n", "\n", "c", " \n"]);
        assert_eq!(gpt2(" \u{a0}x\u{3000}"), [" ", "\u{a0}", "x", "\u{3000}"]);
        assert_eq!(gpt2("don'T we'll'"), ["don", "'", "T", " we", "'ll", "'"]);
    }

    #[test]
    fn smollm_takes_digits_one_by_one() {
        let smollm = |text| pieces(PreTokenizer::SmolLm, text);
        assert_eq!(smollm("at 10 ²x"), ["at", " ", "1", "0", " ", "²", "x"]);
        assert_eq!(smollm("  7"), ["  ", "7"]);
    }
}
