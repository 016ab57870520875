//! SEV-SNP as the guest sees it: what the processor says of itself, how the host is asked, how the AMD-SP is asked.

pub mod cpuid;
pub mod ghcb;
pub mod message;
pub mod protocol;
pub mod secrets;
pub mod status;
pub mod vmsa;
