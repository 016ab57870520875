# One stub for each of the 256 vectors: the error code (0 where the processor pushes none), the vector, then `common`.
# Stubs are 16 bytes apart so that their addresses can be computed.

    .section .text.vectors, "ax", @progbits
    .code64
    .balign 16
    .global exception_stubs
exception_stubs:
.set vector, 0
.rept 256
    .balign 16
    # 8, 10 to 14, 17, 21, 29 and 30 (APM vol. 2, §8.2).
    .if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
    .else
    push 0
    .endif
    # push imm32; written out, as `push vector` would read memory.
    .byte 0x68
    .long vector
    jmp exception_common
.set vector, vector + 1
.endr

exception_common:
    cld
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    # The compiler takes `cpuid` to leave vector registers alone, so the handler must. It is compiled for SSE only, whose
    # instructions keep the upper halves; 512 bytes, aligned.
    mov rbp, rsp
    sub rsp, 512
    and rsp, -16
    fxsave64 [rsp]
    call {handler}
    fxrstor64 [rsp]
    mov rsp, rbp
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    # The vector and the error code.
    add rsp, 16
    iretq
