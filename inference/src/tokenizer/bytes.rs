//! The printable characters that byte-level BPE vocabularies write bytes as.
//!
//! Printable Latin-1 characters stand for their own byte; the other 68 bytes take the characters from U+0100 on, in
//! order (GPT-2, `bytes_to_unicode`).
use alloc::vec::Vec;

/// Whether a byte is written as the character of the same number.
const fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The bytes of the characters from U+0100 on.
const OTHERS: [u8; 68] = {
    let mut others = [0; 68];
    let (mut byte, mut count) = (0, 0);
    while byte < 256 {
        if !is_printable(byte as u8) {
            others[count] = byte as u8;
            count += 1;
        }
        byte += 1;
    }
    others
};

/// The byte that a character stands for.
pub(super) fn from_char(c: char) -> Option<u8> {
    let code = u32::from(c);
    match u8::try_from(code) {
        Ok(byte) => is_printable(byte).then_some(byte),
        Err(_) => OTHERS.get((code - 0x100) as usize).copied(),
    }
}

/// Appends the bytes that a string of such characters stands for; if it has any other character, appends nothing and
/// returns `false`.
pub(super) fn push(text: &str, bytes: &mut Vec<u8>) -> bool {
    let start = bytes.len();
    for c in text.chars() {
        match from_char(c) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(start);
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::from_char;

    #[test]
    fn the_map_is_one_to_one_and_has_the_known_corners() {
        let mut seen = [false; 256];
        for c in '\0'..='\u{fff}' {
            if let Some(byte) = from_char(c) {
                assert!(!core::mem::replace(&mut seen[usize::from(byte)], true));
            }
        }
        assert_eq!(seen, [true; 256]);
        // Ġ and Ċ, which every such vocabulary has, are space and line feed.
        assert_eq!(from_char('Ġ'), Some(b' '));
        assert_eq!(from_char('Ċ'), Some(b'\n'));
        assert_eq!(from_char('\u{143}'), Some(0xad));
    }
}
