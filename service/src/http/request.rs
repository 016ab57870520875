//! The head of a request.

use super::response::{Refusal, Status};
use wire::task::ErrorCode;

/// Most bytes of a request line and its header fields.
pub(crate) const MAX_HEAD: usize = 8 * 1024;
const MAX_FIELDS: usize = 64;

/// What the service needs of a request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub(crate) method: Method,
    /// The path, as it was sent.
    pub(crate) path: &'a str,
    /// Length of the head itself, in bytes.
    pub(crate) length: usize,
    /// `Content-Length`, if there is one.
    pub(crate) content_length: Option<u64>,
    /// Whether the client keeps the connection open.
    pub(crate) keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
}

/// The methods that make a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Post,
    /// Answered like any other, but without a body.
    Head,
    Other,
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// The head is not complete.
    Incomplete,
    /// The head is complete; the body follows.
    Head(Head<'a>),
    /// The bytes are no request that can be understood in one way only. The connection cannot go on.
    Refused(Refusal),
}

/// Reads the head of a request from the start of `bytes`.
pub(crate) fn parse(bytes: &[u8]) -> Parsed<'_> {
    match read(bytes) {
        Ok(None) => Parsed::Incomplete,
        Ok(Some(head)) => Parsed::Head(head),
        Err(refusal) => Parsed::Refused(refusal),
    }
}

const fn bad(message: &'static str) -> Refusal {
    Refusal::new(Status::BadRequest, ErrorCode::BadRequest, message)
}

const HEAD_TOO_LARGE: Refusal = Refusal::new(
    Status::HeadTooLarge,
    ErrorCode::BadRequest,
    "the request line and header fields are larger than 8 KiB or more than 64; send fewer",
);

fn read(bytes: &[u8]) -> Result<Option<Head<'_>>, Refusal> {
    let window = bytes.get(..MAX_HEAD).unwrap_or(bytes);
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(window) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if window.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(HEAD_TOO_LARGE),
        Err(httparse::Error::Version) => return Err(VERSION),
        Err(_) => return Err(bad("the request is not well-formed HTTP/1.1")),
    };
    // httparse lets a bare LF end a line, as RFC 9112 §2.2 permits.
    let lines = window.get(..length).unwrap_or_default();
    let bare =
        |(at, byte): (usize, &u8)| *byte == b'\n' && at.checked_sub(1).map(|at| lines[at]) != Some(b'\r');
    if lines.iter().enumerate().any(bare) {
        return Err(bad("a line of the request does not end in CR LF"));
    }
    if request.version != Some(1) {
        return Err(VERSION);
    }

    let mut head = Head {
        method: match request.method {
            Some("POST") => Method::Post,
            Some("HEAD") => Method::Head,
            _ => Method::Other,
        },
        path: path(request.path.unwrap_or_default()),
        length,
        content_length: None,
        keep_alive: true,
        expects_continue: false,
    };
    let mut hosts = 0;
    for field in request.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("host") {
            hosts += 1;
        } else if is("content-length") {
            if head.content_length.is_some() {
                return Err(bad("the request has more than one Content-Length"));
            }
            head.content_length = Some(content_length(field.value)?);
        } else if is("transfer-encoding") {
            return Err(Refusal::new(
                Status::NotImplemented,
                ErrorCode::BadRequest,
                "transfer codings are not accepted in requests; send the body with a Content-Length",
            ));
        } else if is("expect") {
            if !field.value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::new(
                    Status::ExpectationFailed,
                    ErrorCode::BadRequest,
                    "the only expectation that can be met is 100-continue",
                ));
            }
            head.expects_continue = true;
        } else if is("connection") {
            head.keep_alive &= !field.value.split(|byte| *byte == b',').any(is_close);
        }
    }
    // RFC 9112 §3.2: exactly one Host.
    if hosts != 1 {
        return Err(bad("the request needs exactly one Host field"));
    }
    Ok(Some(head))
}

const VERSION: Refusal =
    Refusal::new(Status::VersionNotSupported, ErrorCode::BadRequest, "only HTTP/1.1 is spoken here");

fn is_close(option: &[u8]) -> bool {
    option.trim_ascii().eq_ignore_ascii_case(b"close")
}

/// RFC 9110 §8.6: digits and nothing else. Lists such as `5, 5` are refused.
fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    let text = core::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or(bad("the Content-Length is not a number"))
}

/// The path of an origin-form or absolute-form target (RFC 9112 §3.2; a server must accept both).
fn path(target: &str) -> &str {
    match target.strip_prefix("https://") {
        Some(rest) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn refused(request: &str) -> Status {
        match parse(request.as_bytes()) {
            Parsed::Refused(refusal) => refusal.status,
            other => panic!("{request:?} gave {other:?}"),
        }
    }

    fn accepted(request: &str) -> Head<'_> {
        match parse(request.as_bytes()) {
            Parsed::Head(head) => head,
            other => panic!("{request:?} gave {other:?}"),
        }
    }

    #[test]
    fn reads_a_request() {
        let text =
            "POST /v1/evidence HTTP/1.1\r\nHost: x\r\nContent-Length: 32\r\nConnection: keep-alive\r\n\r\n";
        let head = accepted(text);
        let expected = Head {
            method: Method::Post,
            path: "/v1/evidence",
            length: text.len(),
            content_length: Some(32),
            keep_alive: true,
            expects_continue: false,
        };
        assert_eq!(head, expected);
        assert!(!accepted("GET / HTTP/1.1\r\nHost: x\r\nConnection: te, Close\r\n\r\n").keep_alive);
        assert!(accepted("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\n\r\n").expects_continue);
        assert_eq!(accepted("POST https://guest:443/v1/x HTTP/1.1\r\nhOST: x\r\n\r\n").path, "/v1/x");
        assert_eq!(accepted("HEAD / HTTP/1.1\r\nHost:\r\n\r\n").method, Method::Head);
    }

    #[test]
    fn every_prefix_of_a_request_is_incomplete() {
        let text = "POST /v1/evidence HTTP/1.1\r\nHost: guest\r\nContent-Length: 32\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..end]), Parsed::Incomplete, "{end}");
        }
    }

    #[test]
    fn c8_ambiguous_or_malformed_heads_are_refused() {
        let table = [
            (
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                Status::BadRequest,
            ),
            (
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\ncontent-length: 6\r\n\r\n",
                Status::BadRequest,
            ),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", Status::BadRequest),
            (
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
                Status::BadRequest,
            ),
            ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", Status::NotImplemented),
            (
                "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                Status::NotImplemented,
            ),
            ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n", Status::NotImplemented),
            ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nHost: x\r\n folded: 1\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nHost: x\r\nA: 1\r\n folded\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nHost: x\nContent-Length: 5\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\nHost: x\n\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nHost: x\r\nA: 1\rB: 2\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", Status::BadRequest),
            ("POST /  HTTP/1.1\r\nHost: x\r\n\r\n", Status::VersionNotSupported),
            ("POST / x HTTP/1.1\r\nHost: x\r\n\r\n", Status::VersionNotSupported),
            ("PO ST / HTTP/1.1\r\nHost: x\r\n\r\n", Status::VersionNotSupported),
            ("P\u{f6}ST / HTTP/1.1\r\nHost: x\r\n\r\n", Status::BadRequest),
            ("POST / HTTP/1.0\r\nHost: x\r\n\r\n", Status::VersionNotSupported),
            ("POST / HTTP/2.0\r\nHost: x\r\n\r\n", Status::VersionNotSupported),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Status::VersionNotSupported),
            ("POST / HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\n\r\n", Status::ExpectationFailed),
        ];
        for (request, status) in table {
            assert_eq!(refused(request), status, "{request:?}");
        }
    }

    #[test]
    fn a17_heads_are_bounded() {
        let long = format!("POST /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(MAX_HEAD));
        assert_eq!(refused(&long), Status::HeadTooLarge);
        let endless = format!("POST / HTTP/1.1\r\nHost: x\r\nA: {}", "a".repeat(MAX_HEAD));
        assert_eq!(refused(&endless), Status::HeadTooLarge);
        let many: String = (0..=MAX_FIELDS).map(|i| format!("A{i}: 1\r\n")).collect();
        assert_eq!(refused(&format!("POST / HTTP/1.1\r\nHost: x\r\n{many}\r\n")), Status::HeadTooLarge);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let mut started: Vec<u8> = b"POST / HTTP/1.1\r\n".to_vec();
            started.extend(&bytes);
            let _ = parse(&started);
        }
    }
}
