//! How it is noticed that the host at the other end of a connection is gone without a word, as after a loss of power.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

/// Silence after which the other end is asked for a sign of life.
pub(crate) const IDLE: Duration = Duration::from_secs(5);
/// Between two questions.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// Unanswered questions after which the connection has failed.
pub(crate) const RETRIES: u32 = 3;

/// Asks the system to watch a connection.
pub(crate) fn watch(stream: &TcpStream) -> io::Result<()> {
    let questions = TcpKeepalive::new().with_time(IDLE).with_interval(INTERVAL).with_retries(RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&questions)
}
