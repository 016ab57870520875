//! Tasks: what a client asks of its messages, and the stream that answers.
//!
//! A task's answer is `text/event-stream`; each `data:` line holds one [`TaskEvent`] as JSON, and the last one is
//! [`TaskEvent::Done`] or [`TaskEvent::Failed`]. A stream without either was cut off.

#[cfg(feature = "serde")]
pub use crate::bodies::{ErrorBody, ErrorDetail, Message, SummarizeRequest, TaskEvent};

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
