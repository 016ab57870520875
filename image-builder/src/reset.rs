//! The ROM's only code: from the reset vector to the kernel's entry point.
//!
//! It runs before the guest can handle `#VC`, so it holds no instruction that SNP intercepts: no CPUID, no port I/O,
//! no MSR. It touches only the ROM and pages that are validated at launch. The first vCPU starts as its VMSA says (KVM
//! `init_vmcb`, APM volume 2 §14.1): real mode, CS base 0xFFFF0000, IP 0xFFF0, interrupts off, EAX and direction flag 0.

use crate::layout::{CODE32, DATA, ENTRY_STACK_PAGE, PAGE};

/// CR0.PE and CR0.ET.
const CR0_PROTECTED: u32 = 0x11;
/// Base, limit 4 GiB, accessed (so that the processor need not write to the ROM), ring 0.
const FLAT_CODE32: u64 = 0x00CF_9B00_0000_FFFF;
const FLAT_DATA: u64 = 0x00CF_9300_0000_FFFF;
/// CS base of the first vCPU: 16-bit code and what it refers to lie in the last 64 KiB.
const REAL_MODE_BASE: u32 = 0xFFFF_0000;

/// The boot code and where its parts are.
pub struct BootCode {
    /// The bytes, from the address that was asked for.
    pub bytes: Vec<u8>,
    /// Where the reset vector must jump.
    pub start16: u32,
    /// Where vCPUs that have not been asked for stay.
    pub parked: u32,
}

/// The boot code for address `at`: copies what `copy_table` lists and jumps to `entry`.
///
/// A table entry is three `u32`: source, destination, bytes (a multiple of 4); a length of 0 ends the table.
pub fn boot_code(at: u32, copy_table: u32, entry: u32) -> BootCode {
    let mut code = Code { at, bytes: Vec::new() };

    let gdt = code.here();
    for descriptor in [0, FLAT_CODE32, FLAT_DATA] {
        code.put(&descriptor.to_le_bytes());
    }
    let gdt_limit = (code.here() - gdt - 1) as u16;
    let gdt_pointer = code.here();
    code.put(&gdt_limit.to_le_bytes()).word(gdt);

    // 32-bit protected mode, paging off: every access is to private memory.
    let start32 = code.here();
    code.put(&[0xb8]).word(DATA.into()); //                       mov eax, DATA
    code.put(&[0x8e, 0xd8]); //                                   mov ds, ax
    code.put(&[0x8e, 0xc0]); //                                   mov es, ax
    code.put(&[0x8e, 0xd0]); //                                   mov ss, ax
    code.put(&[0xbc]).word(ENTRY_STACK_PAGE + PAGE); //           mov esp, ENTRY_STACK_PAGE + PAGE
    code.put(&[0xbb]).word(copy_table); //                        mov ebx, copy_table
    let next = code.here(); //                                  next:
    code.put(&[0x8b, 0x4b, 0x08]); //                             mov ecx, [ebx + 8]
    code.put(&[0xe3]); //                                         jecxz enter
    let to_enter = code.short_forward();
    code.put(&[0x8b, 0x33]); //                                   mov esi, [ebx]
    code.put(&[0x8b, 0x7b, 0x04]); //                             mov edi, [ebx + 4]
    code.put(&[0xc1, 0xe9, 0x02]); //                             shr ecx, 2
    code.put(&[0xf3, 0xa5]); //                                   rep movsd
    code.put(&[0x83, 0xc3, 0x0c]); //                             add ebx, 12
    code.put(&[0xeb]).short(next); //                             jmp next
    code.land(to_enter); //                                     enter:
    code.put(&[0xb8]).word(entry); //                             mov eax, entry
    code.put(&[0xff, 0xe0]); //                                   jmp eax

    // 16-bit real mode.
    let start16 = code.here();
    code.put(&[0x2e, 0x66, 0x0f, 0x01, 0x16]); //                 lgdt cs:[gdt_pointer]
    code.put(&((gdt_pointer - REAL_MODE_BASE) as u16).to_le_bytes());
    code.put(&[0x66, 0xb8]).word(CR0_PROTECTED); //               mov eax, CR0_PROTECTED
    code.put(&[0x0f, 0x22, 0xc0]); //                             mov cr0, eax
    code.put(&[0x66, 0xea]).word(start32); //                     jmp CODE32:start32
    code.put(&CODE32.to_le_bytes());

    // Nobody starts further vCPUs here but a host that breaks the rules: the kernel gives its own a VMSA.
    let parked = code.here();
    code.put(&[0xeb]).short(parked); //                           jmp parked

    BootCode { bytes: code.bytes, start16, parked }
}

/// The 16 bytes at the end of the ROM: a jump to `start16`, from CS:0xFFF0.
pub fn reset_vector(start16: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    let after_jump = 0xfff3u16;
    let distance = ((start16 - REAL_MODE_BASE) as u16).wrapping_sub(after_jump);
    bytes[0] = 0xe9; //                                           jmp start16
    bytes[1..3].copy_from_slice(&distance.to_le_bytes());
    bytes
}

/// Code under construction at a fixed address.
struct Code {
    at: u32,
    bytes: Vec<u8>,
}

impl Code {
    fn here(&self) -> u32 {
        self.at + self.bytes.len() as u32
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn word(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    /// The 8-bit distance to `target`, counted from after the distance itself.
    fn short(&mut self, target: u32) -> &mut Self {
        let distance = target.wrapping_sub(self.here() + 1) as i32;
        debug_assert!(i8::try_from(distance).is_ok());
        self.put(&[distance as u8])
    }

    /// Leaves room for an 8-bit distance to a place that [`Code::land`] gives.
    fn short_forward(&mut self) -> usize {
        self.put(&[0]);
        self.bytes.len() - 1
    }

    fn land(&mut self, distance: usize) {
        self.bytes[distance] = (self.bytes.len() - distance - 1) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};

    const AT: u32 = 0xffff_f100;
    const TABLE: u32 = 0xffff_f000;
    const ENTRY: u32 = 0x20_0040;

    fn listing(bits: u32, bytes: &[u8], address: u32) -> Vec<String> {
        let mut formatter = NasmFormatter::new();
        Decoder::with_ip(bits, bytes, address.into(), DecoderOptions::NONE)
            .iter()
            .map(|instruction| {
                let mut text = format!("{:x} ", instruction.ip());
                formatter.format(&instruction, &mut text);
                text
            })
            .collect()
    }

    #[test]
    fn the_processor_reads_what_the_comments_say() {
        let code = boot_code(AT, TABLE, ENTRY);
        let gdt = 24 + 6;
        let start16 = (code.start16 - AT) as usize;
        let parked = (code.parked - AT) as usize;
        assert_eq!(
            listing(32, &code.bytes[gdt..start16], AT + gdt as u32),
            [
                "fffff11e mov eax,10h",
                "fffff123 mov ds,eax",
                "fffff125 mov es,eax",
                "fffff127 mov ss,eax",
                "fffff129 mov esp,103000h",
                "fffff12e mov ebx,0FFFFF000h",
                "fffff133 mov ecx,[ebx+8]",
                "fffff136 jecxz 0FFFFF147h",
                "fffff138 mov esi,[ebx]",
                "fffff13a mov edi,[ebx+4]",
                "fffff13d shr ecx,2",
                "fffff140 rep movsd",
                "fffff142 add ebx,0Ch",
                "fffff145 jmp short 0FFFFF133h",
                "fffff147 mov eax,200040h",
                "fffff14c jmp eax",
            ]
        );
        let in_segment = code.start16 - REAL_MODE_BASE;
        assert_eq!(
            listing(16, &code.bytes[start16..parked], in_segment),
            [
                "f14e o32 lgdt [cs:0F118h]",
                "f155 mov eax,11h",
                "f15b mov cr0,eax",
                "f15e jmp dword 8:0FFFFF11Eh",
            ]
        );
        let in_segment = code.parked - REAL_MODE_BASE;
        assert_eq!(listing(16, &code.bytes[parked..], in_segment), ["f166 jmp short 0F166h"]);
        assert_eq!(listing(16, &reset_vector(code.start16)[..3], 0xfff0), ["fff0 jmp 0F14Eh"]);
    }

    #[test]
    fn the_gdt_pointer_names_the_gdt() {
        let code = boot_code(AT, TABLE, ENTRY);
        assert_eq!(code.bytes[24..26], 23u16.to_le_bytes());
        assert_eq!(code.bytes[26..30], AT.to_le_bytes());
        assert_eq!(code.bytes[usize::from(CODE32)..][..8], FLAT_CODE32.to_le_bytes());
        assert_eq!(code.bytes[usize::from(DATA)..][..8], FLAT_DATA.to_le_bytes());
    }
}
