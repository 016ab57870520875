//! The printable characters that byte-level BPE vocabularies write bytes as.
//!
//! Printable Latin-1 characters stand for their own byte; the other 68 bytes take the characters from U+0100 on, in
//! order (GPT-2, `bytes_to_unicode`).
use alloc::vec::Vec;

/// Whether a byte is written as the character of the same number.
fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The byte that a character stands for.
pub(super) fn from_char(c: char) -> Option<u8> {
    let code = u32::from(c);
    if let Ok(byte) = u8::try_from(code) {
        return is_printable(byte).then_some(byte);
    }
    let index = usize::try_from(code.checked_sub(0x100)?).ok()?;
    (0..=u8::MAX).filter(|byte| !is_printable(*byte)).nth(index)
}

/// The bytes that a string of such characters stands for; `None` if it has any other character.
pub(super) fn from_str(text: &str) -> Option<Vec<u8>> {
    text.chars().map(from_char).collect()
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
