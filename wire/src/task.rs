//! Tasks: what a client asks of its messages, and the stream that answers.
//!
//! A task's answer is `text/event-stream`; each `data:` line holds one [`TaskEvent`] as JSON, and the last one is
//! [`TaskEvent::Done`] or [`TaskEvent::Failed`]. A stream without either was cut off.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// One chat message: data to the guest, never instructions.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Message {
    /// Who wrote it, as the chat shows it.
    pub sender: String,
    /// What was written; media and system lines are left out by the client.
    pub text: String,
}

/// Body of `POST /v1/tasks/summarize`.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct SummarizeRequest {
    /// The messages, oldest first; at least one.
    pub messages: Vec<Message>,
    /// Upper bound of the answer in tokens; the manifest's limit holds in any case.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub max_tokens: Option<u32>,
}

/// Why an answer is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum FinishReason {
    /// The model ended its answer.
    Stop,
    /// The answer reached the length limit.
    Length,
}

/// Machine-readable reason of a refusal or failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum ErrorCode {
    /// The body is not the JSON that the path expects.
    BadRequest,
    /// No such path.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The body is larger than the manifest's limit.
    BodyTooLarge,
    /// The prompt does not fit the context; fewer or shorter messages would.
    PromptTooLong,
    /// All sessions are taken; try again later.
    Busy,
    /// A task was asked for before the session's evidence.
    EvidenceRequired,
    /// A defect of the guest.
    Internal,
}

/// One line of a task's answer.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "type", rename_all = "snake_case"))]
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong, in the shape that OpenAI clients also read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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
