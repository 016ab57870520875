//! Binary HTTP (RFC 9292), as it arrives and as it is sent, with bounded memory.
//!
//! The `bhttp` crate is the judge in the tests and not used here: it writes whole messages only, bounds no field section
//! and, when it reads a stream, waits forever for a field section that comes in two pieces (0.8.0, `stream/vec.rs`).

#[cfg(test)]
mod tests;

use crate::ohttp::{read_varint, write_varint};

/// Most bytes in front of the content: control data, fields, informational responses.
pub const MAX_HEAD: usize = 8 * 1024;
/// Most bytes of trailer fields; nothing here has any.
const MAX_TRAILER: usize = 1024;

/// Framing indicators (RFC 9292 §3.3).
const KNOWN_REQUEST: usize = 0;
const KNOWN_RESPONSE: usize = 1;
const INDETERMINATE_REQUEST: usize = 2;
const INDETERMINATE_RESPONSE: usize = 3;

/// Why a message is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It ends before its end.
    #[error("the binary HTTP message ends early")]
    Truncated,
    /// It is not in the format.
    #[error("the binary HTTP message is malformed")]
    Malformed,
    /// Its head or trailer is longer than is accepted.
    #[error("the binary HTTP message has a longer head than is accepted")]
    TooLarge,
}

/// What stands before the content.
#[derive(Clone, PartialEq, Eq)]
pub struct Head {
    /// What is asked, or how it was answered.
    pub control: Control,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Control data (RFC 9292 §3.4, §3.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Of a request.
    Request {
        /// Method.
        method: Vec<u8>,
        /// URI scheme.
        scheme: Vec<u8>,
        /// Authority; empty if it is in a `Host` field.
        authority: Vec<u8>,
        /// Path and query.
        path: Vec<u8>,
    },
    /// Of the final response.
    Response {
        /// Status, 200 to 599.
        status: u16,
    },
}

// Fields carry tokens and session identifiers; neither belongs into a log.
impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Head({} fields)", self.fields.len())
    }
}

impl Head {
    /// The value of a field that occurs exactly once; its name in lower case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.fields.iter().filter(|(known, _)| known == name.as_bytes());
        let (_, value) = values.next()?;
        values.next().is_none().then_some(value)
    }

    /// The status of a response.
    pub fn status(&self) -> Option<u16> {
        match self.control {
            Control::Response { status } => Some(status),
            Control::Request { .. } => None,
        }
    }
}

/// Reads the parts of a message; `None` where its bytes end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let (value, length) = read_varint(self.bytes.get(self.at..)?)?;
        self.at += length;
        Some(value)
    }

    fn bytes(&mut self, limit: usize) -> Result<Option<&'a [u8]>, Error> {
        let Some(length) = self.number() else { return Ok(None) };
        let length = usize::try_from(length).ok().filter(|length| *length <= limit).ok_or(Error::TooLarge)?;
        let value = self.bytes.get(self.at..self.at + length);
        self.at += length;
        Ok(value)
    }
}

macro_rules! or_wait {
    ($option:expr) => {
        match $option {
            Some(value) => value,
            None => return Ok(None),
        }
    };
}

/// Where the decoder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// Content of known length: so much of it is to come.
    Known(u64),
    /// Content in chunks: so much of this one is to come, and the next length after it.
    Chunk(u64),
    /// Content in chunks, and nothing of it has come yet.
    FirstChunk,
    Trailer,
    /// Only zeros may follow (RFC 9292 §3.8).
    Padding,
}

/// Reads a message as it arrives.
pub struct Decoder {
    requests: bool,
    indeterminate: bool,
    state: State,
    buffer: Vec<u8>,
    head: Option<Head>,
}

impl Decoder {
    /// Of a request.
    pub fn request() -> Self {
        Self::new(true)
    }

    /// Of a response.
    pub fn response() -> Self {
        Self::new(false)
    }

    fn new(requests: bool) -> Self {
        Self { requests, indeterminate: false, state: State::Head, buffer: Vec::new(), head: None }
    }

    /// What stands before the content, once it has arrived.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Takes bytes and appends what they hold of the content to `content`.
    pub fn push(&mut self, bytes: &[u8], content: &mut Vec<u8>) -> Result<(), Error> {
        self.buffer.extend_from_slice(bytes);
        let mut read = 0;
        let result = self.read(&mut read, content);
        self.buffer.drain(..read);
        result
    }

    fn read(&mut self, read: &mut usize, content: &mut Vec<u8>) -> Result<(), Error> {
        loop {
            let rest = self.buffer.get(*read..).unwrap_or_default();
            match self.state {
                State::Head => {
                    let Some((head, indeterminate, length)) = parse_head(rest, self.requests)? else {
                        return if rest.len() > MAX_HEAD { Err(Error::TooLarge) } else { Ok(()) };
                    };
                    if length > MAX_HEAD {
                        return Err(Error::TooLarge);
                    }
                    *read += length;
                    (self.head, self.indeterminate) = (Some(head), indeterminate);
                    self.state = State::FirstChunk;
                }
                State::FirstChunk | State::Chunk(0) => {
                    let Some((length, prefix)) = read_varint(rest) else { return Ok(()) };
                    *read += prefix;
                    self.state = match (length, self.indeterminate) {
                        (0, _) => State::Trailer,
                        (length, true) => State::Chunk(length),
                        (length, false) => State::Known(length),
                    };
                }
                State::Known(0) => self.state = State::Trailer,
                State::Known(left) | State::Chunk(left) => {
                    let taken = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if taken == 0 {
                        return Ok(());
                    }
                    content.extend_from_slice(&rest[..taken]);
                    *read += taken;
                    let left = left - taken as u64;
                    self.state = if self.indeterminate { State::Chunk(left) } else { State::Known(left) };
                }
                State::Trailer => {
                    let mut reader = Reader { bytes: rest, at: 0 };
                    match fields(&mut reader, self.indeterminate, MAX_TRAILER)? {
                        Some(_) => {
                            *read += reader.at;
                            self.state = State::Padding;
                        }
                        None if rest.len() > MAX_TRAILER => return Err(Error::TooLarge),
                        None => return Ok(()),
                    }
                }
                State::Padding => {
                    *read = self.buffer.len();
                    return if rest.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(Error::Malformed) };
                }
            }
        }
    }

    /// The message has ended; is that where it was to end? Empty parts at its end may be left out, but content that has
    /// begun must be whole (RFC 9292 §3.8). The head may be known only now.
    pub fn finish(&mut self) -> Result<(), Error> {
        if self.state == State::Head {
            // Only the header section, which is empty, may be missing.
            let length = self.buffer.len() + 1;
            self.buffer.push(0);
            let (head, _, read) = parse_head(&self.buffer, self.requests)?.ok_or(Error::Truncated)?;
            if read != length || !head.fields.is_empty() {
                return Err(Error::Truncated);
            }
            (self.head, self.state) = (Some(head), State::Padding);
            self.buffer.clear();
        }
        let between =
            matches!(self.state, State::FirstChunk | State::Trailer | State::Padding | State::Known(0));
        if between && self.buffer.is_empty() { Ok(()) } else { Err(Error::Truncated) }
    }
}

type ParsedHead = (Head, bool, usize);

fn parse_head(bytes: &[u8], requests: bool) -> Result<Option<ParsedHead>, Error> {
    let mut reader = Reader { bytes, at: 0 };
    let framing = or_wait!(reader.number());
    let indeterminate = match (usize::try_from(framing), requests) {
        (Ok(KNOWN_REQUEST), true) | (Ok(KNOWN_RESPONSE), false) => false,
        (Ok(INDETERMINATE_REQUEST), true) | (Ok(INDETERMINATE_RESPONSE), false) => true,
        _ => return Err(Error::Malformed),
    };
    if requests {
        let mut part = || Ok(reader.bytes(MAX_HEAD)?.map(<[u8]>::to_vec));
        let (method, scheme) = (or_wait!(part()?), or_wait!(part()?));
        let (authority, path) = (or_wait!(part()?), or_wait!(part()?));
        let fields = or_wait!(fields(&mut reader, indeterminate, MAX_HEAD)?);
        if method.is_empty() || path.is_empty() {
            return Err(Error::Malformed);
        }
        let head = Head { control: Control::Request { method, scheme, authority, path }, fields };
        return Ok(Some((head, indeterminate, reader.at)));
    }
    loop {
        let status = or_wait!(reader.number());
        let fields = or_wait!(fields(&mut reader, indeterminate, MAX_HEAD)?);
        match status {
            100..200 => {}
            200..600 => {
                let head = Head { control: Control::Response { status: status as u16 }, fields };
                return Ok(Some((head, indeterminate, reader.at)));
            }
            _ => return Err(Error::Malformed),
        }
    }
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A field section (RFC 9292 §3.6).
fn fields(reader: &mut Reader<'_>, indeterminate: bool, limit: usize) -> Result<Option<Fields>, Error> {
    let mut found = Vec::new();
    if !indeterminate {
        let section = or_wait!(reader.bytes(limit)?);
        let mut section = Reader { bytes: section, at: 0 };
        while section.at < section.bytes.len() {
            let name = section.bytes(limit)?.ok_or(Error::Malformed)?;
            let value = section.bytes(limit)?.ok_or(Error::Malformed)?;
            found.push(field(name, value)?);
        }
        return Ok(Some(found));
    }
    loop {
        let name = or_wait!(reader.bytes(limit)?);
        if name.is_empty() {
            return Ok(Some(found));
        }
        let value = or_wait!(reader.bytes(limit)?);
        found.push(field(name, value)?);
    }
}

fn field(name: &[u8], value: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    // RFC 9292 §3.6: names are in lower case; RFC 9110 §5.6.2 says what a token is made of.
    let token =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(byte);
    let text = |byte: &u8| !matches!(byte, 0 | b'\r' | b'\n');
    if name.is_empty() || !name.iter().all(token) || !value.iter().all(text) {
        return Err(Error::Malformed);
    }
    Ok((name.into(), value.into()))
}

/// The head of a request of indeterminate length; content and end follow.
pub fn request_head(method: &str, authority: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    write_varint(INDETERMINATE_REQUEST, &mut out);
    for part in [method, "https", authority, path] {
        write_bytes(part.as_bytes(), &mut out);
    }
    write_fields(fields, &mut out);
    out.push(0);
    out
}

/// The head of a response of indeterminate length; content and end follow.
pub fn response_head(status: u16, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    write_varint(INDETERMINATE_RESPONSE, &mut out);
    write_varint(status.into(), &mut out);
    write_fields(fields, &mut out);
    out.push(0);
    out
}

/// A piece of the content, which is not empty.
pub fn content(piece: &[u8], out: &mut Vec<u8>) {
    if !piece.is_empty() {
        write_bytes(piece, out);
    }
}

/// The end of content and message: no more content, no trailer fields.
pub const END: [u8; 2] = [0, 0];

/// A whole response.
pub fn response(status: u16, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = response_head(status, fields);
    content(body, &mut out);
    out.extend_from_slice(&END);
    out
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_varint(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn write_fields(fields: &[(&str, &str)], out: &mut Vec<u8>) {
    for (name, value) in fields {
        write_bytes(name.as_bytes(), out);
        write_bytes(value.as_bytes(), out);
    }
}
