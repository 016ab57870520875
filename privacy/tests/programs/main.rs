//! Relay, gateway and issuer as the programs that operators run: their files, their TLS, and what they say when something is wrong.

#[path = "../common/mod.rs"]
mod common;
mod gateway;
mod issuer;
mod support;
mod tls;
