//! The SNP model: a small hypervisor that imitates SEV-SNP on stock QEMU, without any hardware support.
//!
//! It boots as a PVH kernel on QEMU's TCG, which emulates AMD SVM with nested paging, and runs an unchanged
//! guest image under the rules that a real SEV-SNP host and processor would hold it to: reset vector and
//! measured VMSA, C-bit at 51, RMP with PVALIDATE and RMPADJUST, `#VC` instead of exits, the GHCB protocol
//! version 2, CPUID and secrets pages, guest messages, QEMU's own PCI devices as the guest's.
//!
//! * **It imitates rules. It proves nothing about silicon and protects nothing.** Whoever runs QEMU reads all
//!   of the guest's memory. What it signs verifies only against a development root.
//! * **Strict, and never helpful.** A guest that breaks a rule is stopped with a line that says which, even
//!   where hardware would let it go on into undefined behaviour. Nothing is repaired behind its back.
//! * **One source of truth.** The RMP ([`snp_model::rmp`]) says what a page is; nested page tables only
//!   follow it.
//! * **Logic is in the library**, where it is tested as ordinary Rust. What is here needs the hardware.
//!
//! A run ends through QEMU's debug-exit device: 0x10 when the guest asked to be terminated, 0x11 when it
//! broke a rule, 0x12 when the model itself cannot go on; the last line of its serial log says why.
#![no_std]
#![no_main]

extern crate alloc;

mod machine;
