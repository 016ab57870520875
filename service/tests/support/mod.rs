//! A guest on the host: a platform whose AMD-SP is a development chain, a model that says what is expected of it, and
//! a TLS client of another make.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod client;
pub mod model;
pub mod platform;
pub mod tcp;
pub mod world;
