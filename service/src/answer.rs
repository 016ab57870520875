//! Answers: tokens in, the bytes of the response out.
//!
//! Text waits here until a record may leave, and then leaves in one piece, as far as the record holds it. A slow reader so
//! gets fewer, larger pieces, and what waits for it is never more than the text itself, whose length the manifest limits.
//!
//! When records leave and how many there are does not hang on the text, in whatever form it is asked for (REQUIREMENTS C6): where
//! there is nothing to say, an empty line is said, which neither JSON nor server-sent events make anything of, and the body
//! ends only with a multiple of `answer_records`.

use crate::connection::{RECORD, UNSHAPED};
use crate::http::{END, Reply, chunk, event};
use crate::json;
use crate::utf8::Utf8Stream;
use crate::wipe::WipedBuffer;
use alloc::string::String;
use attestation::manifest::Manifest;
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
    /// Whether all is written but the end of the body.
    said: bool,
    /// Records so far, and of what their number is to be a multiple.
    records: u32,
    multiple: u32,
}

impl Answer {
    pub(crate) fn new(
        shape: Shape,
        id: String,
        manifest: &Manifest,
        prompt_tokens: u32,
        keep_alive: bool,
    ) -> Self {
        Self {
            shape,
            id,
            model: manifest.model.name.clone(),
            keep_alive,
            utf8: Utf8Stream::default(),
            text: WipedBuffer::new(),
            prompt_tokens,
            completion_tokens: 0,
            finish: None,
            started: false,
            said: false,
            records: 0,
            multiple: if UNSHAPED { 1 } else { manifest.limits.answer_records.max(1) },
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

    pub(crate) fn completion_tokens(&self) -> u32 {
        self.completion_tokens
    }

    /// Why the answer ended, if it did, and how many tokens it has.
    pub(crate) fn end(&self) -> (Option<FinishReason>, u32) {
        (self.finish, self.completion_tokens)
    }

    /// Writes what is to leave with the next record, unless enough is waiting; `true` once that is the last one.
    pub(crate) fn write_record(&mut self, out: &mut WipedBuffer) -> bool {
        if out.is_empty() {
            self.write(out);
        }
        self.records = self.records.wrapping_add(u32::from(!out.is_empty()));
        let last = self.said && self.records.is_multiple_of(self.multiple) && out.len() + END.len() <= RECORD;
        if last {
            out.push(END);
        }
        last
    }

    /// Writes what there is to say so far, or nothing in as few bytes as possible.
    fn write(&mut self, out: &mut WipedBuffer) {
        if !self.started {
            self.started = true;
            let whole = self.shape == Shape::ChatWhole;
            let content_type = if whole { "application/json" } else { "text/event-stream" };
            Reply { out, keep_alive: self.keep_alive, head_only: false }.chunks(content_type);
            if self.shape == Shape::ChatStream {
                event(out, |data| self.chunk(data, r#""role":"assistant","content":"""#, None));
            }
        }
        match self.shape {
            _ if self.said => {}
            Shape::Task | Shape::ChatStream => self.write_stream(out),
            Shape::ChatWhole => self.write_whole(out),
        }
        self.said = self.finish.is_some();
        if out.is_empty() && !UNSHAPED {
            chunk(out, b"\n", |_| {}, b"");
        }
    }

    fn write_stream(&mut self, out: &mut WipedBuffer) {
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
    }

    fn write_whole(&mut self, out: &mut WipedBuffer) {
        let Some(reason) = self.finish else { return };
        let write = |body: &mut WipedBuffer| {
            self.object(body, "chat.completion");
            body.push(br#""message":{"role":"assistant","content":"#);
            json::string(body, self.text());
            let (prompt, completion) = (self.prompt_tokens, self.completion_tokens);
            let total = prompt.saturating_add(completion);
            let _ = write!(body, r#"}},"finish_reason":"{}"}}],"#, reason_name(reason));
            let _ = write!(body, r#""usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion},"#);
            let _ = write!(body, r#""total_tokens":{total}}}}}"#);
        };
        chunk(out, b"", write, b"");
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
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use wire::task::TaskEvent;

    const MULTIPLE: u32 = 4;

    fn answer(shape: Shape) -> Answer {
        let (id, model) = ("1f".into(), "a \"model\"".into());
        Answer {
            shape,
            id,
            model,
            keep_alive: true,
            utf8: Utf8Stream::default(),
            text: WipedBuffer::new(),
            prompt_tokens: 7,
            completion_tokens: 0,
            finish: None,
            started: false,
            said: false,
            records: 0,
            multiple: MULTIPLE,
        }
    }

    /// Takes records until the answer ends, each with the tokens of one tick; gives what is in each.
    fn records(mut answer: Answer, ticks: &[&[&[u8]]], reason: FinishReason) -> Vec<Vec<u8>> {
        let (mut waiting, mut records) = (WipedBuffer::new(), Vec::new());
        for tick in 0.. {
            for token in ticks.get(tick).copied().unwrap_or_default() {
                answer.token(token);
            }
            if tick == ticks.len() {
                answer.finish(reason);
            }
            let last = answer.write_record(&mut waiting);
            let length = waiting.len().min(RECORD);
            records.push(waiting.as_slice()[..length].to_vec());
            waiting.consume(length);
            if last {
                assert!(waiting.is_empty());
                break;
            }
        }
        records
    }

    /// The body in chunks that the records hold.
    fn body(records: &[Vec<u8>]) -> Vec<u8> {
        let bytes = records.concat();
        let at = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let (mut rest, mut body) = (&bytes[at..], Vec::new());
        loop {
            let line = rest.windows(2).position(|window| window == b"\r\n").unwrap();
            let length = usize::from_str_radix(core::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
            body.extend_from_slice(&rest[line + 2..line + 2 + length]);
            assert_eq!(&rest[line + 2 + length..][..2], b"\r\n");
            rest = &rest[line + 4 + length..];
            if length == 0 {
                assert!(rest.is_empty());
                return body;
            }
        }
    }

    fn data_lines(bytes: &[u8]) -> Vec<String> {
        let text = core::str::from_utf8(bytes).unwrap();
        text.lines().filter_map(|line| line.strip_prefix("data: ")).map(ToString::to_string).collect()
    }

    #[test]
    fn a_task_streams_the_events_of_wire() {
        let ticks: [&[&[u8]]; 3] = [&[], &[b"Am\xc3"], &[b"\xa9lie \"", b"\n\xf0"]];
        let records = records(answer(Shape::Task), &ticks, FinishReason::Length);
        let events: Vec<TaskEvent> =
            data_lines(&body(&records)).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let delta = |text: &str| TaskEvent::Delta { text: text.into() };
        let done = TaskEvent::Done { reason: FinishReason::Length, prompt_tokens: 7, completion_tokens: 3 };
        assert!(events == [delta("Am"), delta("élie \"\n"), delta("\u{fffd}"), done], "{events:?}");
        assert_eq!(records.len(), 4);
    }

    #[test]
    fn a_chat_streams_openai_chunks() {
        let lines = data_lines(&body(&records(answer(Shape::ChatStream), &[&[b"Hi"]], FinishReason::Stop)));
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
        let body = body(&records(answer(Shape::ChatWhole), &[&[], &[b"Hi"]], FinishReason::Stop));
        let body: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!({"id": "chatcmpl-1f", "object": "chat.completion", "created": 0, "model": "a \"model\"",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}});
        assert_eq!(body, expected);
    }

    proptest! {
        #[test]
        fn c6_records_leave_with_every_tick_and_end_at_a_multiple(
            shape in prop_oneof![Just(Shape::Task), Just(Shape::ChatStream), Just(Shape::ChatWhole)],
            ticks in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..6), 0..12),
        ) {
            let text: Vec<u8> = ticks.concat().concat();
            let tokens: Vec<Vec<&[u8]>> = ticks.iter().map(|tick| tick.iter().map(Vec::as_slice).collect()).collect();
            let given: Vec<&[&[u8]]> = tokens.iter().map(Vec::as_slice).collect();
            let records = records(answer(shape), &given, FinishReason::Stop);
            // Every tick has a record, with or without tokens; their number gives away no more than the multiple.
            prop_assert!(records.iter().all(|record| (1..=RECORD).contains(&record.len())));
            prop_assert!(records.len().is_multiple_of(MULTIPLE as usize));
            // Nothing is lost, and a stock reader makes of it what it makes of an answer without padding.
            let body = body(&records);
            let said: String = match shape {
                Shape::ChatWhole => {
                    let json: Value = serde_json::from_slice(&body).unwrap();
                    json["choices"][0]["message"]["content"].as_str().unwrap().into()
                }
                _ => {
                    let lines = data_lines(&body);
                    let json = lines.iter().filter(|line| *line != "[DONE]");
                    let json = json.map(|line| serde_json::from_str::<Value>(line).unwrap());
                    json.filter_map(|event| {
                        let delta = &event["choices"][0]["delta"]["content"];
                        Some(event["text"].as_str().or(delta.as_str())?.to_string())
                    }).collect()
                }
            };
            prop_assert_eq!(said, String::from_utf8_lossy(&text));
        }
    }
}
