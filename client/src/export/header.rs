//! The date and time that start a message.
//!
//! iOS: `[12.03.24, 18:02:11] Anna: …`, Android: `12/03/2024, 6:02 PM - Anna: …`; order and separators follow the
//! phone's language. Marks of direction may stand before it, and narrow no-break spaces before AM and PM.

use super::is_mark;

/// The line without its date and time; `None` if it does not start with them.
pub(super) fn strip(line: &str) -> Option<&str> {
    let line = line.trim_start_matches(is_mark);
    let (bracketed, rest) = match line.strip_prefix('[') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let rest = time(between(date(rest)?)?)?;
    if bracketed {
        let rest = rest.trim_start().strip_prefix(']')?;
        rest.strip_prefix(' ').or(Some(rest))
    } else {
        let rest = rest.trim_start_matches([' ', '\u{202f}', '\u{a0}']);
        rest.strip_prefix("- ").or_else(|| rest.strip_prefix("– "))
    }
}

/// Up to `most` digits, as a number.
fn number(text: &str, most: usize) -> Option<(u32, usize, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || digits > most {
        return None;
    }
    Some((text[..digits].parse().ok()?, digits, &text[digits..]))
}

/// A date in any order of day, month and year, all with the same separator.
fn date(text: &str) -> Option<&str> {
    let (first, first_digits, rest) = number(text, 4)?;
    let separator = rest.chars().next().filter(|c| matches!(c, '/' | '.' | '-'))?;
    let (second, _, rest) = number(rest[1..].trim_start(), 2)?;
    let (third, third_digits, rest) = number(rest.strip_prefix(separator)?.trim_start(), 4)?;
    let day_and_month =
        |a: u32, b: u32| (1..=31).contains(&a) && (1..=31).contains(&b) && (a <= 12 || b <= 12);
    let plausible = match (first_digits, third_digits) {
        (4, 1 | 2) => day_and_month(second, third),
        (1 | 2, 2 | 4) => day_and_month(first, second),
        _ => false,
    };
    plausible.then_some(rest)
}

/// What stands between date and time: a comma, a space, or a short word such as French "à" or German "um".
fn between(text: &str) -> Option<&str> {
    let text = text.trim_start_matches(['.', ',']);
    let rest = text.trim_start();
    if rest.len() == text.len() {
        return None;
    }
    if rest.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(rest);
    }
    // Some languages put the half of the day first ("오후 6:02").
    let (word, rest) = rest.split_once(' ')?;
    (word.chars().count() <= 5 && word.chars().all(char::is_alphabetic)).then(|| rest.trim_start())
}

/// `H:MM` or `H:MM:SS` (also with dots), and the half of the day where the clock has 12 hours.
fn time(text: &str) -> Option<&str> {
    let (hour, _, rest) = number(text, 2)?;
    let separator = rest.chars().next().filter(|c| matches!(c, ':' | '.'))?;
    let (minute, 2, rest) = number(&rest[1..], 2)? else { return None };
    let (second, rest) = match rest.strip_prefix(separator) {
        Some(rest) => match number(rest, 2)? {
            (second, 2, rest) => (second, rest),
            _ => return None,
        },
        None => (0, rest),
    };
    if hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    Some(half_of_day(rest))
}

/// Skips "AM", "pm", "a.m.", "p. m." and their like.
fn half_of_day(text: &str) -> &str {
    let rest = text.trim_start_matches([' ', '\u{202f}', '\u{a0}']);
    let mut letters = String::new();
    let mut end = 0;
    for (at, c) in rest.char_indices() {
        match c {
            'a' | 'A' | 'p' | 'P' | 'm' | 'M' => letters.push(c.to_ascii_lowercase()),
            '.' | ' ' | '\u{202f}' | '\u{a0}' => {}
            _ => break,
        }
        end = at + c.len_utf8();
        if letters.len() == 2 {
            if rest[end..].starts_with('.') {
                end += 1;
            }
            break;
        }
    }
    if matches!(letters.as_str(), "am" | "pm") { &rest[end..] } else { text }
}
