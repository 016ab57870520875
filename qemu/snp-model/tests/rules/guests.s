// Small guests, each of which keeps or breaks the rules in one way. AT&T syntax, because it leaves no doubt
// about what is a number and what is an address. The bytes are never run in this process: the test copies
// them to the ROM at 0xFFFFE000.

.set ROM, 0xFFFFC000
.set WORK, 0x102000             // 64 KiB that the ROM's metadata asks for
.set STACK, WORK + 0x1000
.set PML4, WORK + 0x1000
.set PDPT, WORK + 0x2000
.set PD_PRIVATE, WORK + 0x3000
.set PD_SHARED, WORK + 0x4000
.set PD_ROM, WORK + 0x5000
.set TSS, WORK + 0x6000
.set GDT, WORK + 0x6800
.set IDT, WORK + 0x7000
.set VC_STACK, WORK + 0x9000
.set VC_ERROR, WORK + 0x9000    // what the handler saw
.set VC_RSP, WORK + 0x9008
.set VC_ADVANCE, WORK + 0x9010  // bytes to skip, or 0 to map the page at CR2
.set VC_CR2, WORK + 0x9018
.set VMSA, WORK + 0xA000
.set AP_STACK, WORK + 0xC000
.set AP_COUNT, WORK + 0xC000    // what the second CPU counts
.set C_HIGH, 1 << (51 - 32)
.set SHARED, 0x40000000         // 1 GiB up, memory is mapped without the C-bit

.macro address of, to
    movl $(ROM + \of - guests), \to
.endm

// GHCB MSR protocol; the answer is in EDX:EAX.
.macro exchange low, high
    movl $0xC0010130, %ecx
    movl $(\low), %eax
    movl $(\high), %edx
    wrmsr
    .byte 0xF3, 0x0F, 0x01, 0xD9
    rdmsr
.endm

.macro terminate set, code
    exchange (0x100 | \set << 12 | \code << 16), 0
.endm

.macro change page, operation
    exchange (\page | 0x014), (\operation << 20)
.endm

.macro pvalidate page, size, validate
    movl $\page, %eax
    movl $\size, %ecx
    movl $\validate, %edx
    .byte 0xF2, 0x0F, 0x01, 0xFF
.endm

.macro rmpadjust page, attributes
    movl $\page, %eax
    xorl %ecx, %ecx
    movl $\attributes, %edx
    .byte 0xF3, 0x0F, 0x01, 0xFE
.endm

// The next event's fields besides code and information: bits of the two halves of the valid bitmap.
.set LOW_RAX, 1 << 63
.set LOW_CPL, 1 << 25
.set HIGH_RCX, 1 << 33
.set HIGH_RDX, 1 << 34
.set HIGH_SCRATCH, 1 << 53
.macro fields low, high
    movabsq $(\low), %r13
    movabsq $(\high), %r14
.endm

// Event by the GHCB at 0x400000 with 64-bit information; RBP is its shared address.
.macro wide_event code, info_1, info_2
    movabsq $\info_1, %rbx
    movabsq $\info_2, %rcx
    movl $\code, %eax
    call event_wide
.endm

.macro write_msr msr, high, low
    movq $\msr, 0x308(%rbp)
    movq $\high, 0x310(%rbp)
    movl $\low, %eax
    movq %rax, 0x1F8(%rbp)
    fields LOW_RAX, HIGH_RCX | HIGH_RDX
    wide_event 0x7C, 1, 0
.endm

.macro out port, value
    movl $\value, %eax
    movq %rax, 0x1F8(%rbp)
    fields LOW_RAX, 0
    wide_event 0x7B, (\port << 16 | 0x40), 0
.endm

// Configuration space of device 5 on bus 0.
.macro configure register, value
    out 0xCF8, (0x80002800 | \register)
    out 0xCFC, \value
.endm

.macro create apic_id, request, vmsa, features
    movq $\features, 0x1F8(%rbp)
    fields LOW_RAX, 0
    wide_event 0x80000013, (\apic_id << 32 | \request), \vmsa
.endm

.macro wake apic_id
    movq $5, 0x1F8(%rbp)
    movq $\apic_id, 0x308(%rbp)
    fields LOW_RAX | LOW_CPL, HIGH_RCX
    wide_event 0x81, 0, 0
.endm

.macro wait_for count
1:  pause
    cmpl $\count, AP_COUNT
    jne 1b
.endm

.pushsection .rodata.guests, "a"
.balign 8
.globl guests
guests:
scenario_pointer:
    .long 0                     // the test puts a scenario's address here
.balign 8
boot_gdt:
    .quad 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00AF9B000000FFFF
boot_gdt_pointer:
    .word 31
    .long ROM + boot_gdt - guests

.code16
.globl guests_start16
guests_start16:
    lgdtl %cs:(ROM - 0xFFFF0000 + boot_gdt_pointer - guests)
    movl $0x11, %eax
    movl %eax, %cr0
    ljmpl $0x08, $(ROM + start32 - guests)

.code32
start32:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $STACK, %esp
    address scenario_pointer, %eax
    jmpl *(%eax)

// ---- one rule each, paging off ----

.globl asks_to_be_ended
asks_to_be_ended:
    terminate 3, 7

.globl touches_what_the_hypervisor_owns
touches_what_the_hypervisor_owns:
    movl $1, 0x300000

.globl touches_what_it_did_not_validate
touches_what_it_did_not_validate:
    change 0x300000, 1
    movl $1, 0x300000

.globl validates_what_it_does_not_own
validates_what_it_does_not_own:
    pvalidate 0x300000, 0, 1

.globl validates_twice
validates_twice:
    change 0x300000, 1
    pvalidate 0x300000, 0, 1
    pvalidate 0x300000, 0, 1

.globl shares_what_is_still_valid
shares_what_is_still_valid:
    change 0x300000, 1
    pvalidate 0x300000, 0, 1
    change 0x300000, 2

.globl uses_a_ghcb_it_did_not_register
uses_a_ghcb_it_did_not_register:
    change 0x300000, 2
    exchange 0x300000, 0

.globl registers_a_private_ghcb
registers_a_private_ghcb:
    exchange (WORK | 0x012), 0

.globl speaks_an_unknown_protocol
speaks_an_unknown_protocol:
    exchange 0x0FF, 0

.globl has_no_handler
has_no_handler:
    cpuid

// ---- #VC in 32-bit code ----

.globl handles_vc_in_32_bit_code
handles_vc_in_32_bit_code:
    address vc_handler_32, %eax
    movw %ax, IDT + 29 * 8
    movw $0x08, IDT + 29 * 8 + 2
    movw $0x8E00, IDT + 29 * 8 + 4
    shrl $16, %eax
    movw %ax, IDT + 29 * 8 + 6
    pushl $IDT
    pushw $(30 * 8 - 1)
    lidtl (%esp)
    movl $STACK, %esp
    cpuid
    cmpl $0x72, %ebx
    jne 1f
    terminate 0, 0x55
1:  terminate 1, 1
vc_handler_32:
    popl %ebx
    addl $2, (%esp)
    iretl

// ---- everything that a well-behaved 64-bit guest does ----

.globl keeps_the_rules
keeps_the_rules:
    call enter_long_mode
.code64
    // 1: SEV_STATUS.
    movl $1, %r15d
    movl $0xC0010131, %ecx
    rdmsr
    cmpl $7, %eax
    jne failed
    // 2: #VC for CPUID, on its IST stack.
    movl $2, %r15d
    movq $2, VC_ADVANCE
    cpuid
    cmpq $0x72, VC_ERROR
    jne failed
    cmpq $(VC_STACK - 48), VC_RSP
    jne failed
    // 3: #VC for IN and RDMSR.
    movl $3, %r15d
    movq $1, VC_ADVANCE
    inb %dx, %al
    cmpq $0x7B, VC_ERROR
    jne failed
    movq $2, VC_ADVANCE
    movl $0x1B, %ecx
    rdmsr
    cmpq $0x7C, VC_ERROR
    jne failed
    // 4: vector registers survive an exit.
    movl $4, %r15d
    movq %cr4, %rax
    orl $0x40600, %eax
    movq %rax, %cr4
    xorl %ecx, %ecx
    xorl %edx, %edx
    movl $7, %eax
    xsetbv
    vpcmpeqd %ymm3, %ymm3, %ymm3
    vpsrlq $3, %ymm3, %ymm3
    vmovdqa %ymm3, %ymm4
    exchange 0x002, 0
    vpcmpeqq %ymm3, %ymm4, %ymm4
    vpmovmskb %ymm4, %eax
    cmpl $-1, %eax
    jne failed
    // 5: the GHCB is shared and registered.
    movl $5, %r15d
    call open_ghcb
    // 6: an event that does not exist.
    movl $6, %r15d
    movl $0x12345, %eax
    xorl %ebx, %ebx
    xorl %ecx, %ecx
    call event
    cmpq $2, 0x398(%rbp)
    jne failed
    cmpq $6, 0x3A0(%rbp)
    jne failed
    // 7: OUT to the event port, then the PCI host bridge's identity by ports.
    movl $7, %r15d
    movq $'A', 0x1F8(%rbp)
    fields LOW_RAX, 0
    movl $0x7B, %eax
    movl $0x00E90010, %ebx
    call event
    cmpq $0, 0x398(%rbp)
    jne failed
    movl $0x80000000, %eax
    movq %rax, 0x1F8(%rbp)
    fields LOW_RAX, 0
    movl $0x7B, %eax
    movl $0x0CF80040, %ebx
    call event
    movl $0x7B, %eax
    movl $0x0CFC0041, %ebx
    call event
    cmpl $0x29C08086, 0x1F8(%rbp)
    jne failed
    btl $31, 0x3F4(%rbp)        // RAX is quadword 63
    jnc failed
    // Two bytes at once, by string I/O: OUTS of the scratch area. It must be marked valid and lie where it may.
    movw $0x4342, 0x800(%rbp)
    movl $0x400800, %eax
    movq %rax, 0x3A8(%rbp)
    fields 0, HIGH_SCRATCH
    wide_event 0x7B, 0x00E9001C, 2
    cmpq $0, 0x398(%rbp)
    jne failed
    fields 0, HIGH_SCRATCH
    wide_event 0x7B, 0x00E9001C, 0x800
    cmpq $2, 0x398(%rbp)
    jne failed
    cmpq $3, 0x3A0(%rbp)
    jne failed
    // 8: device memory where there is no device.
    movl $8, %r15d
    movl $0x400800, %eax
    movq %rax, 0x3A8(%rbp)
    fields 0, HIGH_SCRATCH
    movl $0x80000001, %eax
    movl $0x90000000, %ebx
    movl $4, %ecx
    call event
    cmpl $-1, 0x800(%rbp)
    jne failed
    // 9: 2 MiB become private and valid in one step.
    movl $9, %r15d
    movq $0, 0x800(%rbp)
    movabsq $(1 << 56 | 1 << 52 | 0x600000), %rax
    movq %rax, 0x808(%rbp)
    movl $0x400800, %eax
    movq %rax, 0x3A8(%rbp)
    fields 0, HIGH_SCRATCH
    movl $0x80000010, %eax
    xorl %ebx, %ebx
    xorl %ecx, %ecx
    call event
    cmpq $0, 0x3A0(%rbp)
    jne failed
    cmpw $1, 0x800(%rbp)
    jne failed
    pvalidate 0x600000, 1, 1
    jc failed
    testl %eax, %eax
    jnz failed
    movl $0x1234, 0x601000
    movl $0x5678, 0x602000
    // 10: rescinding 4 KiB of it splits it; that page is gone and its neighbours stay.
    movl $10, %r15d
    pvalidate 0x601000, 0, 0
    jc failed
    cmpl $0x5678, 0x602000
    jne failed
    movq $0, VC_ADVANCE
    movl 0x601000, %eax         // the handler validates it again
    cmpq $0x404, VC_ERROR
    jne failed
    cmpq $0x601000, VC_CR2
    jne failed
    pvalidate 0x600000, 1, 0
    cmpl $6, %eax
    jne failed
    // 11: memory goes back and forth between guest and host, and other bytes show on each side.
    movl $11, %r15d
    movl $0x1111, SHARED + 0x400FE0
    pvalidate 0x603000, 0, 0
    jc failed
    change 0x603000, 2
    movl $0x2222, SHARED + 0x603000
    change 0x603000, 1
    pvalidate 0x603000, 0, 1
    jc failed
    movl $0x3333, 0x603000
    cmpl $0x1111, SHARED + 0x400FE0
    jne failed
    // 12: page-state changes that cannot be are refused: no memory, no such operation, a list without end.
    movl $12, %r15d
    change 0xA0000, 1
    testl %edx, %edx
    jz failed
    change 0x604000, 7
    testl %edx, %edx
    jz failed
    movl $0x00FD0000, 0x800(%rbp)
    fields 0, HIGH_SCRATCH
    movl $0x80000010, %eax
    xorl %ebx, %ebx
    xorl %ecx, %ecx
    call event
    movabsq $(1 << 32 | 1), %rax
    cmpq %rax, 0x3A0(%rbp)
    jne failed
    // 13: the AMD-SP refuses a message that is none, and the guest lives on.
    movl $13, %r15d
    change 0x401000, 2
    change 0x402000, 2
    movl $0x80000011, %eax
    movl $0x401000, %ebx
    movl $0x402000, %ecx
    call event
    cmpq $0, 0x398(%rbp)
    jne failed
    cmpq $0, 0x3A0(%rbp)
    je failed
    // 14: there is no second vCPU to create.
    movl $14, %r15d
    create 1, 1, VMSA, 1
    cmpq $2, 0x398(%rbp)
    jne failed
    // 15: HLT makes no #VC, and does not wait if the wake-up came first; there is no other hypercall.
    movl $15, %r15d
    movq $0, VC_ERROR
    wake 0
    cmpq $0, 0x1F8(%rbp)
    jne failed
    hlt
    cmpq $0, VC_ERROR
    jne failed
    movq $1, 0x1F8(%rbp)
    fields LOW_RAX | LOW_CPL, 0
    wide_event 0x81, 0, 0
    cmpq $-1000, 0x1F8(%rbp)
    jne failed
    terminate 0, 0x55
failed:
    movl %r15d, %eax
    shll $16, %eax
    orl $0x1100, %eax
    xorl %edx, %edx
    movl $0xC0010130, %ecx
    wrmsr
    .byte 0xF3, 0x0F, 0x01, 0xD9

// The GHCB at 0x400000 is shared and registered; RBP is its shared address.
open_ghcb:
    change 0x400000, 2
    testl %edx, %edx
    jnz failed
    exchange 0x400012, 0
    cmpl $0x400013, %eax
    jne failed
    movl $0xC0010130, %ecx
    movl $0x400000, %eax
    xorl %edx, %edx
    wrmsr
    movl $(SHARED + 0x400000), %ebp
    movw $2, 0xFFA(%rbp)
    fields 0, 0
    ret

// EAX is the event, EBX and ECX its information, R13 and R14 its further fields, which are none the next time.
event:
    movl %ebx, %ebx
    movl %ecx, %ecx
event_wide:
    movl %eax, %eax
    movq %rax, 0x390(%rbp)
    movq %rbx, 0x398(%rbp)
    movq %rcx, 0x3A0(%rbp)
    movq %r13, 0x3F0(%rbp)
    movabsq $(7 << 50), %rax
    orq %r14, %rax
    movq %rax, 0x3F8(%rbp)
    fields 0, 0
    movl $0xC0010130, %ecx
    movl $0x400000, %eax
    xorl %edx, %edx
    wrmsr
    .byte 0xF3, 0x0F, 0x01, 0xD9
    ret

vc_handler_64:
    movq %rsp, VC_RSP
    popq VC_ERROR
    pushq %rax
    movq VC_ADVANCE, %rax
    addq %rax, 8(%rsp)
    testq %rax, %rax
    jnz 1f
    pushq %rcx
    pushq %rdx
    movq %cr2, %rax
    movq %rax, VC_CR2
    xorl %ecx, %ecx
    movl $1, %edx
    .byte 0xF2, 0x0F, 0x01, 0xFF
    popq %rdx
    popq %rcx
1:  popq %rax
    iretq

// ---- a second CPU ----

.macro starts_a_second_cpu name
.globl \name
.code32
\name:
    call enter_long_mode
.code64
    call open_ghcb
    call fill_vmsa
.endm

.globl runs_a_second_cpu
.code32
runs_a_second_cpu:
    call enter_long_mode
.code64
    call open_ghcb
    call fill_vmsa
    // 1: what KVM refuses: no such vCPU, other features, the beginning of 2 MiB, no such request.
    movl $1, %r15d
    create 9, 1, VMSA, 1
    cmpq $2, 0x398(%rbp)
    jne failed
    cmpq $5, 0x3A0(%rbp)
    jne failed
    create 1, 1, VMSA, 3
    cmpq $2, 0x398(%rbp)
    jne failed
    create 1, 1, 0x200000, 1
    cmpq $2, 0x398(%rbp)
    jne failed
    create 1, 3, VMSA, 1
    cmpq $2, 0x398(%rbp)
    jne failed
    // 2: it runs, and counts.
    movl $2, %r15d
    rmpadjust VMSA, 0x10001
    testl %eax, %eax
    jnz failed
    create 1, 1, VMSA, 1
    cmpq $0, 0x398(%rbp)
    jne failed
    wait_for 1
    // 3: it sleeps until it is woken, each time.
    movl $3, %r15d
    wake 1
    wait_for 2
    wake 1
    wait_for 3
    // 4: its VMSA is in use.
    movl $4, %r15d
    rmpadjust VMSA, 1
    cmpl $3, %eax
    jne failed
    // 5: what one CPU rescinds, the other loses at once, although it has used it before.
    movl $5, %r15d
    change 0x600000, 1
    pvalidate 0x600000, 0, 1
    movq $0, VC_ERROR
    movq $0, VC_ADVANCE
    wake 1
    wait_for 4
    movl 0x600000, %ecx
2:  cmpl 0x600000, %ecx
    je 2b
    pvalidate 0x600000, 0, 0
    jc failed
2:  pause
    cmpq $0x404, VC_ERROR
    jne 2b
    wait_for 5
    // 6: it is stopped, its VMSA is memory again and holds its state, and from there it goes on.
    movl $6, %r15d
    create 1, 2, 0, 1
    cmpq $0, 0x398(%rbp)
    jne failed
2:  pause
    rmpadjust VMSA, 1
    cmpl $3, %eax
    je 2b
    testl %eax, %eax
    jnz failed
    cmpl $5, VMSA + 0x308       // RCX
    jne failed
    rmpadjust VMSA, 0x10001
    create 1, 1, VMSA, 1
    wait_for 6
    terminate 0, 0x55

// A CPU that is created for an INIT, and gets one.
starts_a_second_cpu starts_a_cpu_by_init
    rmpadjust VMSA, 0x10001
    create 1, 0, VMSA, 1
    movl $1, %r15d
    cmpq $0, 0x398(%rbp)
    jne failed
    write_msr 0x1B, 0, 0xFEE00D00
    cmpl $0, AP_COUNT
    jne failed
    write_msr 0x830, 1, 0x4500
    wait_for 1
    terminate 0, 0x55

// ---- interrupts ----

.globl takes_interrupts
.code32
takes_interrupts:
    call enter_long_mode
.code64
    call open_ghcb
    movl $IDT + 0x60 * 16, %edi
1:  movl $((ROM + interrupt_handler - guests) & 0xFFFF | 0x18 << 16), (%rdi)
    movl $((ROM + interrupt_handler - guests) & 0xFFFF0000 | 0x8E00), 4(%rdi)
    movl $0, 8(%rdi)
    addl $16, %edi
    cmpl $IDT + 0x64 * 16, %edi
    jb 1b
    pushq $0
    pushq $0
    movw $0xFFF, 6(%rsp)
    movq $IDT, 8(%rsp)
    lidt 6(%rsp)
    // 1: the APIC has no MSRs before x2APIC mode.
    movl $1, %r15d
    write_msr 0x80F, 0, 0x1FF
    cmpq $1, 0x398(%rbp)
    jne failed
    write_msr 0x1B, 0, 0xFEE00D00
    cmpq $0, 0x398(%rbp)
    jne failed
    write_msr 0x80F, 0, 0x1FF
    cmpq $0, 0x398(%rbp)
    jne failed
    // 2: an interrupt waits for RFLAGS.IF.
    movl $2, %r15d
    write_msr 0x83F, 0, 0x61
    cmpl $0, AP_COUNT
    jne failed
    sti
    nop
    nop
    cli
    cmpl $1, AP_COUNT
    jne failed
    // 3: the timer ends a HLT.
    movl $3, %r15d
    write_msr 0x83E, 0, 0x0B
    write_msr 0x832, 0, 0x62
    write_msr 0x838, 0, 1000000
    sti
    hlt
    cli
    cmpl $2, AP_COUNT
    jne failed
    // 4: so does a device's MSI. QEMU's `edu` sends one when its register 60h is written.
    movl $4, %r15d
    configure 0x10, 0xE0000000
    configure 0x04, 6
    configure 0x44, 0xFEE00000
    configure 0x48, 0
    configure 0x4C, 0x63
    configure 0x40, 0x00810005
    movq $1, 0x800(%rbp)
    movl $0x400800, %eax
    movq %rax, 0x3A8(%rbp)
    fields 0, HIGH_SCRATCH
    wide_event 0x80000002, 0xE0000060, 4
    sti
    hlt
    cli
    cmpl $3, AP_COUNT
    jne failed
    terminate 0, 0x55

interrupt_handler:
    pushq %rax
    pushq %rbx
    pushq %rcx
    pushq %rdx
    incl AP_COUNT
    write_msr 0x80B, 0, 0
    popq %rdx
    popq %rcx
    popq %rbx
    popq %rax
    iretq

second_cpu:
    movl $1, %ecx
    movl $1, AP_COUNT
    hlt
    movl $2, AP_COUNT
    hlt
    movl $3, AP_COUNT
    hlt
    movl $4, AP_COUNT
2:  incl 0x600000
    cmpq $0x404, VC_ERROR
    jne 2b
    movl $5, %ecx
    movl $5, AP_COUNT
    hlt
    movl $6, AP_COUNT
2:  hlt
    jmp 2b

// A VMSA of a CPU that starts in 64-bit code, with everything that the first one has set up.
fill_vmsa:
    movl $VMSA, %edi
    movl $0x0C930010, %eax
    movl %eax, 0x00(%rdi)
    movl %eax, 0x20(%rdi)
    movl %eax, 0x30(%rdi)
    movl $-1, 0x04(%rdi)
    movl $-1, 0x24(%rdi)
    movl $-1, 0x34(%rdi)
    movl $0x0A9B0018, 0x10(%rdi)
    movl $-1, 0x14(%rdi)
    movl $0x2F, 0x64(%rdi)
    movq $GDT, 0x68(%rdi)
    movl $0x00820000, 0x70(%rdi)
    movl $(30 * 16 - 1), 0x84(%rdi)
    movq $IDT, 0x88(%rdi)
    movl $0x008B0020, 0x90(%rdi)
    movl $0x67, 0x94(%rdi)
    movq $TSS, 0x98(%rdi)
    movq $0x1500, 0xD0(%rdi)
    movq $0x60, 0x148(%rdi)
    movq %cr3, %rax
    movq %rax, 0x150(%rdi)
    movl $0x80000011, %eax
    movq %rax, 0x158(%rdi)
    movq $0x400, 0x160(%rdi)
    movl $0xFFFF0FF0, %eax
    movq %rax, 0x168(%rdi)
    movq $2, 0x170(%rdi)
    movl $(ROM + second_cpu - guests), %eax
    movq %rax, 0x178(%rdi)
    movq $AP_STACK, 0x1D8(%rdi)
    movabsq $0x0007040600070406, %rax
    movq %rax, 0x268(%rdi)
    movq $1, 0x3B0(%rdi)
    movq $1, 0x3E8(%rdi)
    movl $0x1F80, 0x408(%rdi)
    movw $0x37F, 0x410(%rdi)
    ret


starts_a_second_cpu starts_a_cpu_from_an_ordinary_page
    create 1, 1, VMSA, 1
    jmp sleep

starts_a_second_cpu starts_a_cpu_with_other_features
    rmpadjust VMSA, 0x10001
    movq $9, VMSA + 0x3B0
    create 1, 1, VMSA, 1
    jmp sleep

starts_a_second_cpu starts_a_cpu_without_svme
    rmpadjust VMSA, 0x10001
    movq $0x500, VMSA + 0xD0
    create 1, 1, VMSA, 1
    jmp sleep

starts_a_second_cpu starts_a_cpu_of_another_vmpl
    rmpadjust VMSA, 0x10001
    movb $1, VMSA + 0xCA
    create 1, 1, VMSA, 1
    jmp sleep

starts_a_second_cpu starts_two_cpus_from_one_vmsa
    rmpadjust VMSA, 0x10001
    create 1, 1, VMSA, 1
    wait_for 1
    create 2, 1, VMSA, 1
    jmp sleep

starts_a_second_cpu looks_into_a_vmsa_in_use
    rmpadjust VMSA, 0x10001
    create 1, 1, VMSA, 1
    wait_for 1
    movl VMSA, %eax
    ud2

starts_a_second_cpu rescinds_a_vmsa_in_use
    rmpadjust VMSA, 0x10001
    create 1, 1, VMSA, 1
    wait_for 1
    pvalidate VMSA, 0, 0
    ud2

.globl sleeps_for_ever
.code32
sleeps_for_ever:
    call enter_long_mode
.code64
sleep:
    hlt
    jmp sleep

// ---- what a lenient model forgives ----

.globl leaves_a_field_out
.code32
leaves_a_field_out:
    call enter_long_mode
.code64
    call open_ghcb
    movq $0x7B, 0x390(%rbp)
    .byte 0xF3, 0x0F, 0x01, 0xD9
    movl $1, %r15d
    cmpq $2, 0x398(%rbp)
    jne failed
    cmpq $4, 0x3A0(%rbp)
    jne failed
    terminate 0, 0x55

.globl marks_a_field_that_means_nothing
.code32
marks_a_field_that_means_nothing:
    call enter_long_mode
.code64
    call open_ghcb
    fields LOW_CPL, 0
    wide_event 0x8000FFFD, 0, 0
    terminate 0, 0x55

.globl leaves_the_c_bit_out_of_a_table_entry
.code32
leaves_the_c_bit_out_of_a_table_entry:
    call enter_long_mode
.code64
    movl $0, PDPT + 4
    movq %cr3, %rax
    movq %rax, %cr3
    movl $0x1234, WORK
    cmpl $0x1234, WORK
    terminate 0, 0x55

// The C-bit of the mapping of 0x600000, whose page changes its state, with and without a flush.
.macro private_mapping
    movl $C_HIGH, PD_PRIVATE + 3 * 8 + 4
.endm
.macro shared_mapping
    movl $0, PD_PRIVATE + 3 * 8 + 4
.endm

.globl flushes_what_it_changes
.code32
flushes_what_it_changes:
    call enter_long_mode
.code64
    change 0x600000, 2
    shared_mapping
    invlpg 0x600000
    movl $0x1234, 0x600000
    change 0x600000, 1
    private_mapping
    movq %cr3, %rax
    movq %rax, %cr3
    pvalidate 0x600000, 0, 1
    movl $0x1234, 0x600000
    terminate 0, 0x55

.globl shares_without_a_flush
.code32
shares_without_a_flush:
    call enter_long_mode
.code64
    change 0x600000, 2
    shared_mapping
    movl $0x1234, 0x600000
    terminate 0, 0x55

.globl takes_back_without_a_flush
.code32
takes_back_without_a_flush:
    call enter_long_mode
.code64
    change 0x600000, 2
    shared_mapping
    invlpg 0x600000
    movl $0x1234, 0x600000
    change 0x600000, 1
    private_mapping
    pvalidate 0x600000, 0, 1
    terminate 0, 0x55

// ---- one rule each, with the C-bit ----

.globl reads_private_memory_as_shared
.code32
reads_private_memory_as_shared:
    call enter_long_mode
.code64
    movl SHARED + WORK, %eax
    ud2

.globl reads_shared_memory_as_private
.code32
reads_shared_memory_as_private:
    call enter_long_mode
.code64
    change 0x400000, 2
    movl 0x400000, %eax
    ud2

.globl runs_code_from_shared_memory
.code32
runs_code_from_shared_memory:
    call enter_long_mode
.code64
    change 0x400000, 2
    movl $(SHARED + 0x400000), %eax
    jmpq *%rax

.globl reaches_for_devices_as_private
.code32
reaches_for_devices_as_private:
    call enter_long_mode
.code64
    movl $0xFFE00000, %eax
    movl (%rax), %eax
    ud2

.globl validates_through_a_shared_mapping
.code32
validates_through_a_shared_mapping:
    call enter_long_mode
.code64
    change 0x400000, 1
    pvalidate (SHARED + 0x400000), 0, 1
    ud2

// Long mode with two views of the first GiB, and a #VC handler on IST1. Returns to 64-bit code.
.code32
enter_long_mode:
    movl $(PDPT + 7), PML4
    movl $C_HIGH, PML4 + 4
    movl $(PD_PRIVATE + 7), PDPT
    movl $C_HIGH, PDPT + 4
    movl $(PD_SHARED + 7), PDPT + 8
    movl $C_HIGH, PDPT + 12
    movl $(PD_ROM + 7), PDPT + 24
    movl $C_HIGH, PDPT + 28
    movl $0xFFE00083, PD_ROM + 511 * 8
    movl $C_HIGH, PD_ROM + 511 * 8 + 4
    xorl %ecx, %ecx
1:  movl %ecx, %eax
    shll $21, %eax
    orl $0x83, %eax
    movl %eax, PD_PRIVATE(, %ecx, 8)
    movl $C_HIGH, PD_PRIVATE + 4(, %ecx, 8)
    movl %eax, PD_SHARED(, %ecx, 8)
    incl %ecx
    cmpl $512, %ecx
    jb 1b
    // GDT in RAM: code 64 at 0x18, task state at 0x20.
    movl $0x0000FFFF, GDT + 0x18
    movl $0x00AF9B00, GDT + 0x1C
    movl $(0x67 | (TSS & 0xFFFF) << 16), GDT + 0x20
    movl $(0x8900 | TSS >> 16), GDT + 0x24
    movl $0x0000FFFF, GDT + 0x10
    movl $0x00CF9300, GDT + 0x14
    movl $VC_STACK, TSS + 0x24
    movl $((ROM + vc_handler_64 - guests) & 0xFFFF | 0x18 << 16), IDT + 29 * 16
    movl $((ROM + vc_handler_64 - guests) & 0xFFFF0000 | 0x8E01), IDT + 29 * 16 + 4
    popl %edi
    pushl $GDT
    pushw $0x2F
    lgdtl (%esp)
    movl $STACK, %esp
    pushl $0
    pushl $IDT
    pushw $(30 * 16 - 1)
    movl $0x20, %eax
    movl %eax, %cr4
    movl $PML4, %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl $0x80000011, %eax
    movl %eax, %cr0
    ljmpl $0x18, $(ROM + start64 - guests)
.code64
start64:
    lidt (%rsp)
    movl $STACK, %esp
    movl $0x20, %eax
    ltr %ax
    movl $0x10, %eax
    movl %eax, %ss
    movl %eax, %ds
    movl %eax, %es
    movl %edi, %edi
    jmpq *%rdi
.globl guests_end
guests_end:
.popsection
