# From the entry contract (32-bit protected mode, flat segments, paging off, interrupts off, everything private and
# validated where the image, the CPUID page and the manifest lie) to Rust in long mode.
#
# Nothing here may cause a #VC, because there is no IDT yet: no cpuid, no port, no device memory. The processor answers
# for SEV_STATUS and the GHCB MSR itself (APM vol. 2, §15.34.10 and §15.35.4), and KVM leaves EFER to an SNP guest
# (`sev_es_init_vmcb`). A host that intercepts it all the same, or injects anything here, finds no IDT: the vectors of the
# reset state lie at address 0, which is never validated, so the processor shuts the guest down.

.set MSR_EFER, 0xc0000080
.set MSR_FS_BASE, 0xc0000100
.set MSR_GHCB, 0xc0010130
.set MSR_SEV_STATUS, 0xc0010131

.set CPUID_PAGE, 0x100000
.set CPUID_PAGE_ENTRIES, 64
.set CPUID_ENTRY_BYTES, 48

.set PRESENT, 1
.set WRITABLE, 2
# High halves of table entries.
.set C_BIT, 1 << (51 - 32)
.set NO_EXECUTE, 1 << (63 - 32)

# GHCB termination request (GHCB rev. 2.03, §2.3.1) with the project's reason set.
.macro TERMINATE reason
    mov eax, 0x100 | ({reason_set} << 12) | (\reason << 16)
    xor edx, edx
    mov ecx, MSR_GHCB
    wrmsr
    rep vmmcall
    jmp halt32
.endm

    .section .text.entry, "ax", @progbits
    .code32
    .global entry32
entry32:
    cli
    cld
    lgdt [boot_gdt_pointer]
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, offset __stack_main_top

    # SEV, SEV-ES and SEV-SNP are all active, or nothing that follows is of any worth.
    mov ecx, MSR_SEV_STATUS
    rdmsr
    and eax, 7
    cmp eax, 7
    je find_c_bit
    TERMINATE {not_snp}

    # CPUID 0x8000001f EBX[5:0] is the C-bit's position, and these tables are for bit 51.
find_c_bit:
    mov esi, CPUID_PAGE
    mov ecx, [esi]
    cmp ecx, CPUID_PAGE_ENTRIES
    ja no_c_bit
    add esi, 16
next_leaf:
    test ecx, ecx
    jz no_c_bit
    cmp dword ptr [esi], 0x8000001f
    je leaf_found
    add esi, CPUID_ENTRY_BYTES
    dec ecx
    jmp next_leaf
leaf_found:
    mov eax, [esi + 28]
    and eax, 0x3f
    cmp eax, 51
    je build_tables
no_c_bit:
    TERMINATE {c_bit}

build_tables:
    # PML4[0] -> PDPT[0] -> page directory -> three page tables.
    mov edi, offset __tables
    lea eax, [edi + 0x1000 + PRESENT + WRITABLE]
    mov [edi], eax
    mov dword ptr [edi + 4], C_BIT
    lea eax, [edi + 0x2000 + PRESENT + WRITABLE]
    mov [edi + 0x1000], eax
    mov dword ptr [edi + 0x1004], C_BIT
    lea eax, [edi + 0x3000 + PRESENT + WRITABLE]
    xor ecx, ecx
1:  mov [edi + 0x2000 + ecx * 8], eax
    mov dword ptr [edi + 0x2004 + ecx * 8], C_BIT
    add eax, 0x1000
    inc ecx
    cmp ecx, 3
    jne 1b

    # The page tables are one array of entries, indexed by page number.
    add edi, 0x3000
    mov esi, offset boot_map
next_range:
    mov eax, [esi]
    mov ebx, [esi + 4]
    mov ecx, [esi + 8]
    mov edx, [esi + 12]
2:  cmp eax, ebx
    jae range_done
    mov ebp, eax
    shr ebp, 12
    or eax, ecx
    mov [edi + ebp * 8], eax
    mov [edi + ebp * 8 + 4], edx
    and eax, 0xfffff000
    add eax, 0x1000
    jmp 2b
range_done:
    add esi, 16
    cmp esi, offset boot_map_end
    jne next_range

    # Machine checks stay as they were (the VMSA enables them).
    mov eax, cr4
    and eax, {cr4_mce}
    or eax, {cr4}
    mov cr4, eax
    mov eax, offset __tables
    mov cr3, eax
    mov ecx, MSR_EFER
    rdmsr
    or eax, {efer}
    wrmsr
    # Caches on, write protection in ring 0 too.
    mov eax, {cr0}
    mov cr0, eax
    ljmp 0x08, offset entry64

halt32:
    hlt
    jmp halt32

    .code64
entry64:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov fs, eax
    mov gs, eax
    mov eax, 0x10
    mov ss, eax
    # CR3 could not hold the C-bit in 32-bit mode; page walks are private in any case (APM vol. 2, §15.34.5).
    mov rax, cr3
    bts rax, 51
    mov cr3, rax
    lea rsp, [rip + __stack_main_top]
    xor ebp, ebp
    # Stack canaries are read from FS:40 (`machine/stack.rs`). KVM leaves the register to every guest (`direct_access_msrs`).
    mov ecx, MSR_FS_BASE
    mov eax, offset {thread}
    xor edx, edx
    wrmsr
    call {start}
    ud2

    .section .rodata.boot, "a", @progbits
    .balign 8
    # The accessed bits are set, so the processor never writes here.
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
boot_gdt_pointer:
    .short 23
    .long boot_gdt

    .balign 8
    # First byte, end, low half and high half of the entries' flags. Later lines win.
boot_map:
    .long 0x100000, 0x102000, PRESENT | WRITABLE, C_BIT | NO_EXECUTE
    .long 0x180000, 0x190000, PRESENT, C_BIT | NO_EXECUTE
    .long __text_start, __text_end, PRESENT, C_BIT
    .long __text_end, __rodata_end, PRESENT, C_BIT | NO_EXECUTE
    .long __rodata_end, __image_end, PRESENT | WRITABLE, C_BIT | NO_EXECUTE
    .long __guard_main, __guard_main + 0x1000, 0, 0
    .long __guard_vc, __guard_vc + 0x1000, 0, 0
    .long __guard_double_fault, __guard_double_fault + 0x1000, 0, 0
    .long __guard_exceptions, __guard_exceptions + 0x1000, 0, 0
boot_map_end:
