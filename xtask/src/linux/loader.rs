//! A loader that does for Linux what firmware does: accepts memory, turns the MTRRs on, enters 64-bit mode, jumps.
//!
//! Linux takes MTRRs that are off for a sign that PAT must stay off as well, and then cannot map memory write-protected,
//! as it must to change pages in place between encrypted and not (`x86_has_pat_wp`): it would end itself.

/// Selector of the 64-bit code segment that the boot protocol asks for (`__BOOT_CS`).
const CODE64: u64 = 0x00af_9b00_0000_ffff;
/// Selector 0x18, `__BOOT_DS`.
const DATA: u64 = 0x00cf_9300_0000_ffff;

/// The page that the loader uses as GHCB.
pub const GHCB: u32 = 0x1_b000;
/// Where the first 2 MiB appear as shared memory, for the GHCB's sake; the code holds both numbers.
pub const SHARED_ALIAS: u32 = 0xc000_0000;
/// Where the loader's 64-bit code begins in it.
const ENTRY64: u32 = 0xb5;

/// Where the loader finds things.
pub struct Places {
    /// Its own guest-physical address.
    pub at: u32,
    /// Root of the page tables.
    pub page_tables: u32,
    /// End of its stack.
    pub stack: u32,
    /// The zero page of the boot protocol.
    pub boot_params: u32,
    /// The kernel's 64-bit entry point.
    pub kernel: u32,
}

/// The loader for 32-bit protected mode without paging, which accepts the memory in `ranges` page by page (start and
/// end). It stays in a loop if a page cannot be accepted, and the caller's patience ends.
pub fn code(places: &Places, ranges: &[(u32, u32)]) -> Vec<u8> {
    #[rustfmt::skip]
    let mut code: Vec<u8> = vec![
        0xfc, // entry32:     cld
        0xbf, 0, 0, 0, 0, //              mov edi, ranges
        0x8b, 0x2f, // next_range:  mov ebp,[edi]
        0x8b, 0x5f, 0x04, //              mov ebx,[edi+0x4]
        0x85, 0xdb, //              test ebx,ebx
        0x74, 0x46, //              je accepted
        0x39, 0xdd, // next_page:   cmp ebp,ebx
        0x73, 0x3b, //              jae range_done
        // Page-state change by MSR (GHCB §2.3.1): operation 1, private, in bits 55:52. Then PVALIDATE.
        0x89, 0xe8, //              mov eax,ebp
        0x83, 0xc8, 0x14, //              or eax,0x14
        0xba, 0x00, 0x00, 0x10, 0x00, //              mov edx,0x100000
        0xb9, 0x30, 0x01, 0x01, 0xc0, //              mov ecx,0xc0010130
        0x0f, 0x30, //              wrmsr
        0xf3, 0x0f, 0x01, 0xd9, //              vmgexit
        0x0f, 0x32, //              rdmsr
        0x83, 0xf8, 0x15, //              cmp eax,0x15
        0x75, 0x24, //              jne stay
        0x85, 0xd2, //              test edx,edx
        0x75, 0x20, //              jne stay
        0x89, 0xe8, //              mov eax,ebp
        0x31, 0xc9, //              xor ecx,ecx
        0xba, 0x01, 0x00, 0x00, 0x00, //              mov edx,0x1
        0xf2, 0x0f, 0x01, 0xff, //              pvalidate
        0x72, 0x11, //              jb stay
        0x85, 0xc0, //              test eax,eax
        0x75, 0x0d, //              jne stay
        0x81, 0xc5, 0x00, 0x10, 0x00, 0x00, //              add ebp,0x1000
        0xeb, 0xc1, //              jmp next_page
        0x83, 0xc7, 0x08, // range_done:  add edi,0x8
        0xeb, 0xb3, //              jmp next_range
        0xeb, 0xfe, // stay:        jmp stay
        // One page is shared (operation 2) and registered as GHCB (GHCB §2.3.1).
        0xb8, 0x14, 0xb0, 0x01, 0x00, // accepted:    mov eax,0x1b014
        0xba, 0x00, 0x00, 0x20, 0x00, //              mov edx,0x200000
        0xb9, 0x30, 0x01, 0x01, 0xc0, //              mov ecx,0xc0010130
        0x0f, 0x30, //              wrmsr
        0xf3, 0x0f, 0x01, 0xd9, //              vmgexit
        0xb8, 0x12, 0xb0, 0x01, 0x00, //              mov eax,0x1b012
        0x31, 0xd2, //              xor edx,edx
        0x0f, 0x30, //              wrmsr
        0xf3, 0x0f, 0x01, 0xd9, //              vmgexit
        0x0f, 0x32, //              rdmsr
        0x3d, 0x13, 0xb0, 0x01, 0x00, //              cmp eax,0x1b013
        0x75, 0xd3, //              jne stay
        0x0f, 0x01, 0x15, 0, 0, 0, 0, //              lgdt [gdt_pointer]
        0x0f, 0x20, 0xe0, //              mov eax,cr4
        0x83, 0xc8, 0x20, //              or eax,0x20
        0x0f, 0x22, 0xe0, //              mov cr4,eax
        0xb8, 0, 0, 0, 0, //              mov eax, page_tables
        0x0f, 0x22, 0xd8, //              mov cr3,eax
        0xb9, 0x80, 0x00, 0x00, 0xc0, //              mov ecx,0xc0000080
        0x0f, 0x32, //              rdmsr
        0x0d, 0x00, 0x01, 0x00, 0x00, //              or eax,0x100
        0x0f, 0x30, //              wrmsr
        0xb8, 0x31, 0x00, 0x00, 0x80, //              mov eax,0x80000031
        0x0f, 0x22, 0xc0, //              mov cr0,eax
        0xea, 0, 0, 0, 0, 0x10, 0x00, //              jmp 0x10:entry64
        0xb8, 0x18, 0x00, 0x00, 0x00, // entry64:     mov eax,0x18
        0x8e, 0xd8, //              mov ds,eax
        0x8e, 0xc0, //              mov es,eax
        0x8e, 0xd0, //              mov ss,eax
        0x0f, 0x20, 0xd8, //              mov rax,cr3
        0x48, 0x0f, 0xba, 0xe8, 0x33, //              bts rax,0x33
        0x0f, 0x22, 0xd8, //              mov cr3,rax
        // Event MSR_PROT, a write: MTRRdefType with MTRRs on, fixed ones too, default write-back.
        0xbb, 0x00, 0xb0, 0x01, 0xc0, //              mov ebx,0xc001b000
        0x48, 0x89, 0xdf, //              mov rdi,rbx
        0xb9, 0x00, 0x02, 0x00, 0x00, //              mov ecx,0x200
        0x31, 0xc0, //              xor eax,eax
        0xf3, 0x48, 0xab, //              rep stos Qes:[rdi],rax
        0xc7, 0x83, 0xf8, 0x01, 0x00, 0x00, 0x06, 0x0c, 0x00, 0x00, //              mov [rbx+0x1f8],0xc06
        0xc7, 0x83, 0x08, 0x03, 0x00, 0x00, 0xff, 0x02, 0x00, 0x00, //              mov [rbx+0x308],0x2ff
        0xc7, 0x83, 0x90, 0x03, 0x00, 0x00, 0x7c, 0x00, 0x00, 0x00, //              mov [rbx+0x390],0x7c
        0xc7, 0x83, 0x98, 0x03, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, //              mov [rbx+0x398],0x1
        0xc7, 0x83, 0xf4, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, //              mov [rbx+0x3f4],0x80000000
        0xc7, 0x83, 0xfc, 0x03, 0x00, 0x00, 0x06, 0x00, 0x1c, 0x00, //              mov [rbx+0x3fc],0x1c0006
        0x66, 0xc7, 0x83, 0xfa, 0x0f, 0x00, 0x00, 0x02, 0x00, //              mov [rbx+0xffa],0x2
        0xb8, 0x00, 0xb0, 0x01, 0x00, //              mov eax,0x1b000
        0x31, 0xd2, //              xor edx,edx
        0xb9, 0x30, 0x01, 0x01, 0xc0, //              mov ecx,0xc0010130
        0x0f, 0x30, //              wrmsr
        0xf3, 0x0f, 0x01, 0xd9, //              vmgexit
        0x83, 0xbb, 0x98, 0x03, 0x00, 0x00, 0x00, //              cmp [rbx+0x398],0x0
        0x75, 0xfe, // unserved:    jne unserved
        0xbc, 0, 0, 0, 0, //              mov esp, stack
        0xbe, 0, 0, 0, 0, //              mov esi, boot_params
        0xb8, 0, 0, 0, 0, //              mov eax, kernel
        0xff, 0xe0, //              jmp rax
    ];
    let entry64 = places.at + ENTRY64;
    code.resize(code.len().next_multiple_of(16), 0);
    let gdt = places.at + code.len() as u32;
    code.extend([0, 0, CODE64, DATA].map(u64::to_le_bytes).as_flattened());
    let gdt_pointer = places.at + code.len() as u32;
    code.extend(31u16.to_le_bytes());
    code.extend(gdt.to_le_bytes());
    code.extend([0; 2]);
    let list = places.at + code.len() as u32;
    for (start, end) in ranges.iter().chain([&(0, 0)]) {
        code.extend([*start, *end].map(u32::to_le_bytes).as_flattened());
    }
    for (offset, value) in [
        (0x02, list),
        (0x83, gdt_pointer),
        (0x91, places.page_tables),
        (0xaf, entry64),
        (0x13e, places.stack),
        (0x143, places.boot_params),
        (0x148, places.kernel),
    ] {
        code[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
    code
}
