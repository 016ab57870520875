//! What a builder signs: the entry that its own build leads to, as the text of a signed note (C2SP signed-note).
//!
//! The text is a line that says what it is, and the entry as JSON. There is one text for each entry; another is refused.

use transparency::entry::Entry;
use transparency::key::{SignerKey, UnsignedText};
use transparency::note::Note;

/// First line of the text, so that a builder's signature is good for nothing else. It has spaces, so no log's checkpoint
/// begins with it.
const LABEL: &str = "cloister build statement v1\n";

/// Why a text is not a builder's statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAStatement {
    /// Something else was signed.
    #[error("what was signed is no statement about a build")]
    Label,
    /// The rest is no entry.
    #[error("the statement holds no entry: {0}")]
    Entry(String),
    /// The entry is written in another way than the one there is.
    #[error("the statement is not written in the one way that this program writes it")]
    NotCanonical,
    /// It names the entry before it, which is the log's to say.
    #[error("the statement names the entry before it; that is for the log to say")]
    Previous,
}

/// The text for an entry.
fn text(entry: &Entry) -> Result<String, NotAStatement> {
    entry.encode().map_err(|error| NotAStatement::Entry(error.to_string()))?;
    if entry.previous.is_some() {
        return Err(NotAStatement::Previous);
    }
    let json =
        serde_json::to_string_pretty(entry).map_err(|error| NotAStatement::Entry(error.to_string()))?;
    Ok(format!("{LABEL}{json}\n"))
}

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// The entry.
    #[error(transparent)]
    Entry(#[from] NotAStatement),
    /// The key.
    #[error(transparent)]
    Key(#[from] UnsignedText),
}

/// Signs the entry of one's own build.
pub fn sign(entry: &Entry, key: &SignerKey) -> Result<Note, NotSigned> {
    Ok(Note::sign(text(entry)?, key)?)
}

/// Reads the entry of a note's text. It means nothing before its signatures were checked.
pub fn entry_of(note: &Note) -> Result<Entry, NotAStatement> {
    let json = note.text.strip_prefix(LABEL).ok_or(NotAStatement::Label)?;
    let entry: Entry = serde_json::from_str(json).map_err(|error| NotAStatement::Entry(error.to_string()))?;
    if text(&entry)? == note.text { Ok(entry) } else { Err(NotAStatement::NotCanonical) }
}
