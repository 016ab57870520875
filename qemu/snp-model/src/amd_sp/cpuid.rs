//! CPUID reporting: `MSG_CPUID_REQ` and its answer (SNP ABI §7.1).
//!
//! The guest sends functions with the values that the hypervisor told it; the AMD-SP puts right what its chip could
//! not have and says whether it had to. Firmware admits fewer features than the chip has; here the guest's own CPUID
//! page is the measure, so a value that differs from it is put right in both directions.

use super::{Status, message::Request};
use crate::cpuid_page::{CpuidPage, MAX_ENTRIES};
use alloc::vec::Vec;

/// `COUNT` or `STATUS`, then `COUNT` of the response, and reserved bytes to here.
const HEADER_BYTES: usize = 16;
/// Bytes of a `CPUID_FUNCTION`, and where its parts are.
const FUNCTION_BYTES: usize = 48;
const OUT: usize = 0x18;
const RESERVED: usize = 0x28;

/// Functions that the AMD-SP judges: the standard and the extended range (SNP ABI §7.1).
const fn is_judged(leaf: u32) -> bool {
    leaf & 0x7FFF_FFFF <= 0xFFFF
}

/// The payload of the response: as long as that of the request.
pub(super) fn answer(request: &Request, page: &CpuidPage) -> Result<Vec<u8>, Status> {
    let payload = &request.payload;
    let word = |at: usize| payload.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let count = word(0).ok_or(Status::InvalidParam)?;
    let functions = usize::try_from(count).ok().filter(|n| *n <= MAX_ENTRIES);
    let mut response = alloc::vec![0; payload.len()];
    let reserved_clear = payload.get(4..HEADER_BYTES).is_some_and(|b| b.iter().all(|b| *b == 0));
    let Some(functions) = functions.filter(|_| reserved_clear) else {
        response[..4].copy_from_slice(&(Status::InvalidParam as u32).to_le_bytes());
        return Ok(response);
    };
    // A count that the message has no room for is the request's fault, not a value's.
    let end = HEADER_BYTES + functions * FUNCTION_BYTES;
    let asked = payload.get(HEADER_BYTES..end).ok_or(Status::InvalidParam)?;
    let body = response.get_mut(HEADER_BYTES..end).ok_or(Status::InvalidParam)?;
    body.copy_from_slice(asked);

    let (mut judged, mut corrected) = (0_u32, false);
    for function in body.as_chunks_mut::<FUNCTION_BYTES>().0 {
        let word = |at: usize| u32::from_le_bytes(core::array::from_fn(|i| function[at + i]));
        let (leaf, subleaf) = (word(0), word(4));
        if !is_judged(leaf) {
            continue;
        }
        judged += 1;
        corrected |= function[RESERVED..] != [0; FUNCTION_BYTES - RESERVED];
        // What the page does not hold is zero.
        let truth = page.lookup(leaf, subleaf).unwrap_or_default();
        let mut out = [0; RESERVED - OUT];
        for (place, register) in out.chunks_exact_mut(4).zip(truth) {
            place.copy_from_slice(&register.to_le_bytes());
        }
        corrected |= function[OUT..RESERVED] != out;
        function[OUT..RESERVED].copy_from_slice(&out);
    }
    let status = if corrected { Status::InvalidParam as u32 } else { 0 };
    response[..4].copy_from_slice(&status.to_le_bytes());
    response[4..8].copy_from_slice(&judged.to_le_bytes());
    Ok(response)
}
