//! Which `#VC` exceptions the guest serves (REQUIREMENTS A1): `cpuid`, and no other.

/// `VMEXIT_CPUID` (APM vol. 2, appendix C).
const EXIT_CPUID: u64 = 0x72;
const OPCODE_CPUID: [u8; 2] = [0x0f, 0xa2];

/// Whether the exit code names `cpuid` and the interrupted instruction is it. The host chooses the code and the moment of
/// a `#VC`; it cannot choose the instruction.
pub const fn is_cpuid(exit_code: u64, opcode: [u8; 2]) -> bool {
    exit_code == EXIT_CPUID && opcode[0] == OPCODE_CPUID[0] && opcode[1] == OPCODE_CPUID[1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a1_an_exit_code_that_does_not_match_the_opcode_is_not_served() {
        assert!(is_cpuid(0x72, [0x0f, 0xa2]));
        for code in (0..0x500).filter(|code| *code != 0x72).chain([0x8000_0001, 1 << 32 | 0x72]) {
            assert!(!is_cpuid(code, [0x0f, 0xa2]), "{code:#x}");
        }
        // out, hlt, rdmsr, rep vmmcall, mov
        for opcode in [[0xe6, 0xe9], [0xf4, 0xc3], [0x0f, 0x32], [0xf3, 0x0f], [0x48, 0x89], [0xa2, 0x0f]] {
            assert!(!is_cpuid(0x72, opcode), "{opcode:x?}");
        }
    }
}
