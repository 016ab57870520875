//! Content in chunks (draft-ietf-ohai-chunked-ohttp §3 to §6), or whole (RFC 9458 §4).

use super::exchange::{ResponseKeys, ResponseSecret};
use super::suite::{Context, TAG};
use super::{Error, Form, read_varint, write_varint};

/// Plaintext of the largest chunk that is sent, and the largest that is accepted (draft §3).
pub const MAX_CHUNK: usize = 1 << 14;
/// Additional data of the last chunk.
const FINAL: &[u8] = b"final";
/// Longest length in front of a chunk.
const MAX_LENGTH: usize = 8;

/// Which keys protect the content.
pub(super) enum Direction {
    Request(Box<dyn Context>),
    Response(ResponseKeys),
}

impl Direction {
    pub(super) fn seal(&mut self, text: &[u8], aad: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Self::Request(context) => context.apply(text, aad),
            Self::Response(keys) => keys.seal(text, aad),
        }
        .ok_or(Error::Seal)
    }

    fn open(&mut self, text: &[u8], aad: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Self::Request(context) => context.apply(text, aad),
            Self::Response(keys) => keys.open(text, aad),
        }
        .ok_or(Error::Decrypt)
    }
}

/// Encrypts the content of a message.
pub struct Sealer {
    direction: Direction,
    form: Form,
}

impl Sealer {
    pub(super) fn new(direction: Direction, form: Form) -> Self {
        Self { direction, form }
    }

    /// Appends `content` to `out` in as many chunks as it takes, none of them empty. A message that is not chunked has
    /// its content in [`Self::finish`] only.
    pub fn seal(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        if self.form == Form::Whole && !content.is_empty() {
            return Err(Error::Seal);
        }
        for piece in content.chunks(MAX_CHUNK) {
            let sealed = self.direction.seal(piece, b"")?;
            write_varint(sealed.len(), out);
            out.extend_from_slice(&sealed);
        }
        Ok(())
    }

    /// Appends the end of the message, with the rest of its content.
    pub fn finish(mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let (content, aad) = match self.form {
            Form::Whole => (content, &b""[..]),
            Form::Chunked => {
                let (first, last) = content.split_at(content.len() - content.len() % MAX_CHUNK);
                self.seal(first, out)?;
                write_varint(0, out);
                (last, FINAL)
            }
        };
        out.extend_from_slice(&self.direction.seal(content, aad)?);
        Ok(())
    }
}

#[cfg(test)]
impl Sealer {
    /// For messages that no honest sealer makes.
    pub(super) fn into_direction(self) -> Direction {
        self.direction
    }
}

/// How far a message has come.
pub(super) enum Text {
    /// A response's nonce comes first.
    ResponseNonce(ResponseSecret),
    /// Chunks.
    Open(Direction),
}

/// Decrypts the content of a message as it arrives. A message is complete when [`Self::finish`] says so, and not before:
/// whoever acts on its parts must be ready for that to fail (REQUIREMENTS C4).
pub struct Opener {
    text: Text,
    form: Form,
    buffer: Vec<u8>,
    /// The last chunk has begun: it reaches to the end of the message.
    last: bool,
    /// How much more content is accepted.
    left: u64,
}

impl Opener {
    pub(super) fn new(text: Text, form: Form, limit: u64) -> Self {
        Self { text, form, buffer: Vec::new(), last: form == Form::Whole, left: limit }
    }

    /// Takes bytes of the message and appends the content of the chunks that they complete to `content`. What is kept
    /// besides is less than a chunk, or a whole message of the form that has no chunks.
    pub fn push(&mut self, bytes: &[u8], content: &mut Vec<u8>) -> Result<(), Error> {
        self.buffer.extend_from_slice(bytes);
        let mut read = 0;
        let result = self.open_chunks(&mut read, content);
        self.buffer.drain(..read);
        result?;
        let most = match self.form {
            Form::Chunked => MAX_CHUNK + TAG,
            Form::Whole => usize::try_from(self.left).unwrap_or(usize::MAX).saturating_add(TAG),
        };
        if self.last && self.buffer.len() > most { Err(Error::TooLarge) } else { Ok(()) }
    }

    fn open_chunks(&mut self, read: &mut usize, content: &mut Vec<u8>) -> Result<(), Error> {
        if let Text::ResponseNonce(secret) = &self.text {
            let Some(nonce) = self.buffer.get(..secret.nonce_length()) else { return Ok(()) };
            *read = nonce.len();
            self.text = Text::Open(Direction::Response(secret.keys(nonce)?));
        }
        let Text::Open(direction) = &mut self.text else { return Ok(()) };
        while !self.last {
            let rest = self.buffer.get(*read..).unwrap_or_default();
            let Some((length, prefix)) = read_varint(rest) else {
                debug_assert!(rest.len() < MAX_LENGTH);
                return Ok(());
            };
            if length == 0 {
                *read += prefix;
                self.last = true;
                return Ok(());
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > MAX_CHUNK + TAG {
                return Err(Error::TooLarge);
            }
            let Some(sealed) = rest.get(prefix..prefix + length) else { return Ok(()) };
            let opened = direction.open(sealed, b"")?;
            if opened.is_empty() {
                return Err(Error::EmptyChunk);
            }
            self.left = self.left.checked_sub(opened.len() as u64).ok_or(Error::TooLarge)?;
            content.extend_from_slice(&opened);
            *read += prefix + length;
        }
        Ok(())
    }

    /// The message has ended. Appends the last of its content, if this is where it was to end.
    pub fn finish(mut self, content: &mut Vec<u8>) -> Result<(), Error> {
        let Text::Open(direction) = &mut self.text else { return Err(Error::Truncated) };
        if !self.last || self.buffer.len() < TAG {
            return Err(Error::Truncated);
        }
        let aad = if self.form == Form::Chunked { FINAL } else { b"" };
        let opened = direction.open(&self.buffer, aad)?;
        if opened.len() as u64 > self.left {
            return Err(Error::TooLarge);
        }
        content.extend_from_slice(&opened);
        Ok(())
    }
}
