//! `POST /v1/chat/completions`: the part of OpenAI's chat-completion API that the guest serves.
//!
//! Source: OpenAI API reference, "Create chat completion" and "chat.completion.chunk". Fields that change nothing
//! for a private, tool-less model are accepted and ignored, as OpenAI-compatible servers do.

#[cfg(feature = "serde")]
pub use crate::bodies::{ChatMessage, ChatRequest};

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
