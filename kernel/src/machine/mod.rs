//! The instructions: everything that only ring 0 of an SEV-SNP guest can do.
//!
//! What to do is decided in the library; here is how the processor is told. Each `unsafe` block says why it holds.

pub mod attestation;
pub mod clock;
pub mod cpus;
pub mod descriptors;
pub mod entry;
pub mod exceptions;
pub mod ghcb;
pub mod heap;
pub mod image;
pub mod instructions;
pub mod memory;
pub mod paging;
pub mod processor;
pub mod random;
pub mod runtime;
pub mod shared;
pub mod stack;
pub mod terminate;
