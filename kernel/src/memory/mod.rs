//! Memory: what the measured layout gives, and how each page of it becomes the guest's, once.

pub mod accept;
#[expect(unsafe_code, reason = "a global allocator is an unsafe trait")]
pub mod heap;
pub mod layout;
pub mod tables;
#[expect(unsafe_code, reason = "a heap keeps its lists in the memory that is free")]
pub mod tlsf;
