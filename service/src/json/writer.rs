//! Writing JSON strings.

use crate::wipe::WipedBuffer;
use core::fmt::Write;

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn string(out: &mut WipedBuffer, text: &str) {
    out.push(b"\"");
    let mut written = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            0..0x20 => b"",
            _ => continue,
        };
        out.push(&text.as_bytes()[written..at]);
        written = at + 1;
        out.push(escape);
        if escape.is_empty() {
            // Writing into a `WipedBuffer` cannot fail.
            let _ = write!(out, "\\u{byte:04x}");
        }
    }
    out.push(&text.as_bytes()[written..]);
    out.push(b"\"");
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn writes_what_serde_json_writes(text in any::<String>()) {
            let mut out = WipedBuffer::new();
            string(&mut out, &text);
            prop_assert_eq!(out.as_slice(), serde_json::to_vec(&text).unwrap());
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let text: String = (0..0x80u8).map(char::from).collect();
        let mut out = WipedBuffer::new();
        string(&mut out, &text);
        assert_eq!(out.as_slice(), serde_json::to_vec(&text).unwrap());
    }
}
