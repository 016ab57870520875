//! What sessions are held with.

pub mod amd_sp;
pub mod guest;
pub mod server;

use client::session::{Session, SessionError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use wire::task::{Message, SummarizeRequest};

/// Long enough for any honest step on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// What no error may ever show.
pub const CANARY: &str = "the heron lands at dusk";

/// Connects as a client that trusts the test's image on its development chain.
pub async fn connect(server: SocketAddr) -> Result<Session, SessionError> {
    let policy = Arc::new(amd_sp::policy().into());
    Session::connect(&server.to_string(), policy, PATIENCE, |_| ()).await
}

/// A request that holds the canary.
pub fn request() -> SummarizeRequest {
    let message = Message { sender: "Amara".into(), text: CANARY.into() };
    SummarizeRequest { messages: vec![message], max_tokens: Some(8) }
}

/// The error instead of a result that must not be.
pub fn error<T>(result: Result<T, SessionError>) -> SessionError {
    let Err(error) = result else { panic!("accepted") };
    assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
    error
}
