//! Responses: whole ones, streams, and refusals.

use crate::json;
use crate::wipe::WipedBuffer;
use core::fmt::Write;
use wire::task::ErrorCode;

/// Asks the client for the body (RFC 9110 §15.2.1).
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The status codes that the service uses (RFC 9110 §15, RFC 6585 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok = 200,
    BadRequest = 400,
    Forbidden = 403,
    NotFound = 404,
    MethodNotAllowed = 405,
    LengthRequired = 411,
    ContentTooLarge = 413,
    ExpectationFailed = 417,
    Unprocessable = 422,
    HeadTooLarge = 431,
    Internal = 500,
    NotImplemented = 501,
    Unavailable = 503,
    VersionNotSupported = 505,
}

impl Status {
    const fn reason(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::BadRequest => "Bad Request",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::LengthRequired => "Length Required",
            Self::ContentTooLarge => "Content Too Large",
            Self::ExpectationFailed => "Expectation Failed",
            Self::Unprocessable => "Unprocessable Content",
            Self::HeadTooLarge => "Request Header Fields Too Large",
            Self::Internal => "Internal Server Error",
            Self::NotImplemented => "Not Implemented",
            Self::Unavailable => "Service Unavailable",
            Self::VersionNotSupported => "HTTP Version Not Supported",
        }
    }
}

/// A request that is not served, and why. The text is fixed, so it cannot hold anything of the request
/// (REQUIREMENTS E7); the only thing that varies is two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: Status,
    pub(crate) code: ErrorCode,
    message: &'static str,
    /// What there is, and what there may be.
    numbers: Option<(u64, u64)>,
}

impl Refusal {
    pub(crate) const fn new(status: Status, code: ErrorCode, message: &'static str) -> Self {
        Self { status, code, message, numbers: None }
    }

    /// Adds "(`there_is`; the limit is `limit`)" to the message.
    pub(crate) const fn with_numbers(self, there_is: u64, limit: u64) -> Self {
        Self { numbers: Some((there_is, limit)), ..self }
    }
}

/// Writes one response.
pub(crate) struct Reply<'a> {
    pub(crate) out: &'a mut WipedBuffer,
    /// Whether the connection stays open after this response.
    pub(crate) keep_alive: bool,
    /// Whether this answers HEAD, and so has no body.
    pub(crate) head_only: bool,
}

impl Reply<'_> {
    /// A whole response.
    pub(crate) fn whole(mut self, status: Status, content_type: &str, body: &[u8]) {
        self.head(status, content_type, Some(body.len()));
        if !self.head_only {
            self.out.push(body);
        }
    }

    /// The head of a body in chunks, which follow.
    pub(crate) fn chunks(mut self, content_type: &str) {
        self.head(Status::Ok, content_type, None);
    }

    /// The answer to a request that is not served.
    pub(crate) fn refusal(self, refusal: Refusal) {
        let mut body = WipedBuffer::new();
        body.push(br#"{"error":{"code":""#);
        body.push(code(refusal.code).as_bytes());
        body.push(br#"","message":"#);
        let mut message = WipedBuffer::new();
        message.push(refusal.message.as_bytes());
        if let Some((there_is, limit)) = refusal.numbers {
            let _ = write!(message, " ({there_is}; the limit is {limit})");
        }
        json::string(&mut body, core::str::from_utf8(message.as_slice()).unwrap_or_default());
        body.push(b"}}");
        self.whole(refusal.status, "application/json", body.as_slice());
    }

    fn head(&mut self, status: Status, content_type: &str, length: Option<usize>) {
        // Writing into a `WipedBuffer` cannot fail. No Date: the guest has no clock (RFC 9110 §6.6.1).
        let out = &mut *self.out;
        let _ =
            write!(out, "HTTP/1.1 {} {}\r\nContent-Type: {content_type}\r\n", status as u16, status.reason());
        let _ = match length {
            Some(length) => write!(out, "Content-Length: {length}\r\n"),
            None => write!(out, "Transfer-Encoding: chunked\r\n"),
        };
        out.push(b"Cache-Control: no-store\r\n");
        match status {
            Status::MethodNotAllowed => out.push(b"Allow: POST\r\n"),
            Status::Unavailable => out.push(b"Retry-After: 1\r\n"),
            _ => {}
        }
        if !self.keep_alive {
            out.push(b"Connection: close\r\n");
        }
        out.push(b"\r\n");
    }
}

/// One server-sent event as one chunk: `data: ` and what `write` writes, which has no line breaks.
pub(crate) fn event(out: &mut WipedBuffer, write: impl FnOnce(&mut WipedBuffer)) {
    chunk(out, b"data: ", write, b"\n\n");
}

/// One chunk (RFC 9112 §7.1): what `write` writes, between `before` and `after`.
pub(crate) fn chunk(
    out: &mut WipedBuffer,
    before: &[u8],
    write: impl FnOnce(&mut WipedBuffer),
    after: &[u8],
) {
    let mut data = WipedBuffer::new();
    data.push(before);
    write(&mut data);
    data.push(after);
    let _ = write!(out, "{:x}\r\n", data.len());
    out.push(data.as_slice());
    out.push(b"\r\n");
}

/// The end of a body in chunks.
pub(crate) const END: &[u8] = b"0\r\n\r\n";

/// The name that `wire` gives the code.
pub(crate) const fn code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadRequest => "bad_request",
        ErrorCode::NotFound => "not_found",
        ErrorCode::MethodNotAllowed => "method_not_allowed",
        ErrorCode::BodyTooLarge => "body_too_large",
        ErrorCode::PromptTooLong => "prompt_too_long",
        ErrorCode::Busy => "busy",
        ErrorCode::EvidenceRequired => "evidence_required",
        ErrorCode::Internal => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use wire::task::ErrorBody;

    fn written(write: impl FnOnce(Reply<'_>)) -> String {
        let mut out = WipedBuffer::new();
        write(Reply { out: &mut out, keep_alive: true, head_only: false });
        String::from_utf8(out.as_slice().to_vec()).unwrap()
    }

    #[test]
    fn a_refusal_is_the_error_body_of_wire() {
        for code in [
            ErrorCode::BadRequest,
            ErrorCode::NotFound,
            ErrorCode::MethodNotAllowed,
            ErrorCode::BodyTooLarge,
            ErrorCode::PromptTooLong,
            ErrorCode::Busy,
            ErrorCode::EvidenceRequired,
            ErrorCode::Internal,
        ] {
            let refusal = Refusal::new(Status::BadRequest, code, "say \"why\"").with_numbers(7, 5);
            let text = written(|reply| reply.refusal(refusal));
            let (_, body) = text.split_once("\r\n\r\n").unwrap();
            let body: ErrorBody = serde_json::from_str(body).unwrap();
            assert_eq!(body.error.code, code);
            assert_eq!(body.error.message, "say \"why\" (7; the limit is 5)");
        }
    }

    #[test]
    fn whole_and_streamed_heads() {
        let whole = written(|reply| reply.whole(Status::Ok, "application/cbor", b"abc"));
        assert_eq!(
            whole,
            "HTTP/1.1 200 OK\r\nContent-Type: application/cbor\r\nContent-Length: 3\r\nCache-Control: no-store\r\n\r\nabc"
        );
        let stream = written(|reply| reply.chunks("text/event-stream"));
        assert!(stream.contains("Transfer-Encoding: chunked\r\n") && !stream.contains("Content-Length"));
        let mut out = WipedBuffer::new();
        Reply { out: &mut out, keep_alive: false, head_only: true }.whole(Status::NotFound, "a/b", b"abc");
        let head = core::str::from_utf8(out.as_slice()).unwrap();
        assert!(
            head.ends_with("Content-Length: 3\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"),
            "{head}"
        );
    }

    #[test]
    fn events_are_chunks() {
        let mut out = WipedBuffer::new();
        event(&mut out, |data| data.push(b"[DONE]"));
        out.push(END);
        assert_eq!(out.as_slice(), b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    }
}
