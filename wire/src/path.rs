//! The HTTP paths of the guest's service, all over the attested TLS session.

/// `POST`: 32 bytes of nonce in, fresh evidence (CMW, CBOR) out. The first request of every session.
pub const EVIDENCE: &str = "/v1/evidence";
/// ALPN protocol of clients that want evidence with the server's first flight: its length as 32 bits, big-endian, and the
/// evidence (CMW, CBOR) for the nonce `ClientHello.random` come before anything else, and HTTP/1.1 follows. It saves
/// the round trip of [`EVIDENCE`].
pub const EVIDENCE_FIRST: &[u8] = b"cloister/1";
/// `POST`: [`crate::task::SummarizeRequest`] in, a stream of [`crate::task::TaskEvent`] out.
pub const SUMMARIZE: &str = "/v1/tasks/summarize";
/// `POST`: [`crate::chat::ChatRequest`] in, the OpenAI chat-completion shape out.
pub const CHAT_COMPLETIONS: &str = "/v1/chat/completions";
