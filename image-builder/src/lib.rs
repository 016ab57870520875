//! Kernel ELF + manifest → the measured image, and the digest that the AMD-SP will report for it.
//!
//! Principles:
//! * **The same source gives the same bytes**, in any folder and for any user: the pinned toolchain, no host path
//!   in the output, no timestamp, no order that depends on a hash map ([`freestanding`]).
//! * **The ROM adds almost nothing to the kernel** ([`reset`]): a few instructions, written down byte by byte, that no
//!   step of the boot has to handle `#VC` for.
//! * **An image describes itself** ([`container`]): whoever has the file finds the manifest and the launch digest in it, as
//!   QEMU and the AMD-SP do. Nothing is looked up beside it.
//! * **Two builders before one entry** (`publish`): a log gets an image only after independent builds agree.
//! * **Two containers, one kernel** ([`rom`], [`igvm`](mod@igvm)): the same bytes of code and manifest, the same first instruction.
#![forbid(unsafe_code)]

pub mod audit;
pub mod checkout;
pub mod container;
pub mod cpu;
pub mod digest;
pub mod digests;
#[cfg(feature = "publish")]
pub mod dsse;
pub mod elf;
pub mod firmware;
pub mod freestanding;
pub mod igvm;
pub mod layout;
pub mod limits;
#[cfg(feature = "publish")]
pub mod publish;
pub mod reset;
pub mod rom;
pub mod source;
pub mod tcb;
pub mod template;
pub mod tools;
pub mod vmsa;

#[cfg(test)]
#[path = "../tests/samples/mod.rs"]
mod samples;
