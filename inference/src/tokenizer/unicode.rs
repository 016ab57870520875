//! The Unicode classes that pre-tokenisation asks for.
//!
//! `char::is_alphabetic` is not `\p{L}`: it also has marks and letter numbers. White space is the same in both
//! (`White_Space`), so `char::is_whitespace` serves. The tables are generated; `tests/unicode.rs` says from what and
//! fails when they differ from it.
#[path = "unicode_tables.rs"]
mod tables;

/// `\p{L}`: General_Category Lu, Ll, Lt, Lm or Lo.
pub(super) fn is_letter(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphabetic() } else { contains(&tables::LETTERS, c) }
}

/// `\p{N}`: General_Category Nd, Nl or No.
pub(super) fn is_number(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_digit() } else { contains(&tables::NUMBERS, c) }
}

fn contains(ranges: &[(u32, u32)], c: char) -> bool {
    let code = u32::from(c);
    let at = ranges.partition_point(|(_, last)| *last < code);
    ranges.get(at).is_some_and(|(first, _)| *first <= code)
}
