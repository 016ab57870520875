//! HTTP/1.1 (RFC 9112), the part that the service needs, read strictly.
//!
//! Where the RFC lets a server be lenient, this one refuses: what two readers could understand in two ways is an
//! error and ends the connection (request smuggling, REQUIREMENTS C8).

mod request;
mod response;

pub(crate) use request::{Head, MAX_HEAD, Method, Parsed, parse};
pub(crate) use response::{CONTINUE, END, Refusal, Reply, Status, chunk, event};
