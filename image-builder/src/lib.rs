//! Kernel ELF + manifest → the measured image, and the digest that the AMD-SP will report for it.
//!
//! Principles:
//! * **The same source gives the same bytes**, in any folder and for any user: the pinned toolchain, no host path
//!   in the output, no timestamp, no order that depends on a hash map ([`freestanding`]).
#![forbid(unsafe_code)]

pub mod checkout;
pub mod freestanding;
