/*
 * start.S - a tiny kernel from its first instruction to kernel_main(), and what catches its faults.
 *
 * Entered through the PVH note: 32-bit protected mode, paging off, EBX = struct hvm_start_info. It
 * goes to 64-bit mode with the first 4 GiB mapped to themselves by 2-MiB pages (SDM vol. 3, 4.5,
 * 10.8.5).
 */
    .section .note.pvh, "a", @note
    .align 4
    .long 4, 4, 18                      /* name and descriptor lengths; XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long start32

    .section .text.start, "ax"
    .code32
    .globl start32
start32:
    cli
    cld
    movl $stack_top, %esp
    movl %ebx, %edi                     /* tiny_start()'s argument */
    movl $pdpt + 3, pml4
    movl $page_directories + 3, %eax
    movl $pdpt, %edx
    movl $4, %ecx
1:  movl %eax, (%edx)
    addl $4096, %eax
    addl $8, %edx
    loop 1b
    movl $0x83, %eax                    /* present, writable, 2 MiB */
    movl $page_directories, %edx
    movl $2048, %ecx
1:  movl %eax, (%edx)
    addl $0x200000, %eax
    addl $8, %edx
    loop 1b
    movl %cr4, %eax
    orl $0x20, %eax                     /* PAE */
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx              /* IA32_EFER */
    rdmsr
    orl $0x900, %eax                    /* NXE, LME */
    wrmsr
    movl %cr0, %eax
    orl $0x80010001, %eax               /* PG, WP, PE */
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $0x08, $start64

    .code64
start64:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %edi, %edi                     /* clear the upper half */
    call tiny_start
1:  hlt
    jmp 1b

/* ---- Faults ------------------------------------------------------------------------------------- */

/* bool attempt(void (*code)(void *), void *argument): runs code(argument). A fault ends it there, and
 * attempt() returns true. */
    .text
    .globl attempt
attempt:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    subq $8, %rsp
    movq %rsp, attempt_stack
    movq %rdi, %rax
    movq %rsi, %rdi
    call *%rax
    xorl %eax, %eax
attempt_end:
    movq $0, attempt_stack
    addq $8, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

/* Entry points of the 32 exceptions, 16 bytes each: an error code where the CPU pushes none, and the
 * vector (SDM vol. 3, 6.13). */
    .globl exception_entries
    .balign 16
exception_entries:
    .set vector, 0
    .rept 32
    .balign 16
    .if !(0x60227d00 >> vector & 1)     /* 8, 10-14, 17, 21, 29, 30 */
    pushq $0
    .endif
    pushq $vector
    jmp exception
    .set vector, vector + 1
    .endr

exception:
    popq caught                         /* struct fault: vector, error code, RIP, CR2 */
    popq caught + 8
    movq (%rsp), %rax
    movq %rax, caught + 16
    movq %cr2, %rax
    movq %rax, caught + 24
    movq attempt_stack, %rsp
    movl $1, %eax
    testq %rsp, %rsp
    jnz attempt_end
    movq $stack_top, %rsp
    call unexpected_fault

/* ---- Data --------------------------------------------------------------------------------------- */
    .data
    .balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            /* 08: 64-bit code */
    .quad 0x00cf93000000ffff            /* 10: data */
gdt_pointer:
    .word . - gdt - 1
    .long gdt

    .bss
    .globl pml4, pdpt, page_directories, page_tables_end, caught
attempt_stack: .skip 8
caught: .skip 32
    .balign 4096
pml4: .skip 4096
pdpt: .skip 4096
page_directories: .skip 4 * 4096
    .size page_directories, . - page_directories
page_tables_end:
    .skip 16384
stack_top:
    .section .note.GNU-stack, "", @progbits
