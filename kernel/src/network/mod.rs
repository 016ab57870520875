//! From frames to connections: smoltcp between the virtio card and the service.
//!
//! Everything here is ciphertext and headers. Bounds are fixed at boot (REQUIREMENTS A17): so many sockets, so many bytes for
//! each; whoever floods the guest takes places from half-open and oldest idle connections, never memory.

pub mod card;
pub mod server;
