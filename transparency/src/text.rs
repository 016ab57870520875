//! The pieces of text that the C2SP formats are made of: decimal numbers, base64, key names.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A decimal number as the specifications write it: ASCII digits, no sign, no leading zero.
pub fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if canonical && digits { text.parse().ok() } else { None }
}

/// Base64 (RFC 4648, section 4) with padding, and no bits left over.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Base64 of exactly `N` bytes.
pub fn array_from_base64<const N: usize>(text: &str) -> Option<[u8; N]> {
    from_base64(text)?.try_into().ok()
}

/// Base64 (RFC 4648, section 4) with padding.
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Whether a text may be a key's name or a log's origin: not empty, at most 255 bytes (which tlog-cosignature can
/// encode), no space, no plus, no control character.
pub fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.chars().any(|c| c.is_whitespace() || c == '+' || c.is_control())
}
