//! Tasks over an attested session.

use crate::session::{Session, SessionError};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::time::Duration;
use tokio::time::timeout;
use wire::task::{ErrorCode, FinishReason, SummarizeRequest, TaskEvent};

/// Longest line of an event stream; one line holds a few tokens.
const LINE_BYTES: usize = 64 * 1024;

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

/// Reads a stream of [`TaskEvent`]s to its end. A stream that ends without one is broken, never complete.
async fn follow(
    mut stream: Incoming,
    patience: Duration,
    mut on_text: impl FnMut(&str),
) -> Result<Done, SessionError> {
    let mut lines = Lines::default();
    loop {
        let frame = timeout(patience, stream.frame()).await.map_err(|_| SessionError::Silent(patience))?;
        let Some(frame) = frame else { return Err(SessionError::Broken) };
        let Ok(data) = frame?.into_data() else { continue };
        for line in lines.push(&data)? {
            let Some(json) = line.strip_prefix("data:") else { continue };
            match serde_json::from_str(json).map_err(|_| SessionError::Malformed)? {
                TaskEvent::Delta { text } => on_text(&text),
                TaskEvent::Done { reason, prompt_tokens, completion_tokens } => {
                    return Ok(Done { reason, prompt_tokens, completion_tokens });
                }
                TaskEvent::Failed { code } => {
                    return Err(SessionError::Refused { code: Some(code), message: explain(code).into() });
                }
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
        self.0.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.0.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.0.drain(..=end).collect();
            let line = String::from_utf8(line).map_err(|_| SessionError::Malformed)?;
            lines.push(line.trim_end().to_owned());
        }
        if self.0.len() > LINE_BYTES { Err(SessionError::Malformed) } else { Ok(lines) }
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
    fn a_line_without_end_is_refused() {
        assert!(Lines::default().push(&[b'x'; LINE_BYTES + 1]).is_err());
    }
}
