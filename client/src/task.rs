//! Tasks over an attested session.

use crate::session::{Session, SessionError};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::timeout;
use wire::task::{ErrorCode, FinishReason, SummarizeRequest, TaskEvent};

/// Longest line of an event stream; one line holds a few tokens.
const LINE_BYTES: usize = 64 * 1024;
/// Longest stream: far more than any context holds, and little enough to keep in memory.
const STREAM_BYTES: usize = 16 * 1024 * 1024;

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Why it ended.
    pub reason: FinishReason,
    /// Length of the prompt in tokens.
    pub prompt_tokens: u32,
    /// Length of the answer in tokens.
    pub completion_tokens: u32,
}

/// Asks for a summary and hands its text to `on_text` as it comes.
pub async fn summarize(
    session: &mut Session,
    request: &SummarizeRequest,
    on_text: impl FnMut(&str),
) -> Result<Done, SessionError> {
    let body = serde_json::to_vec(request).map_err(|_| SessionError::Malformed)?;
    let stream = session.post(wire::path::SUMMARIZE, body).await?;
    follow(stream, session.patience(), on_text).await
}

/// Reads a stream of [`TaskEvent`]s to its last one. A stream that ends without that is broken, never complete, and one
/// that completes no event for as long as `patience` is silent, however many bytes drip in.
async fn follow(
    stream: Incoming,
    patience: Duration,
    mut on_text: impl FnMut(&str),
) -> Result<Done, SessionError> {
    let mut events = Events { stream, received: 0, lines: Lines::default(), ready: VecDeque::new() };
    loop {
        match timeout(patience, events.next()).await.map_err(|_| SessionError::Silent(patience))?? {
            TaskEvent::Delta { text } => on_text(&text),
            TaskEvent::Done { reason, prompt_tokens, completion_tokens } => {
                // The answer is complete; what follows is padding. Whoever left before its end would show how long it is.
                let _ = timeout(patience, events.rest()).await;
                return Ok(Done { reason, prompt_tokens, completion_tokens });
            }
            TaskEvent::Failed { code } => {
                return Err(SessionError::Refused { code: Some(code), message: explain(code).into() });
            }
        }
    }
}

/// The events of a stream, with bounded memory.
struct Events {
    stream: Incoming,
    received: usize,
    lines: Lines,
    ready: VecDeque<String>,
}

impl Events {
    async fn next(&mut self) -> Result<TaskEvent, SessionError> {
        loop {
            while let Some(line) = self.ready.pop_front() {
                if let Some(json) = line.strip_prefix("data:") {
                    return serde_json::from_str(json).map_err(|_| SessionError::Malformed);
                }
            }
            let frame = self.stream.frame().await.ok_or(SessionError::Broken)??;
            let Ok(data) = frame.into_data() else { continue };
            self.received = self.received.saturating_add(data.len());
            if self.received > STREAM_BYTES {
                return Err(SessionError::Malformed);
            }
            self.ready.extend(self.lines.push(&data)?);
        }
    }

    /// Reads to the end of the stream, before which nothing but line ends may be left.
    async fn rest(mut self) {
        while let Some(Ok(frame)) = self.stream.frame().await {
            if frame.data_ref().is_some_and(|data| !data.trim_ascii().is_empty()) {
                return;
            }
        }
    }
}

/// What a failure in mid-answer means, for a person.
fn explain(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::PromptTooLong => "the messages do not fit the model's context; send fewer of them",
        ErrorCode::Busy => "all sessions are taken; try again later",
        _ => "the guest could not finish the answer; try again",
    }
}

/// Splits a byte stream into lines, with bounded memory.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    /// Takes bytes and gives the lines that they complete.
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, SessionError> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.0.extend_from_slice(piece);
            if self.0.len() > LINE_BYTES {
                return Err(SessionError::Malformed);
            }
            if piece.ends_with(b"\n") {
                let line = std::str::from_utf8(&self.0).map_err(|_| SessionError::Malformed)?;
                lines.push(line.trim_end().to_owned());
                self.0.clear();
            }
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_wherever_the_stream_is_cut() {
        let stream = "data: ä\n\ndata: b\r\nrest";
        for cut in 0..stream.len() {
            let mut lines = Lines::default();
            let mut found = lines.push(&stream.as_bytes()[..cut]).unwrap();
            found.extend(lines.push(&stream.as_bytes()[cut..]).unwrap());
            assert_eq!(found, ["data: ä", "", "data: b"]);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_with_or_without_its_end() {
        let mut long = vec![b'x'; LINE_BYTES];
        assert!(Lines::default().push(&long).is_ok());
        long.push(b'\n');
        assert!(Lines::default().push(&long).is_err());
        assert!(Lines::default().push(&[b'x'; LINE_BYTES + 1]).is_err());
    }
}
