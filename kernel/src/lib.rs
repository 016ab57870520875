//! The guest image: boot, memory, SEV-SNP, devices, entropy, events, and the loop that serves clients.
//!
//! Principles:
//! * **The host is hostile.** What it supplies is an [`host::Alleged`] value and becomes a fact by a check. Shared memory
//!   is copied, byte by byte and once, never referenced.
//! * **Decisions here, instructions there.** This library decides, in safe Rust, against traits; it runs in the tests of
//!   any host, against fakes that lie. The binary (`src/machine`) holds the instructions: assembly, page tables, `VMGEXIT`.
//! * **One way on, or the end.** A condition that cannot occur on an honest host ends the VM with a [`fatal::Fatal`]
//!   that says which; nothing is retried in another way. A device that lies is dead; the AMD-SP's key is wiped on
//!   the first anomaly.
//! * **What was measured counts.** The guest reads the manifest in the image, the CPUID and secrets pages, two devices at
//!   measured slots, and nothing else.
//! * **Numbers leave, text does not.** The operator gets [`wire::event::Event`]s.
//!
//! The parts, in the order of the boot: [`snp`] (what the processor and the AMD-SP say), [`memory`] (each page validated
//! once), [`cpus`], [`entropy`], [`pci`] and [`virtio`] (devices), [`weights`] (the model file, hashed on the way in).
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]
extern crate alloc;

pub mod clock;
pub mod cpus;
pub mod entropy;
pub mod exceptions;
pub mod fatal;
pub mod host;
#[expect(unsafe_code, reason = "a lock hands out what it guards")]
pub mod lock;
pub mod memory;
pub mod network;
#[expect(unsafe_code, reason = "a static cell that is filled once needs interior mutability")]
pub mod once;
pub mod pci;
pub mod snp;
pub mod virtio;
pub mod weights;
