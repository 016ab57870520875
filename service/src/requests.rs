//! The bodies of requests: `wire`'s types, read into memory that is wiped.

use crate::json::{NotJson, Reader};
use alloc::string::String;
use alloc::vec::Vec;
use wire::chat::Role;
use zeroize::Zeroizing;

/// [`wire::task::Message`].
pub(crate) struct Message {
    pub(crate) sender: Zeroizing<String>,
    pub(crate) text: Zeroizing<String>,
}

/// [`wire::task::SummarizeRequest`].
pub(crate) struct SummarizeRequest {
    pub(crate) messages: Vec<Message>,
    pub(crate) max_tokens: Option<u32>,
}

/// [`wire::chat::ChatMessage`].
pub(crate) struct ChatMessage {
    pub(crate) role: Role,
    pub(crate) content: Zeroizing<String>,
}

/// [`wire::chat::ChatRequest`], without the name of the model, which makes no difference.
pub(crate) struct ChatRequest {
    pub(crate) messages: Vec<ChatMessage>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<u32>,
    pub(crate) min_p: Option<f32>,
    pub(crate) repetition_penalty: Option<f32>,
    pub(crate) seed: Option<u64>,
    pub(crate) stream: bool,
}

/// Puts a member's value in its place; a second value for the same place is an error.
fn set<T>(place: &mut Option<T>, value: T) -> Result<(), NotJson> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(NotJson),
    }
}

fn list<T>(
    reader: &mut Reader<'_>,
    element: impl Fn(&mut Reader<'_>) -> Result<T, NotJson>,
) -> Result<Vec<T>, NotJson> {
    let mut all = Vec::new();
    reader.array(|reader| {
        all.push(element(reader)?);
        Ok(())
    })?;
    Ok(all)
}

fn message(reader: &mut Reader<'_>) -> Result<Message, NotJson> {
    let (mut sender, mut text) = (None, None);
    reader.object(|key, reader| match key {
        "sender" => set(&mut sender, reader.string()?),
        "text" => set(&mut text, reader.string()?),
        _ => Err(NotJson),
    })?;
    Ok(Message { sender: sender.ok_or(NotJson)?, text: text.ok_or(NotJson)? })
}

impl SummarizeRequest {
    /// Reads the body of `POST /v1/tasks/summarize`; unknown members are refused.
    pub(crate) fn read(body: &[u8]) -> Result<Self, NotJson> {
        let (mut messages, mut max_tokens) = (None, None);
        let mut reader = Reader::new(body);
        reader.object(|key, reader| match key {
            "messages" => set(&mut messages, list(reader, message)?),
            "max_tokens" => set(&mut max_tokens, reader.optional(Reader::unsigned)?),
            _ => Err(NotJson),
        })?;
        reader.finish()?;
        Ok(Self { messages: messages.ok_or(NotJson)?, max_tokens: max_tokens.flatten() })
    }
}

fn role(reader: &mut Reader<'_>) -> Result<Role, NotJson> {
    match reader.string()?.as_str() {
        "system" => Ok(Role::System),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        _ => Err(NotJson),
    }
}

fn chat_message(reader: &mut Reader<'_>) -> Result<ChatMessage, NotJson> {
    let (mut who, mut content) = (None, None);
    reader.object(|key, reader| match key {
        "role" => set(&mut who, role(reader)?),
        "content" => set(&mut content, reader.string()?),
        _ => reader.skip(),
    })?;
    Ok(ChatMessage { role: who.ok_or(NotJson)?, content: content.ok_or(NotJson)? })
}

impl ChatRequest {
    /// Reads the body of `POST /v1/chat/completions`; unknown members are ignored, as OpenAI-compatible servers do.
    pub(crate) fn read(body: &[u8]) -> Result<Self, NotJson> {
        let (mut model, mut messages, mut max_tokens, mut temperature) = (None, None, None, None);
        let (mut top_p, mut top_k, mut min_p, mut repetition_penalty) = (None, None, None, None);
        let (mut seed, mut stream) = (None, None);
        let mut reader = Reader::new(body);
        reader.object(|key, reader| match key {
            "model" => set(&mut model, reader.string()?),
            "messages" => set(&mut messages, list(reader, chat_message)?),
            "max_tokens" | "max_completion_tokens" => {
                set(&mut max_tokens, reader.optional(Reader::unsigned)?)
            }
            "temperature" => set(&mut temperature, reader.optional(Reader::float)?),
            "top_p" => set(&mut top_p, reader.optional(Reader::float)?),
            "top_k" => set(&mut top_k, reader.optional(Reader::unsigned)?),
            "min_p" => set(&mut min_p, reader.optional(Reader::float)?),
            "repetition_penalty" | "repeat_penalty" => {
                set(&mut repetition_penalty, reader.optional(Reader::float)?)
            }
            "seed" => set(&mut seed, reader.optional(Reader::unsigned)?),
            "stream" => set(&mut stream, reader.boolean()?),
            _ => reader.skip(),
        })?;
        reader.finish()?;
        Ok(Self {
            messages: messages.ok_or(NotJson)?,
            max_tokens: max_tokens.flatten(),
            temperature: temperature.flatten(),
            top_p: top_p.flatten(),
            top_k: top_k.flatten(),
            min_p: min_p.flatten(),
            repetition_penalty: repetition_penalty.flatten(),
            seed: seed.flatten(),
            stream: stream.unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;

    fn same_summarize(body: &str) {
        let theirs = serde_json::from_str::<wire::task::SummarizeRequest>(body);
        match (SummarizeRequest::read(body.as_bytes()), theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(ours.max_tokens, theirs.max_tokens);
                let ours = ours.messages.iter().map(|m| (m.sender.as_str(), m.text.as_str()));
                let theirs = theirs.messages.iter().map(|m| (m.sender.as_str(), m.text.as_str()));
                assert!(ours.eq(theirs), "{body}");
            }
            (Err(NotJson), Err(_)) => {}
            (ours, theirs) => panic!("{body}: ours {}, wire's {}", ours.is_ok(), theirs.is_ok()),
        }
    }

    fn same_chat(body: &str) {
        let theirs = serde_json::from_str::<wire::chat::ChatRequest>(body);
        match (ChatRequest::read(body.as_bytes()), theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(
                    (ours.max_tokens, ours.temperature, ours.top_p, ours.seed, ours.stream),
                    (theirs.max_tokens, theirs.temperature, theirs.top_p, theirs.seed, theirs.stream)
                );
                assert_eq!(
                    (ours.top_k, ours.min_p, ours.repetition_penalty),
                    (theirs.top_k, theirs.min_p, theirs.repetition_penalty)
                );
                let ours = ours.messages.iter().map(|m| (m.role, m.content.as_str()));
                let theirs = theirs.messages.iter().map(|m| (m.role, m.content.as_str()));
                assert!(ours.eq(theirs), "{body}");
            }
            (Err(NotJson), Err(_)) => {}
            (ours, theirs) => panic!("{body}: ours {}, wire's {}", ours.is_ok(), theirs.is_ok()),
        }
    }

    #[test]
    fn reads_what_the_types_of_wire_read() {
        for body in [
            r#"{"messages":[]}"#,
            r#"{"messages":[{"sender":"A","text":"x"}]}"#,
            r#"{"max_tokens":5,"messages":[{"text":"x","sender":"A"}]}"#,
            r#"{"messages":[{"sender":"A","text":"x"}],"max_tokens":null}"#,
            r#"{"messages":[{"sender":"A","text":"x"}],"max_tokens":4294967295}"#,
            r#"{"messages":[{"sender":"A","text":"x"}],"max_tokens":4294967296}"#,
            r#"{"messages":[{"sender":"A","text":"x"}],"max_tokens":-1}"#,
            r#"{"messages":[{"sender":"A","text":"x"}],"max_tokens":1.0}"#,
            r#"{"messages":[{"sender":"A","text":"x"}],"max_tokens":"5"}"#,
            r#"{"messages":[{"sender":"A","text":"x"}],"extra":1}"#,
            r#"{"messages":[{"sender":"A","text":"x","extra":1}]}"#,
            r#"{"messages":[{"sender":"A"}]}"#,
            r#"{"messages":[{"sender":"A","text":null}]}"#,
            r#"{"messages":[{"sender":"A","sender":"B","text":"x"}]}"#,
            r#"{"messages":null}"#,
            r#"{"messages":[null]}"#,
            r#"{"messages":[],"messages":[]}"#,
            "{}",
            "[]",
            "null",
            "",
        ] {
            same_summarize(body);
        }
        for body in [
            r#"{"messages":[{"role":"user","content":"x"}]}"#,
            r#"{"model":"m","messages":[{"role":"system","content":"x","name":"n"}],"stream":true}"#,
            r#"{"model":null,"messages":[]}"#,
            r#"{"messages":[{"role":"tool","content":"x"}]}"#,
            r#"{"messages":[{"role":"User","content":"x"}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]}"#,
            r#"{"messages":[{"role":"user","content":null}]}"#,
            r#"{"messages":[],"temperature":0.5,"top_p":1,"seed":18446744073709551615}"#,
            r#"{"messages":[],"temperature":1e0,"top_p":-0.25,"seed":null}"#,
            r#"{"messages":[],"temperature":1e999}"#,
            r#"{"messages":[],"top_k":40,"min_p":0.05,"repetition_penalty":1.1}"#,
            r#"{"messages":[],"top_k":-1}"#,
            r#"{"messages":[],"top_k":1.5,"min_p":null}"#,
            r#"{"messages":[],"repeat_penalty":1.1}"#,
            r#"{"messages":[],"repeat_penalty":1.1,"repetition_penalty":1.1}"#,
            r#"{"messages":[],"seed":-1}"#,
            r#"{"messages":[],"stream":null}"#,
            r#"{"messages":[],"stream":"true"}"#,
            r#"{"messages":[],"max_completion_tokens":3}"#,
            r#"{"messages":[],"max_completion_tokens":3,"max_tokens":3}"#,
            r#"{"messages":[],"tools":[{"a":{"b":[1,2.5e3,"x",null,true]}}],"user":"u"}"#,
            r#"{"messages":[],"tools":[}"#,
        ] {
            same_chat(body);
        }
    }

    proptest! {
        #[test]
        fn reads_what_the_types_of_wire_write(
            texts in proptest::collection::vec((any::<String>(), any::<String>()), 0..4), max in any::<Option<u32>>(),
            temperature in proptest::option::of(0f32..2.0), seed in any::<Option<u64>>(), stream in any::<bool>(),
        ) {
            let messages = texts.iter().map(|(sender, text)| wire::task::Message { sender: sender.clone(), text: text.clone() });
            let task = wire::task::SummarizeRequest { messages: messages.collect(), max_tokens: max };
            let body = serde_json::to_string(&task).unwrap();
            prop_assert!(SummarizeRequest::read(body.as_bytes()).is_ok());
            same_summarize(&body);

            let messages = texts.iter().map(|(_, text)| wire::chat::ChatMessage { role: Role::User, content: text.clone() });
            let chat = wire::chat::ChatRequest {
                model: "m".into(), messages: messages.collect(), max_tokens: max, temperature, top_p: None, top_k: max, min_p: temperature, repetition_penalty: None, seed, stream,
            };
            let body = serde_json::to_string(&chat).unwrap();
            prop_assert!(ChatRequest::read(body.as_bytes()).is_ok());
            same_chat(&body);
            for end in 0..body.len().min(60) {
                if body.is_char_boundary(end) {
                    same_chat(&format!("{}{}", &body[..end], &body[body.ceil_char_boundary(end + 1)..]));
                }
            }
        }
    }
}
