//! The half of the SNP model that is arithmetic: everything that can be said without hardware.
//!
//! The model is a small hypervisor with a software AMD Secure Processor in it. This library holds what the two
//! compute: what the launch looks like, what the AMD-SP measures, what it writes into its pages, how it answers a
//! guest message. The program beside it (`main.rs`) holds what they touch: VMCBs, page tables, ports.
//!
//! * **An imitation.** The model plays by SEV-SNP's rules as far as they are known here. It proves nothing about silicon
//!   and protects nothing: whoever runs QEMU reads all of the guest's memory.
//! * **From the specification only.** A misreading that guest and model share would prove nothing. So every constant
//!   here cites the manual it comes from, nothing is shared with the code that it judges, and outside tools
//!   (`sev-snp-measure`, vectors in `tests/`) are the judges of this code.
//! * **As strict as the firmware.** What real firmware refuses, this refuses, with the same status code.
//! * **Pure.** `no_std`, no `unsafe`, no clock, no randomness but what the caller passes in. All of it is tested as
//!   ordinary Rust on any machine.
//!
//! The manuals, by the names that comments use: *SNP ABI* is AMD 56860 rev. 1.57, *GHCB* is AMD 56421 rev. 2.03, *APM* is
//! AMD 24593 (volume 2), *KVM* and *QEMU* are `arch/x86/kvm/svm/` of Linux 6.11 and `target/i386/sev.c` of QEMU 9.1.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod amd_sp;
pub mod apic;
pub mod bundle;
pub mod counts;
pub mod cpu_type;
pub mod cpuid_page;
pub mod decode;
pub mod extended_request;
pub mod ghcb;
pub mod hostile;
pub mod launch;
pub mod layout;
pub mod psc;
pub mod rmp;

/// Bytes in a page, the unit of the RMP and of the launch digest.
pub const PAGE_BYTES: usize = 4096;

/// The contents of one page.
pub type Page = [u8; PAGE_BYTES];
