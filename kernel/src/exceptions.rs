//! What is done with each of the 256 vectors: one is served, `#VC` for `cpuid`; every other ends the VM.
//!
//! The host can raise any vector at any time (REQUIREMENTS A1, A2) and chooses the exit code of a `#VC`. What it cannot
//! choose is the instruction that was interrupted, so that one must be the one that the code names.

use crate::fatal::{Fatal, OrFatal};
use crate::snp::cpuid::{CpuidTable, Registers};
use wire::termination::Termination;

/// Double fault.
pub const DOUBLE_FAULT: u8 = 8;
/// Page fault.
pub const PAGE_FAULT: u8 = 14;
/// VMM communication exception.
pub const VC: u8 = 29;

/// `VMEXIT_CPUID` (APM vol. 2, appendix C).
const EXIT_CPUID: u64 = 0x72;
const OPCODE_CPUID: [u8; 2] = [0x0f, 0xa2];

/// Bytes of the instruction that [`serve`] answers.
pub const CPUID_BYTES: u64 = OPCODE_CPUID.len() as u64;

/// An exception, as the processor and the interrupted code left it.
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    /// The vector.
    pub vector: u8,
    /// The error code; for `#VC` the exit code.
    pub error: u64,
    /// The interrupted instruction's address.
    pub rip: u64,
    /// The interrupted instruction's first bytes, if the image's code is there.
    pub opcode: Option<[u8; 2]>,
    /// EAX and ECX.
    pub input: [u32; 2],
    /// The address in a stack's guard page that was hit, if one was.
    pub guard: Option<u64>,
}

/// The answer to the `cpuid` that was interrupted; anything else is the end.
pub fn serve(exception: &Exception, cpuid: Option<&CpuidTable>) -> OrFatal<Registers> {
    match (exception.vector, exception.guard) {
        (VC, _) => {}
        (DOUBLE_FAULT | PAGE_FAULT, Some(address)) => {
            return Err(Fatal::new(Termination::StackOverflow, address));
        }
        (vector, _) => {
            // Addresses of the image need far less than 56 bits.
            let value = u64::from(vector) << 56 | (exception.rip & ((1 << 56) - 1));
            return Err(Fatal::new(Termination::UnexpectedVector, value));
        }
    }
    let unexpected = Fatal::new(Termination::UnexpectedVc, exception.error);
    if exception.error != EXIT_CPUID || exception.opcode != Some(OPCODE_CPUID) {
        return Err(unexpected);
    }
    let [leaf, subleaf] = exception.input;
    cpuid.ok_or(unexpected)?.instruction(leaf, subleaf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snp::cpuid::tests::{GENOA, page};

    const CPUID: Exception = Exception {
        vector: VC,
        error: EXIT_CPUID,
        rip: 0x20_1000,
        opcode: Some(OPCODE_CPUID),
        input: [1, 0],
        guard: None,
    };

    fn end(exception: Exception) -> Option<Termination> {
        let table = CpuidTable::new(&page(GENOA)).unwrap();
        serve(&exception, Some(&table)).err().map(|fatal| fatal.reason)
    }

    #[test]
    fn cpuid_is_answered_from_the_page() {
        let table = CpuidTable::new(&page(GENOA)).unwrap();
        assert_eq!(serve(&CPUID, Some(&table)).unwrap().eax, 0x00a1_0f11);
    }

    #[test]
    fn a1_an_exit_code_that_does_not_match_the_opcode_ends_the_vm() {
        for error in (0..0x500).filter(|code| *code != 0x72).chain([0x8000_0001, 1 << 32 | 0x72]) {
            assert_eq!(end(Exception { error, ..CPUID }), Some(Termination::UnexpectedVc), "{error:#x}");
        }
        // out, hlt, rdmsr, rep vmmcall, mov
        for opcode in [[0xe6, 0xe9], [0xf4, 0xc3], [0x0f, 0x32], [0xf3, 0x0f], [0x48, 0x89], [0xa2, 0x0f]] {
            let exception = Exception { opcode: Some(opcode), ..CPUID };
            assert_eq!(end(exception), Some(Termination::UnexpectedVc), "{opcode:x?}");
        }
        assert_eq!(
            end(Exception { opcode: None, ..CPUID }),
            Some(Termination::UnexpectedVc),
            "outside of the code"
        );
    }

    #[test]
    fn a2_every_other_vector_ends_the_vm() {
        for vector in (0..=255).filter(|vector| *vector != VC) {
            assert_eq!(end(Exception { vector, ..CPUID }), Some(Termination::UnexpectedVector), "{vector}");
        }
    }

    #[test]
    fn a5_a_leaf_that_the_page_does_not_hold_ends_the_vm() {
        assert_eq!(end(Exception { input: [0x4000_0000, 0], ..CPUID }), Some(Termination::CpuidLeaf));
        assert_eq!(
            serve(&CPUID, None).unwrap_err().reason,
            Termination::UnexpectedVc,
            "before the page is read"
        );
    }

    #[test]
    fn a_fault_in_a_guard_page_is_told_apart() {
        for vector in [PAGE_FAULT, DOUBLE_FAULT] {
            let exception = Exception { vector, guard: Some(0x20_e008), ..CPUID };
            assert_eq!(end(exception), Some(Termination::StackOverflow));
        }
    }
}
