//! Chat exports: the text file that WhatsApp's "Export chat" makes, from iOS and from Android.
//!
//! The format is documented nowhere and differs by platform and language, so the reader goes by shape: a message
//! starts with a date and a time (`header.rs`), everything up to the next such line belongs to it, and what the app
//! itself wrote (`placeholder.rs`) is left out. Only what people typed is ever sent.

mod header;
mod placeholder;

use wire::task::Message;

/// The file is not a chat that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// A ZIP archive, as iOS shares exports.
    #[error("this is a ZIP archive; unpack it and give the `_chat.txt` inside")]
    Archive,
    /// Not UTF-8.
    #[error("this is not UTF-8 text; give the text file that WhatsApp's \"Export chat\" made, unchanged")]
    NotText,
    /// No line looks like the start of a message.
    #[error("no line looks like a chat message; give the text file that WhatsApp's \"Export chat\" made")]
    NotAChat,
    /// There are messages, but the app wrote all of them.
    #[error("the chat holds only system lines and media; there is nothing to summarise")]
    Empty,
}

/// Reads the messages that people wrote, oldest first.
pub fn read(bytes: &[u8]) -> Result<Vec<Message>, ExportError> {
    // ZIP's local file header (APPNOTE §4.3.7).
    if bytes.starts_with(b"PK\x03\x04") {
        return Err(ExportError::Archive);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| ExportError::NotText)?;
    let mut entries: Vec<String> = Vec::new();
    for line in text.lines() {
        match header::strip(line) {
            Some(rest) => entries.push(rest.to_owned()),
            None => {
                if let Some(entry) = entries.last_mut() {
                    entry.push('\n');
                    entry.push_str(line);
                }
            }
        }
    }
    if entries.is_empty() {
        return Err(ExportError::NotAChat);
    }
    let messages: Vec<Message> = entries.iter().filter_map(|entry| message(entry)).collect();
    if messages.is_empty() { Err(ExportError::Empty) } else { Ok(messages) }
}

/// An entry without its date, as a message; `None` for what the app wrote.
fn message(entry: &str) -> Option<Message> {
    let (sender, body) = entry.split_once(": ").or_else(|| entry.split_once(":\n"))?;
    let sender = sender.trim_matches(|c: char| c.is_whitespace() || is_mark(c));
    // System lines have no sender, but may quote a group name with a colon in it.
    if sender.is_empty() || sender.contains(['"', '“', '”', '„', '«', '»', '\n']) {
        return None;
    }
    let text = placeholder::strip(body)?;
    Some(Message { sender: sender.to_owned(), text })
}

/// Directional marks that WhatsApp puts around what it wrote itself, and the byte-order mark.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
