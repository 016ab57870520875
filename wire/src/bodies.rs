//! The bodies of requests and answers as JSON types, for clients and tests. The guest reads and writes them itself, into memory
//! that is wiped (`service/src/requests.rs`, `answer.rs`), so this is no part of the image.

use crate::chat::Role;
use crate::task::{ErrorCode, FinishReason};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// One chat message: data to the guest, never instructions.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who wrote it, as the chat shows it.
    pub sender: String,
    /// What was written; media and system lines are left out by the client.
    pub text: String,
}

/// Body of `POST /v1/tasks/summarize`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SummarizeRequest {
    /// The messages, oldest first; at least one.
    pub messages: Vec<Message>,
    /// Upper bound of the answer in tokens; the manifest's limit holds in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
}

/// One line of a task's answer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TaskEvent {
    /// More text.
    Delta {
        /// The text, valid UTF-8 on its own.
        text: String,
    },
    /// The answer is complete.
    Done {
        /// Why it ended.
        reason: FinishReason,
        /// Length of the prompt in tokens.
        prompt_tokens: u32,
        /// Length of the answer in tokens.
        completion_tokens: u32,
    },
    /// The answer broke off.
    Failed {
        /// Why.
        code: ErrorCode,
    },
}

/// Body of every response whose status is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong, in the shape that OpenAI clients also read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// For programs.
    pub code: ErrorCode,
    /// For people; never holds anything from the request.
    pub message: String,
}

// Whoever formats a request into a log by mistake gets its size, not its text (REQUIREMENTS E7).
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} bytes)", self.text.len())
    }
}

impl fmt::Debug for SummarizeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SummarizeRequest({} messages)", self.messages.len())
    }
}

impl fmt::Debug for TaskEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delta { text } => write!(f, "Delta({} bytes)", text.len()),
            Self::Done { reason, prompt_tokens, completion_tokens } => {
                write!(f, "Done({reason:?}, {prompt_tokens} + {completion_tokens} tokens)")
            }
            Self::Failed { code } => write!(f, "Failed({code:?})"),
        }
    }
}

/// One turn of the conversation.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl fmt::Debug for ChatMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChatMessage({:?}, {} bytes)", self.role, self.content.len())
    }
}

/// Body of `POST /v1/chat/completions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// Ignored by the guest: the manifest names the one model there is.
    #[serde(default)]
    pub model: String,
    /// The conversation, oldest first; at least one turn.
    pub messages: Vec<ChatMessage>,
    /// Upper bound of the answer in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "max_completion_tokens")]
    pub max_tokens: Option<u32>,
    /// 0 (greedy, the default here) to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Nucleus sampling, in (0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Keep so many of the likeliest tokens; 0 keeps all. As in vLLM and llama.cpp; OpenAI has no such parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Keep tokens with at least this share of the likeliest one's probability, 0 to 1; also not of OpenAI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Makes recent tokens less likely where above 1, from 0.1 to 10; also not of OpenAI.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "repeat_penalty")]
    pub repetition_penalty: Option<f32>,
    /// Seed of the sampler; the same seed and prompt give the same answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Whether to answer with `text/event-stream` chunks.
    #[serde(default)]
    pub stream: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e7_debug_shows_no_message_text() {
        let message = Message { sender: "Amara".into(), text: "the canary sings".into() };
        let request = SummarizeRequest { messages: alloc::vec![message.clone()], max_tokens: None };
        let delta = TaskEvent::Delta { text: "the canary sings".into() };
        for shown in
            [alloc::format!("{message:?}"), alloc::format!("{request:?}"), alloc::format!("{delta:?}")]
        {
            assert!(!shown.contains("canary") && !shown.contains("Amara"), "{shown}");
        }
    }

    #[test]
    fn task_events_have_the_documented_json() {
        let json = serde_json::to_string(&TaskEvent::Delta { text: "a\n".into() }).unwrap();
        assert_eq!(json, r#"{"type":"delta","text":"a\n"}"#);
        let done = TaskEvent::Done { reason: FinishReason::Stop, prompt_tokens: 3, completion_tokens: 4 };
        let json = serde_json::to_string(&done).unwrap();
        assert_eq!(json, r#"{"type":"done","reason":"stop","prompt_tokens":3,"completion_tokens":4}"#);
    }
}
