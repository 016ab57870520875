//! The HTTP paths of the guest's service, all over the attested TLS session.

/// `POST`: 32 bytes of nonce in, fresh evidence (CMW, CBOR) out. The first request of every session.
pub const EVIDENCE: &str = "/v1/evidence";
/// `POST`: [`crate::task::SummarizeRequest`] in, a stream of [`crate::task::TaskEvent`] out.
pub const SUMMARIZE: &str = "/v1/tasks/summarize";
/// `POST`: [`crate::chat::ChatRequest`] in, the OpenAI chat-completion shape out.
pub const CHAT_COMPLETIONS: &str = "/v1/chat/completions";
