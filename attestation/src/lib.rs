//! Evidence: what a Cloister guest says of itself, and how that is checked.
#![cfg_attr(not(any(feature = "verifier", feature = "development", test)), no_std)]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod canonical;
pub mod manifest;
