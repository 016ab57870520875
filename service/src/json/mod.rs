//! JSON (RFC 8259) for request bodies and answers, without copies that nobody wipes.
//!
//! `serde_json` unescapes strings through a scratch buffer that it frees as it is, and puts values into error messages.
//! Both would leave pieces of a prompt in memory (REQUIREMENTS A20, E7), so the guest reads and writes JSON itself.
//! The tests hold it to what `serde_json` does with the types in `wire`.

mod reader;
mod writer;

pub(crate) use reader::{NotJson, Reader};
pub(crate) use writer::string;
