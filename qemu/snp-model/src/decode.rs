//! The few instructions that the model must recognise or execute for its guest.
//!
//! QEMU's TCG has neither the next-instruction pointer nor decode assists of APM §15.33, so the bytes at RIP
//! say what left the guest. What is none of these is [`Instruction::Other`]; nobody needs its length.

/// Longest instruction of the architecture.
pub const MAX_BYTES: usize = 15;

/// An instruction, as far as the model cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// `RDMSR`.
    Rdmsr,
    /// `WRMSR`.
    Wrmsr,
    /// `HLT`.
    Halt,
    /// `VMGEXIT`: `VMMCALL` behind a REP prefix (APM volume 3).
    Vmgexit,
    /// `PVALIDATE`.
    Pvalidate,
    /// `RMPADJUST`.
    Rmpadjust,
    /// `MOV CR0, reg`, with the register's number.
    MoveToCr0(u8),
    /// `LMSW reg`, with the register's number.
    LoadMachineStatus(u8),
    /// `CLTS`.
    ClearTaskSwitched,
    /// Anything else.
    Other,
}

/// An instruction and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// What it is.
    pub instruction: Instruction,
    /// Its length in bytes; 0 for [`Instruction::Other`].
    pub bytes: u8,
}

/// Decodes the bytes at RIP. `long` says whether the code segment is a 64-bit one, where 0x40..=0x4F are REX
/// prefixes.
pub fn decode(bytes: &[u8], long: bool) -> Decoded {
    decode_known(bytes, long).unwrap_or(Decoded { instruction: Instruction::Other, bytes: 0 })
}

fn decode_known(bytes: &[u8], long: bool) -> Option<Decoded> {
    let (mut repeat, mut rex, mut at) = (None, 0, 0);
    loop {
        match *bytes.get(at)? {
            prefix @ (0xF2 | 0xF3) => repeat = Some(prefix),
            0x26 | 0x2E | 0x36 | 0x3E | 0x64 | 0x65 | 0x66 | 0x67 => {}
            prefix @ 0x40..=0x4F if long => {
                // Only a REX prefix right before the opcode counts.
                if *bytes.get(at + 1)? == 0x0F {
                    rex = prefix;
                }
            }
            _ => break,
        }
        at += 1;
    }
    match *bytes.get(at)? {
        0x0F => {}
        0xF4 if at < MAX_BYTES => {
            return Some(Decoded { instruction: Instruction::Halt, bytes: at as u8 + 1 });
        }
        _ => return None,
    }
    let register = |modrm: u8| (modrm & 7) | (rex & 1) << 3;
    let is_register = |modrm: u8| modrm >= 0xC0;
    let modrm = bytes.get(at + 2).copied();
    let (instruction, opcode_bytes) = match (*bytes.get(at + 1)?, modrm) {
        (0x30, _) => (Instruction::Wrmsr, 2),
        (0x32, _) => (Instruction::Rdmsr, 2),
        (0x06, _) => (Instruction::ClearTaskSwitched, 2),
        // MOV to a control register takes its operand as a register whatever the mod field says (APM volume
        // 3).
        (0x22, Some(modrm)) if modrm >> 3 & 7 == 0 && rex & 4 == 0 => {
            (Instruction::MoveToCr0(register(modrm)), 3)
        }
        (0x01, Some(0xD9)) if repeat == Some(0xF3) => (Instruction::Vmgexit, 3),
        (0x01, Some(0xFF)) if repeat == Some(0xF2) => (Instruction::Pvalidate, 3),
        (0x01, Some(0xFE)) if repeat == Some(0xF3) => (Instruction::Rmpadjust, 3),
        (0x01, Some(modrm)) if modrm >> 3 & 7 == 6 && is_register(modrm) => {
            (Instruction::LoadMachineStatus(register(modrm)), 3)
        }
        _ => return None,
    };
    let length = at + opcode_bytes;
    (length <= MAX_BYTES).then_some(Decoded { instruction, bytes: length as u8 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], long: bool, instruction: Instruction, length: u8) {
        assert_eq!(decode(bytes, long), Decoded { instruction, bytes: length }, "{bytes:x?}");
    }

    #[test]
    fn encodings_of_the_manual_are_recognised() {
        check(&[0xF3, 0x0F, 0x01, 0xD9, 0x90], true, Instruction::Vmgexit, 4);
        check(&[0xF2, 0x0F, 0x01, 0xFF], false, Instruction::Pvalidate, 4);
        check(&[0xF3, 0x0F, 0x01, 0xFE], true, Instruction::Rmpadjust, 4);
        check(&[0x0F, 0x30], true, Instruction::Wrmsr, 2);
        check(&[0x48, 0x0F, 0x32], true, Instruction::Rdmsr, 3);
        check(&[0x0F, 0x22, 0xC0], false, Instruction::MoveToCr0(0), 3);
        check(&[0x41, 0x0F, 0x22, 0xC1], true, Instruction::MoveToCr0(9), 4);
        check(&[0x66, 0x0F, 0x01, 0xF0], false, Instruction::LoadMachineStatus(0), 4);
        check(&[0x0F, 0x06], true, Instruction::ClearTaskSwitched, 2);
        check(&[0xF4], false, Instruction::Halt, 1);
    }

    #[test]
    fn near_misses_are_not() {
        for (bytes, long) in [
            (&[0x0F, 0x01, 0xD9][..], true),   // VMMCALL
            (&[0xF2, 0x0F, 0x01, 0xD9], true), // the other prefix
            (&[0xF3, 0x0F, 0x01, 0xFF], true), // PSMASH
            (&[0xF2, 0x0F, 0x01, 0xFE], true), // RMPUPDATE
            (&[0xF3, 0x0F, 0x01, 0xFD], true), // RMPQUERY
            (&[0x48, 0x0F, 0x32], false),      // DEC EAX before RDMSR
            (&[0x44, 0x0F, 0x22, 0xC0], true), // MOV CR8, RAX
            (&[0x0F, 0x22, 0xD8], true),       // MOV CR3, RAX
            (&[0x0F, 0x01, 0x30], true),       // LMSW [RAX]
            (&[0x0F, 0x0B], true),             // UD2
            (&[0x0F], true),
            (&[], true),
        ] {
            check(bytes, long, Instruction::Other, 0);
        }
    }

    #[test]
    fn prefixes_end_at_the_longest_instruction() {
        let mut bytes = [0x66; MAX_BYTES + 1];
        bytes[14..].copy_from_slice(&[0x0F, 0x30]);
        check(&bytes, true, Instruction::Other, 0);
        check(&bytes[1..], true, Instruction::Wrmsr, 15);
    }

    #[test]
    fn no_input_is_too_odd() {
        use proptest::prelude::*;
        proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..20), long: bool)| {
            let decoded = decode(&bytes, long);
            prop_assert!(usize::from(decoded.bytes) <= bytes.len());
            prop_assert_eq!(decoded.bytes == 0, decoded.instruction == Instruction::Other);
        });
    }
}
