//! Answers: tokens in, the bytes of the response out.
//!
//! Text waits here until the connection has room for it, and then leaves in one piece. A slow reader so gets fewer,
//! larger pieces, and what waits for it is never more than the text itself, whose length the manifest limits.

use crate::http::{Reply, Status, end_chunks, event};
use crate::json;
use crate::utf8::Utf8Stream;
use crate::wipe::WipedBuffer;
use alloc::string::String;
use core::fmt::Write;
use wire::task::FinishReason;

/// The form of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A stream of [`wire::task::TaskEvent`].
    Task,
    /// A stream of OpenAI's `chat.completion.chunk`.
    ChatStream,
    /// One `chat.completion`.
    ChatWhole,
}

/// One answer on its way to the client.
pub(crate) struct Answer {
    shape: Shape,
    /// OpenAI's completion id.
    id: String,
    /// The model's name.
    model: String,
    keep_alive: bool,
    utf8: Utf8Stream,
    text: WipedBuffer,
    prompt_tokens: u32,
    completion_tokens: u32,
    finish: Option<FinishReason>,
    started: bool,
}

impl Answer {
    pub(crate) fn new(shape: Shape, id: String, model: String, prompt_tokens: u32, keep_alive: bool) -> Self {
        Self {
            shape,
            id,
            model,
            keep_alive,
            utf8: Utf8Stream::default(),
            text: WipedBuffer::new(),
            prompt_tokens,
            completion_tokens: 0,
            finish: None,
            started: false,
        }
    }

    /// Takes the bytes of one generated token.
    pub(crate) fn token(&mut self, bytes: &[u8]) {
        self.completion_tokens = self.completion_tokens.saturating_add(1);
        self.utf8.push(bytes, &mut self.text);
    }

    /// No more tokens will come.
    pub(crate) fn finish(&mut self, reason: FinishReason) {
        self.utf8.finish(&mut self.text);
        self.finish = Some(reason);
    }

    /// Whether the model is still at work on it.
    pub(crate) fn is_generating(&self) -> bool {
        self.finish.is_none()
    }

    pub(crate) fn completion_tokens(&self) -> u32 {
        self.completion_tokens
    }

    /// Writes what there is to say so far; `true` once that was all.
    pub(crate) fn write(&mut self, out: &mut WipedBuffer) -> bool {
        match self.shape {
            Shape::Task | Shape::ChatStream => self.write_stream(out),
            Shape::ChatWhole => self.write_whole(out),
        }
        self.finish.is_some()
    }

    fn write_stream(&mut self, out: &mut WipedBuffer) {
        if !self.started {
            self.started = true;
            Reply { out, keep_alive: self.keep_alive, head_only: false }.events();
            if self.shape == Shape::ChatStream {
                event(out, |data| self.chunk(data, r#""role":"assistant","content":"""#, None));
            }
        }
        if !self.text.is_empty() {
            event(out, |data| match self.shape {
                Shape::Task => {
                    data.push(br#"{"type":"delta","text":"#);
                    json::string(data, self.text());
                    data.push(b"}");
                }
                _ => {
                    self.chunk_start(data);
                    data.push(br#""content":"#);
                    json::string(data, self.text());
                    chunk_end(data, None);
                }
            });
            self.text.clear();
        }
        let Some(reason) = self.finish else { return };
        match self.shape {
            Shape::Task => event(out, |data| {
                let (prompt, completion) = (self.prompt_tokens, self.completion_tokens);
                let reason = reason_name(reason);
                let _ = write!(data, r#"{{"type":"done","reason":"{reason}","prompt_tokens":{prompt},"#);
                let _ = write!(data, r#""completion_tokens":{completion}}}"#);
            }),
            _ => {
                event(out, |data| self.chunk(data, "", Some(reason)));
                event(out, |data| data.push(b"[DONE]"));
            }
        }
        end_chunks(out);
    }

    fn write_whole(&mut self, out: &mut WipedBuffer) {
        let Some(reason) = self.finish else { return };
        let mut body = WipedBuffer::new();
        self.object(&mut body, "chat.completion");
        body.push(br#""message":{"role":"assistant","content":"#);
        json::string(&mut body, self.text());
        let (prompt, completion) = (self.prompt_tokens, self.completion_tokens);
        let total = prompt.saturating_add(completion);
        let _ = write!(body, r#"}},"finish_reason":"{}"}}],"#, reason_name(reason));
        let _ = write!(body, r#""usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion},"#);
        let _ = write!(body, r#""total_tokens":{total}}}}}"#);
        Reply { out, keep_alive: self.keep_alive, head_only: false }.whole(
            Status::Ok,
            "application/json",
            body.as_slice(),
        );
        self.text.clear();
    }

    fn text(&self) -> &str {
        core::str::from_utf8(self.text.as_slice()).unwrap_or_default()
    }

    /// The members that every object of OpenAI's shape begins with, up to what is in its one choice. `created` is the
    /// epoch: the guest has no clock.
    fn object(&self, out: &mut WipedBuffer, kind: &str) {
        let id = &self.id;
        let _ = write!(out, r#"{{"id":"chatcmpl-{id}","object":"{kind}","created":0,"model":"#);
        json::string(out, &self.model);
        out.push(br#","choices":[{"index":0,"#);
    }

    fn chunk_start(&self, out: &mut WipedBuffer) {
        self.object(out, "chat.completion.chunk");
        out.push(br#""delta":{"#);
    }

    fn chunk(&self, out: &mut WipedBuffer, delta: &str, finish: Option<FinishReason>) {
        self.chunk_start(out);
        out.push(delta.as_bytes());
        chunk_end(out, finish);
    }
}

fn chunk_end(out: &mut WipedBuffer, finish: Option<FinishReason>) {
    let _ = match finish {
        Some(reason) => write!(out, r#"}},"finish_reason":"{}"}}]}}"#, reason_name(reason)),
        None => write!(out, r#"}},"finish_reason":null}}]}}"#),
    };
}

/// The name that `wire`, and OpenAI, give the reason.
const fn reason_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use serde_json::{Value, json};
    use wire::task::TaskEvent;

    fn answer(shape: Shape) -> Answer {
        Answer::new(shape, "1f".into(), "a \"model\"".into(), 7, true)
    }

    fn data_lines(bytes: &[u8]) -> Vec<String> {
        let text = core::str::from_utf8(bytes).unwrap();
        text.lines().filter_map(|line| line.strip_prefix("data: ")).map(ToString::to_string).collect()
    }

    #[test]
    fn a_task_streams_the_events_of_wire() {
        let (mut answer, mut out) = (answer(Shape::Task), WipedBuffer::new());
        assert!(!answer.write(&mut out));
        answer.token(b"Am\xc3");
        assert!(!answer.write(&mut out));
        answer.token(b"\xa9lie \"");
        answer.token(b"\n\xf0");
        assert!(!answer.write(&mut out));
        answer.finish(FinishReason::Length);
        assert!(answer.write(&mut out));
        let events: Vec<TaskEvent> =
            data_lines(out.as_slice()).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let delta = |text: &str| TaskEvent::Delta { text: text.into() };
        let done = TaskEvent::Done { reason: FinishReason::Length, prompt_tokens: 7, completion_tokens: 3 };
        assert!(events == [delta("Am"), delta("élie \"\n"), delta("\u{fffd}"), done], "{events:?}");
        assert!(out.as_slice().ends_with(b"\r\n0\r\n\r\n"));
    }

    #[test]
    fn a_chat_streams_openai_chunks() {
        let (mut answer, mut out) = (answer(Shape::ChatStream), WipedBuffer::new());
        answer.token(b"Hi");
        answer.write(&mut out);
        answer.finish(FinishReason::Stop);
        assert!(answer.write(&mut out));
        let lines = data_lines(out.as_slice());
        let (last, chunks) = lines.split_last().unwrap();
        assert_eq!(last, "[DONE]");
        let chunks: Vec<Value> = chunks.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = |delta: Value, finish: Value| {
            json!({"id": "chatcmpl-1f", "object": "chat.completion.chunk", "created": 0, "model": "a \"model\"",
                   "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        };
        let all = [
            expected(json!({"role": "assistant", "content": ""}), Value::Null),
            expected(json!({"content": "Hi"}), Value::Null),
            expected(json!({}), json!("stop")),
        ];
        assert_eq!(chunks, all);
    }

    #[test]
    fn a_chat_answers_in_one_piece() {
        let (mut answer, mut out) = (answer(Shape::ChatWhole), WipedBuffer::new());
        answer.token(b"Hi");
        assert!(!answer.write(&mut out));
        assert!(out.is_empty());
        answer.finish(FinishReason::Stop);
        assert!(answer.write(&mut out));
        let text = core::str::from_utf8(out.as_slice()).unwrap();
        let body: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
        let expected = json!({"id": "chatcmpl-1f", "object": "chat.completion", "created": 0, "model": "a \"model\"",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}});
        assert_eq!(body, expected);
    }
}
