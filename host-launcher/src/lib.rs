//! Boots an image under QEMU and stays with it until it ends.
//!
//! Principles:
//! * **The operator learns what the guest says in events, and nothing else.** There is no console and no log of the guest;
//!   what QEMU itself or the SNP model has to say is told apart from it.
//! * **What can be known before the start is checked before the start**: files, port, QEMU, the host's SEV-SNP. All
//!   that is missing is said at once.
//! * **Nothing is left behind.** QEMU ends with the launcher, however that ends.
#![forbid(unsafe_code)]

pub mod development;
pub mod ending;
pub mod event_stream;
pub mod failure;
pub mod host;
pub mod hostile;
pub mod image;
pub mod machine;
pub mod report;
pub mod supervise;
