//! Evidence: what a Cloister guest says of itself, and how that is checked.
//!
//! * **Two halves.** The core (`no_std`) is what guest and verifier must agree on: the report's layout, what its
//!   `REPORT_DATA` means, how evidence is encoded, what is measured. Feature `verifier` appraises evidence, for
//!   clients. Feature `development` makes the key chain of the SNP model, and is never part of a client's trust.
//! * **One encoding for each value.** Decoders accept exactly what encoders write, with bounds, and nothing after.
//! * **A label for each use.** Every hash that binds something starts with a label of its own.
//! * **Signed bytes as they were sent.** Nothing is verified over a re-encoding, and no unknown version is read as a
//!   known one.
//! * **Nothing is expected by default.** Types hold at least one expected launch digest; what a policy relaxes has a
//!   name, and the verdict repeats it.
#![cfg_attr(not(any(feature = "std", test)), no_std)]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod batch;
mod cbor;
pub mod certificate_table;
#[cfg(feature = "development")]
pub mod development;
#[cfg(feature = "verifier")]
mod endorsement;
pub mod evidence;
pub mod manifest;
#[cfg(feature = "verifier")]
mod pss;
#[cfg(feature = "read")]
pub mod report;
pub mod report_data;
pub mod tlv;
#[cfg(feature = "verifier")]
pub mod verifier;
pub mod weights;

pub use wire::canonical;
