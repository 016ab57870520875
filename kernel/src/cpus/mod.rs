//! The other CPUs: where their stacks lie, and how they compute together with the first.
//!
//! How many there are is measured (REQUIREMENTS A16): the manifest says it, and the launch digest covers the manifest and
//! one VMSA for each. The guest builds the VMSAs with which CPUs beside the first start, and counts who arrives.

#[expect(
    unsafe_code,
    reason = "a task that is lent to other CPUs outlives no call, which the compiler cannot see"
)]
pub mod pool;
pub mod stacks;

/// Most CPUs of a guest.
pub const MAX: usize = attestation::manifest::MAX_VCPUS as usize;
