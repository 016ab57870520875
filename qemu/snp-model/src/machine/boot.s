// From QEMU's PVH entry (32-bit, paging off, EBX = start info) to `model_main` in 64-bit mode.

.section .note.pvh, "a", @note
.balign 4
.long 4, 8, 18                  // name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
.asciz "Xen"
.quad pvh_start

.section .boot, "ax"
.code32
.global pvh_start
pvh_start:
    cli
    cld
    mov esp, offset stack_top
    mov ebp, ebx

    // Five levels, because a nested table has as many levels as the host's own and the C-bit is bit 51; SVM,
    // because all of it rests on that.
    mov eax, 7
    xor ecx, ecx
    cpuid
    bt ecx, 16                  // Fn0000_0007_ECX[LA57]
    jnc unfit
    mov eax, 0x80000001
    cpuid
    bt ecx, 2                   // Fn8000_0001_ECX[SVM]
    jnc unfit
    mov eax, 0x80000008
    cpuid
    cmp al, 52                  // physical address bits
    jne unfit

    // 512 GiB in pages of 1 GiB, at 0 and at the direct map.
    xor ecx, ecx
2:  mov eax, ecx
    shl eax, 30
    or eax, 0x83
    mov [early_pdpt + ecx*8], eax
    mov eax, ecx
    shr eax, 2
    mov [early_pdpt + ecx*8 + 4], eax
    inc ecx
    cmp ecx, 512
    jb 2b
    mov eax, offset early_pdpt
    or eax, 3
    mov [early_pml4], eax
    mov [early_pml4 + 256*8], eax
    mov eax, offset early_pml4
    or eax, 3
    mov [early_pml5], eax

    mov eax, 0x41620            // OSXSAVE | LA57 | OSXMMEXCPT | OSFXSR | PAE
    mov cr4, eax
    mov eax, offset early_pml5
    mov cr3, eax
    mov ecx, 0xC0000080         // EFER
    rdmsr
    or eax, 0x1900              // SVME | NXE | LME
    wrmsr
    mov eax, 0x80010033         // PG | WP | NE | ET | MP | PE
    mov cr0, eax
    lgdt [gdt_pointer]
    .byte 0xEA                  // far jump
    .long start64
    .word 0x08

unfit:
    mov esi, offset unfit_text
    mov edx, 0x3F8
3:  lodsb
    test al, al
    jz 4f
    out dx, al
    jmp 3b
4:  mov edx, 0xF4
    mov eax, 0x12
    out dx, eax
5:  hlt
    jmp 5b
unfit_text:
    .asciz "snp-model: internal: this virtual CPU has no SVM, no 5-level paging or not 52 address bits; start QEMU with -cpu max,+svm,phys-bits=52,+la57\n"

.code64
start64:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    mov rsp, offset stack_top
    mov edi, ebp
    xor ebp, ebp
    call model_main
    ud2

.balign 8
gdt:
    .quad 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
gdt_pointer:
    .word 23
    .quad gdt

// Another CPU starts here in real mode (STARTUP IPI), in a page below 1 MiB to which `cpus` copies this. The page
// after it is a copy of the top page table, because CR3 has only 32 bits before long mode.
.section .rodata
.code16
.global trampoline
trampoline:
    cli
    cld
    mov ax, cs
    mov ds, ax
    .byte 0x66, 0x0F, 0x01, 0x16            // lgdtl [gdt_pointer16]
    .word gdt_pointer16 - trampoline
    mov eax, 0x41620
    mov cr4, eax
    xor eax, eax
    mov ax, cs
    shl eax, 4
    add eax, 0x1000
    mov cr3, eax
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x1900
    wrmsr
    mov eax, 0x80010033
    mov cr0, eax
    .byte 0x66, 0xEA                        // far jump
    .long cpu_start64
    .word 0x08
gdt_pointer16:
    .word 23
    .long gdt
.global trampoline_end
trampoline_end:

// EDI is the CPU's number. The stack and the real top page table are what `cpus::start` says.
.section .boot, "ax"
.code64
cpu_start64:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    mov rax, [NEXT_CPU_ROOT]
    mov cr3, rax
    mov rsp, [NEXT_CPU_STACK]
    mov rdi, [NEXT_CPU]
    xor ebp, ebp
    call model_cpu
    ud2

// fn svm_run(vmcb: rdi, registers: rsi, fpu: rdx)
//
// Guest FS, GS, TR, LDTR and the system-call MSRs stay in the processor from the first VMLOAD on: this
// program uses none of them. It does use vector registers: FXSAVE keeps the guest's XMM whatever XCR0 says,
// XSAVE the upper halves of YMM if XCR0, which VMRUN does not switch, enables them. TCG has no larger
// vectors.
//
// RFLAGS.IF is 1 from before VMRUN, so that an interrupt of the machine ends the guest's turn whatever the guest's own
// flag says (APM §15.21.1), and it is taken between STGI and CLI.
.section .text.svm_run, "ax"
.global svm_run
svm_run:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdx
    push rsi
    fxrstor64 [rdx]
    lea rcx, [rdx + 512]
    mov eax, 4                  // AVX; nothing happens where XCR0 lacks it
    xor edx, edx
    xrstor64 [rcx]
    mov rax, rdi
    mov rbx, [rsi + 0x18]
    mov rcx, [rsi + 0x08]
    mov rdx, [rsi + 0x10]
    mov rbp, [rsi + 0x28]
    mov rdi, [rsi + 0x38]
    mov r8,  [rsi + 0x40]
    mov r9,  [rsi + 0x48]
    mov r10, [rsi + 0x50]
    mov r11, [rsi + 0x58]
    mov r12, [rsi + 0x60]
    mov r13, [rsi + 0x68]
    mov r14, [rsi + 0x70]
    mov r15, [rsi + 0x78]
    mov rsi, [rsi + 0x30]
    clgi
    sti
    nop                         // ends STI's shadow, which TCG would carry into the guest
    vmrun rax
    stgi
    nop
    cli
    xchg rsi, [rsp]
    mov [rsi + 0x18], rbx
    mov [rsi + 0x08], rcx
    mov [rsi + 0x10], rdx
    mov [rsi + 0x28], rbp
    mov [rsi + 0x38], rdi
    mov [rsi + 0x40], r8
    mov [rsi + 0x48], r9
    mov [rsi + 0x50], r10
    mov [rsi + 0x58], r11
    mov [rsi + 0x60], r12
    mov [rsi + 0x68], r13
    mov [rsi + 0x70], r14
    mov [rsi + 0x78], r15
    pop rax
    mov [rsi + 0x30], rax
    pop rdx
    fxsave64 [rdx]
    lea rcx, [rdx + 512]
    mov eax, 4
    xor edx, edx
    xsave64 [rcx]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

// Exceptions of the model itself: every stub leaves (vector, error code) above the frame. Then the
// interrupt by which one CPU asks another to look up.
.section .text.traps, "ax"
.altmacro
.macro trap_stub vector
    .balign 16
    .if (\vector == 8) || (\vector >= 10 && \vector <= 14) || (\vector == 17) || (\vector == 21) || (\vector == 29) || (\vector == 30)
    .else
    push 0
    .endif
    push \vector
    jmp trap_common
.endm
.balign 16
.global trap_stubs
trap_stubs:
.set vector, 0
.rept 32
    trap_stub %vector
    .set vector, vector + 1
.endr
trap_common:
    mov rdi, rsp
    cld
    and rsp, -16
    call model_trap
    ud2
// Interrupts of the guest's devices, and the timer: the vector's bit is set among those that arrived at this CPU.
.balign 16
.global device_stubs
device_stubs:
.set vector, 32
.rept 224
    .balign 16
    push vector
    jmp device_common
    .set vector, vector + 1
.endr
device_common:
    push rax
    push rcx
    push rdx
    mov rdx, 0x8000FEE00000     // the local APIC, through the direct map
    mov eax, [rdx + 0x20]       // its id, in bits 31:24
    shr eax, 24
    shl eax, 5
    mov ecx, [rsp + 24]
    lock bts dword ptr [rax + ARRIVED], ecx
    xor eax, eax
    mov [rdx + 0xB0], eax       // end of interrupt
    pop rdx
    pop rcx
    pop rax
    add rsp, 8
    iretq
.balign 16
.global kick_stub
kick_stub:
    push rax
    push rdx
    mov rdx, 0x8000FEE000B0     // end of interrupt, through the direct map
    xor eax, eax
    mov [rdx], eax
    pop rdx
    pop rax
    iretq

.section .bss
.balign 4096
early_pdpt: .skip 4096
early_pml4: .skip 4096
early_pml5: .skip 4096
.global stack_guard
stack_guard: .skip 4096
.skip 262144
stack_top:
