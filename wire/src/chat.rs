//! `POST /v1/chat/completions`: the part of OpenAI's chat-completion API that the guest serves.
//!
//! Source: OpenAI API reference, "Create chat completion" and "chat.completion.chunk". Fields that change nothing
//! for a private, tool-less model are accepted and ignored, as OpenAI-compatible servers do.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Role {
    /// Instructions from the application.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// One turn of the conversation.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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

/// Body of the request.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ChatRequest {
    /// Ignored by the guest: the manifest names the one model there is.
    #[cfg_attr(feature = "serde", serde(default))]
    pub model: String,
    /// The conversation, oldest first; at least one turn.
    pub messages: Vec<ChatMessage>,
    /// Upper bound of the answer in tokens.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none", alias = "max_completion_tokens")
    )]
    pub max_tokens: Option<u32>,
    /// 0 (greedy, the default here) to 2.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub temperature: Option<f32>,
    /// Nucleus sampling, in (0, 1].
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub top_p: Option<f32>,
    /// Keep so many of the likeliest tokens; 0 keeps all. As in vLLM and llama.cpp; OpenAI has no such parameter.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub top_k: Option<u32>,
    /// Keep tokens with at least this share of the likeliest one's probability, 0 to 1; also not of OpenAI.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub min_p: Option<f32>,
    /// Makes recent tokens less likely where above 1, from 0.1 to 10; also not of OpenAI.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none", alias = "repeat_penalty")
    )]
    pub repetition_penalty: Option<f32>,
    /// Seed of the sampler; the same seed and prompt give the same answer.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub seed: Option<u64>,
    /// Whether to answer with `text/event-stream` chunks.
    #[cfg_attr(feature = "serde", serde(default))]
    pub stream: bool,
}
