//! Pre-tokenisation: the division of text into pieces that merging never crosses.
//!
//! Models name their rules by `tokenizer.ggml.pre`; llama.cpp's `llm_tokenizer_bpe` lists which names mean which
//! expression. The expressions are written out by hand, since the guest has no regular-expression engine:
//! * of GPT-2: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
//! * of Llama 3: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`.
use super::unicode::{is_letter, is_number};

/// The rules by which text is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreTokenizer {
    /// The expression of GPT-2.
    Gpt2,
    /// Every number character is a piece, the rest goes by the expression of GPT-2.
    SmolLm,
    /// The expression of Llama 3. A piece that is a token is not merged anew.
    LlamaBpe,
    /// The expression of Llama 3, with each number character a piece.
    Qwen2,
}

impl PreTokenizer {
    /// All rules, for messages.
    pub const ALL: [Self; 4] = [Self::Gpt2, Self::SmolLm, Self::LlamaBpe, Self::Qwen2];

    /// The rules that a model file calls by this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rules| rules.names().contains(&name))
    }

    /// The names in model files; the usual one first.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Gpt2 => &["gpt-2"],
            Self::SmolLm => &["smollm", "starcoder", "refact"],
            Self::LlamaBpe => &["llama-bpe", "llama3", "llama-v3"],
            Self::Qwen2 => &["qwen2", "deepseek-r1-qwen"],
        }
    }

    /// The usual name in model files.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.names()[0]
    }

    /// Whether a piece that is a token as a whole is that token, whatever merges would make of it (`ignore_merges`).
    pub(super) fn takes_whole_pieces(self) -> bool {
        self == Self::LlamaBpe
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
                PreTokenizer::Gpt2 | PreTokenizer::LlamaBpe | PreTokenizer::Qwen2 => self.rest.len(),
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
        let len = match self.rules {
            PreTokenizer::Gpt2 | PreTokenizer::SmolLm => gpt2_len(self.segment),
            PreTokenizer::LlamaBpe => llama3_len(self.segment, 3),
            PreTokenizer::Qwen2 => llama3_len(self.segment, 1),
        };
        (piece, self.segment) = self.segment.split_at(len);
        Some(piece)
    }
}

/// The length of the first match of GPT-2's expression in a text that is not empty; at least one character.
fn gpt2_len(text: &str) -> usize {
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
    space_len(text)
}

/// The same for Llama 3's expression, with so many number characters to a piece.
fn llama3_len(text: &str, digits: usize) -> usize {
    if let Some(len) = contraction_len(text) {
        return len;
    }
    let mut chars = text.chars();
    let first = chars.next().unwrap_or_default();
    let before = if is_letter(first) || is_number(first) || is_newline(first) { 0 } else { first.len_utf8() };
    let letters = run(&text[before..], is_letter);
    if letters > 0 {
        return before + letters;
    }
    let numbers = text.chars().take(digits).take_while(|c| is_number(*c)).map(char::len_utf8).sum();
    if numbers > 0 {
        return numbers;
    }
    let space = usize::from(first == ' ');
    let marks = run(&text[space..], is_mark);
    if marks > 0 {
        let end = space + marks;
        return end + run(&text[end..], is_newline);
    }
    let spaces = &text[..run(text, char::is_whitespace)];
    match spaces.rfind(is_newline) {
        Some(last) => last + 1,
        None => space_len(text),
    }
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`; the long s is an s in another case.
fn contraction_len(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('\'')?;
    let mut chars = rest.chars();
    let first = chars.next()?;
    match first.to_ascii_lowercase() {
        's' | 't' | 'm' | 'd' | '\u{17f}' => Some(1 + first.len_utf8()),
        'r' | 'v' if chars.next()?.eq_ignore_ascii_case(&'e') => Some(3),
        'l' if chars.next()?.eq_ignore_ascii_case(&'l') => Some(3),
        _ => None,
    }
}

/// `\s+(?!\S)|\s+` where the text begins with white space: when something follows the run, the first leaves the last
/// character to it, unless the run has only that one, which the second then takes.
fn space_len(text: &str) -> usize {
    let len = run(text, char::is_whitespace);
    match text[..len].char_indices().next_back() {
        Some((last, _)) if last > 0 && len < text.len() => last,
        _ => len,
    }
}

fn is_newline(c: char) -> bool {
    c == '\n' || c == '\r'
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
    fn llama_and_qwen_divide_as_their_expressions_do() {
        let llama = |text| pieces(PreTokenizer::LlamaBpe, text);
        assert_eq!(llama("don'T we'LL 12345x"), ["don", "'T", " we", "'LL", " ", "123", "45", "x"]);
        assert_eq!(llama("a\n \n\n  b\r\n"), ["a", "\n \n\n", " ", " b", "\r\n"]);
        assert_eq!(llama("(x) !!\n\n(\ty"), ["(x", ")", " !!\n\n", "(", "\ty"]);
        assert_eq!(llama("'ſ 'r"), ["'ſ", " '", "r"]);
        assert_eq!(pieces(PreTokenizer::Qwen2, "at 10²"), ["at", " ", "1", "0", "²"]);
    }

    #[test]
    fn smollm_takes_digits_one_by_one() {
        let smollm = |text| pieces(PreTokenizer::SmolLm, text);
        assert_eq!(smollm("at 10 ²x"), ["at", " ", "1", "0", " ", "²", "x"]);
        assert_eq!(smollm("  7"), ["  ", "7"]);
    }
}
