//! Signed notes (C2SP signed-note): a text, and signature lines under it.

use crate::key::{SignerKey, UnsignedText, VerifierKey};
use crate::text::{from_base64, is_name, to_base64};

/// Most signature lines of a note; the specification asks for 16 at least.
pub const MAX_SIGNATURES: usize = 64;
/// Most bytes of a note with its signatures.
pub const MAX_NOTE: usize = 256 * 1024;

/// Why bytes are not a signed note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// More than [`MAX_NOTE`] bytes or [`MAX_SIGNATURES`] signatures.
    #[error("the note is larger, or has more signatures, than any log's")]
    TooLarge,
    /// Not UTF-8, or with control characters.
    #[error("the note is not text")]
    NotText,
    /// No text, no blank line, or no signature line.
    #[error("the note has no text and signature lines with an empty line between them")]
    Format,
    /// A signature line is wrong.
    #[error("a signature line of the note is not as it must be")]
    Line,
}

/// A signature line: a claim, until its key has checked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Name of the key.
    pub name: String,
    /// Id of the key.
    pub id: [u8; 4],
    /// What the key's algorithm makes.
    pub bytes: Vec<u8>,
}

impl Signature {
    /// True if it claims to be this key's.
    pub fn claims(&self, key: &VerifierKey) -> bool {
        self.name == key.name() && self.id == key.id()
    }

    /// The line, with its newline.
    pub fn line(&self) -> String {
        format!("— {} {}\n", self.name, to_base64(&[&self.id[..], &self.bytes].concat()))
    }

    /// Reads a line without its newline.
    pub fn parse(line: &str) -> Result<Self, NoteError> {
        let rest = line.strip_prefix("— ").ok_or(NoteError::Line)?;
        let (name, encoded) = rest.split_once(' ').ok_or(NoteError::Line)?;
        let bytes = from_base64(encoded).ok_or(NoteError::Line)?;
        let (id, bytes) = bytes.split_first_chunk::<4>().ok_or(NoteError::Line)?;
        if !is_name(name) || bytes.is_empty() {
            return Err(NoteError::Line);
        }
        Ok(Self { name: name.into(), id: *id, bytes: bytes.into() })
    }
}

/// What signature lines say about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedBy {
    /// No line claims to be by it.
    Missing,
    /// A line claims to be by it and is wrong.
    Wrong,
    /// More than one line claims to be by it.
    Repeated,
    /// It signed; at this time, in seconds since 1970, if the signature states one.
    Signed(Option<u64>),
}

/// What `signatures` say about a key; `verify` checks a signature's bytes, as [`VerifierKey::verify`] does.
pub(crate) fn signed_by(
    signatures: &[Signature],
    key: &VerifierKey,
    verify: impl Fn(&[u8]) -> Option<Option<u64>>,
) -> SignedBy {
    let mut claims = signatures.iter().filter(|signature| signature.claims(key));
    match (claims.next(), claims.next()) {
        (None, _) => SignedBy::Missing,
        (Some(_), Some(_)) => SignedBy::Repeated,
        (Some(only), None) => verify(&only.bytes).map_or(SignedBy::Wrong, SignedBy::Signed),
    }
}

/// A note. Its text means nothing before a trusted key's signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The text with its last newline.
    pub text: String,
    /// The signatures.
    pub signatures: Vec<Signature>,
}

impl Note {
    /// Reads a signed note.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE {
            return Err(NoteError::TooLarge);
        }
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::NotText)?;
        if note.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(NoteError::NotText);
        }
        // Text and signatures are parted by the last empty line.
        let blank = note.rfind("\n\n").ok_or(NoteError::Format)?;
        let (text, signatures) = (&note[..=blank], &note[blank + 2..]);
        let lines = signatures.strip_suffix('\n').ok_or(NoteError::Format)?;
        if lines.split('\n').count() > MAX_SIGNATURES {
            return Err(NoteError::TooLarge);
        }
        let signatures = lines.split('\n').map(Signature::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), signatures })
    }

    /// Signs a text that is no checkpoint, which ends with a newline, with a plain Ed25519 key.
    pub fn sign(text: String, key: &SignerKey) -> Result<Self, UnsignedText> {
        let (public, bytes) = (key.public(), key.sign_message(text.as_bytes())?);
        let signature = Signature { name: public.name().into(), id: public.id(), bytes };
        Ok(Self { text, signatures: vec![signature] })
    }

    /// Whether this key, a plain Ed25519 one, signed the text.
    pub fn signed_by(&self, key: &VerifierKey) -> SignedBy {
        let verify = |bytes: &[u8]| key.verify_message(self.text.as_bytes(), bytes).then_some(None);
        signed_by(&self.signatures, key, verify)
    }

    /// The note's bytes.
    pub fn encode(&self) -> String {
        let mut note = format!("{}\n", self.text);
        note.extend(self.signatures.iter().map(Signature::line));
        note
    }
}
