//! The state with which a further CPU starts (APM vol. 2, appendix B, table B-4): built by the guest, in its own memory.
//!
//! The CPU begins in long mode, on the first CPU's page tables and control registers, so that nothing that it relies on
//! is the host's to choose. What it runs under (`SEV_FEATURES`) is what the first CPU was launched and measured with.

/// Bytes of the page.
pub const BYTES: usize = 4096;

/// A table's base and limit, as LGDT and LIDT take them.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Address.
    pub base: u64,
    /// Bytes less one.
    pub limit: u32,
}

/// What a further CPU starts with.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// CR0, CR3 with the C-bit, CR4.
    pub control: [u64; 3],
    /// EFER; SVME is added, as VMRUN asks for it.
    pub efer: u64,
    /// XCR0; x87 alone if CR4.OSXSAVE is clear.
    pub xcr0: u64,
    /// `SEV_FEATURES`.
    pub features: u64,
    /// The page-attribute table.
    pub pat: u64,
    /// Base of FS, where stack canaries are read.
    pub fs: u64,
    /// The descriptor table. Its selector 8 is code, 16 is data.
    pub gdt: Table,
    /// The interrupt table.
    pub idt: Table,
    /// The task state, and its selector.
    pub task: (u16, Table),
    /// Where it begins, on which stack, and with which number in RDI.
    pub rip: u64,
    /// As the ABI has it behind a call.
    pub rsp: u64,
    /// First argument.
    pub rdi: u64,
}

const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
const SVME: u64 = 1 << 12;

impl Start {
    /// The page.
    pub fn page(&self) -> [u8; BYTES] {
        let mut page = [0; BYTES];
        let mut put = |at: usize, value: u64| page[at..at + 8].copy_from_slice(&value.to_le_bytes());
        // Bits 7:0 and 11:8 of the attributes are bits 47:40 and 55:52 of a descriptor (APM vol. 2, §15.5.1).
        let flat = Table { base: 0, limit: u32::MAX };
        for (at, selector, attributes, table) in [
            (0x00, DATA, 0xc93, flat),                       // ES
            (0x10, CODE, 0xa9b, flat),                       // CS
            (0x20, DATA, 0xc93, flat),                       // SS
            (0x30, DATA, 0xc93, flat),                       // DS
            (0x40, 0, 0, Table { base: self.fs, limit: 0 }), // FS
            (0x50, 0, 0, Table { base: 0, limit: 0 }),       // GS
            (0x60, 0, 0, self.gdt),                          // GDTR
            (0x70, 0, 0x082, Table { base: 0, limit: 0 }),   // LDTR
            (0x80, 0, 0, self.idt),                          // IDTR
            (0x90, self.task.0, 0x08b, self.task.1),         // TR
        ] {
            put(at, u64::from(table.limit) << 32 | attributes << 16 | u64::from(selector));
            put(at + 8, table.base);
        }
        // VMPL and CPL at 0xca and 0xcb are 0.
        put(0x0d0, self.efer | SVME);
        put(0x148, self.control[2]);
        put(0x150, self.control[1]);
        put(0x158, self.control[0]);
        put(0x160, 0x400); // DR7
        put(0x168, 0xffff_0ff0); // DR6
        put(0x170, 0x2); // RFLAGS: interrupts off
        put(0x178, self.rip);
        put(0x1d8, self.rsp);
        put(0x268, self.pat);
        put(0x338, self.rdi);
        put(0x3b0, self.features);
        put(0x3e8, self.xcr0);
        page[0x408..0x40c].copy_from_slice(&0x1f80_u32.to_le_bytes()); // MXCSR
        page[0x410..0x412].copy_from_slice(&0x037f_u16.to_le_bytes()); // x87 control word
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets as in Linux `arch/x86/include/asm/svm.h`, `struct sev_es_save_area`, which asserts them.
    #[test]
    fn a16_the_page_holds_what_was_asked_for_and_nothing_else() {
        let start = Start {
            control: [0x8001_0033, 1 << 51 | 0x30_0000, 0x4_0620],
            efer: 0xd00,
            xcr0: 0xe7,
            features: 1,
            pat: 0x0007_0406_0007_0406,
            fs: 0x5000,
            gdt: Table { base: 0x1000, limit: 0x417 },
            idt: Table { base: 0x2000, limit: 0xfff },
            task: (0x28, Table { base: 0x3000, limit: 103 }),
            rip: 0x20_0000,
            rsp: 0x7f_fff8,
            rdi: 3,
        };
        let page = start.page();
        let quad = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
        assert_eq!(quad(0x10), 0xffff_ffff_0a9b_0008, "64-bit code, ring 0");
        assert_eq!(quad(0x20), 0xffff_ffff_0c93_0010);
        assert_eq!((quad(0x40), quad(0x48)), (0, 0x5000));
        assert_eq!((quad(0x60), quad(0x68)), (0x417 << 32, 0x1000));
        assert_eq!((quad(0x80), quad(0x88)), (0xfff << 32, 0x2000));
        assert_eq!((quad(0x90), quad(0x98)), (103 << 32 | 0x8b << 16 | 0x28, 0x3000));
        assert_eq!(quad(0xd0), 0x1d00, "VMRUN refuses a state without SVME");
        assert_eq!([quad(0x158), quad(0x150), quad(0x148)], start.control);
        assert_eq!((quad(0x170), quad(0x178), quad(0x1d8)), (2, 0x20_0000, 0x7f_fff8));
        assert_eq!((quad(0x338), quad(0x3b0), quad(0x3e8)), (3, 1, 0xe7));
        assert_eq!(page[0xca..0xcc], [0, 0], "VMPL 0, ring 0");
        assert!(page[0x420..].iter().all(|byte| *byte == 0), "no vector registers, no event to inject");
    }
}
