/*
 * start.S - the demo guest's first instructions: PVH entry (32-bit, no paging, EBX = start info) to
 * 64-bit C, and the entry points of its exception and interrupt handlers.
 *
 * It runs on the bare (virtual) machine. The identity map covers 4 GiB with 2-MiB pages.
 */
    .section .note.pvh, "a", @note
    .align 4
    .long 4, 4, 18                      /* name and descriptor lengths; XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long start32

    .text
    .code32
    .globl start32
start32:
    cli
    cld
    movl $stack_top, %esp
    movl %ebx, %edi                     /* the C function's first argument */
    /* Page tables: one PML4E, four PDPTEs, 2048 PDEs (SDM vol. 3, 4.5). */
    movl $pdpt + 3, pml4
    movl $page_dirs + 3, %eax
    movl $pdpt, %edx
    movl $4, %ecx
1:  movl %eax, (%edx)
    addl $4096, %eax
    addl $8, %edx
    loop 1b
    movl $0x83, %eax                    /* present, writable, 2 MiB */
    movl $page_dirs, %edx
    movl $2048, %ecx
1:  movl %eax, (%edx)
    addl $0x200000, %eax
    addl $8, %edx
    loop 1b
    /* Into long mode (SDM vol. 3, 10.8.5). */
    movl %cr4, %eax
    orl $0x20, %eax                     /* PAE */
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0x80000001, %eax              /* with NX, page faults tell fetches from reads */
    cpuid
    movl %edx, %esi
    shrl $20 - 11, %esi
    andl $0x800, %esi                   /* CPUID's NX bit 20 is EFER.NXE, bit 11 */
    movl $0xc0000080, %ecx              /* IA32_EFER */
    rdmsr
    orl $0x100, %eax                    /* LME */
    orl %esi, %eax
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
    call demo_main
1:  hlt
    jmp 1b

/* One stub per vector: an error code (0 where the CPU pushes none) and the vector, then common code.
 * Each stub is 16 bytes long, so that C can compute its address. */
    .globl stubs
    .align 16
stubs:
    .set vector, 0
    .rept 48
    .align 16
    .if vector != 8 && vector != 10 && vector != 11 && vector != 12 && vector != 13 && vector != 14 && vector != 17 && vector != 21
    pushq $0
    .endif
    pushq $vector
    jmp common
    .set vector, vector + 1
    .endr

common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, %rdi
    movq %rsp, %rbp
    andq $-16, %rsp
    call demo_interrupt
    movq %rbp, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

/* bool demo_touch(volatile uint64_t *address, int kind): reads (0), writes (1) or executes (2) there.
 * A page fault resumes at demo_touched. */
    .globl demo_touch, demo_touched
demo_touch:
    movq %rsp, %r11
    cmpl $1, %esi
    je 1f
    ja 2f
    movq (%rdi), %rax
    jmp demo_touched
1:  movq %rax, (%rdi)
    jmp demo_touched
2:  call *%rdi
demo_touched:
    movq %r11, %rsp
    ret

    .data
    .align 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            /* 64-bit code */
    .quad 0x00cf93000000ffff            /* data */
gdt_pointer:
    .word . - gdt - 1
    .long gdt

    .bss
    .align 4096
    .globl pml4, page_dirs
pml4:
    .skip 4096
pdpt:
    .skip 4096
page_dirs:
    .skip 4 * 4096
    .skip 16384
stack_top:
    .section .note.GNU-stack, "", @progbits
