/*
 * start.S - from the PVH entry (SDM state: 32-bit protected mode, flat, paging off) to guest_main().
 *
 * Built twice: with -m64 it turns on long mode with the first 4 GiB identity-mapped by 2-MiB pages;
 * with -m32 it stays in flat 32-bit protected mode without paging. The trap stubs below save what the
 * CPU pushed, in one layout for vectors with and without error code.
 */
    .section .note, "a", @note
    .long 4, 4, 18              /* namesz, descsz, XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long pvh_entry

    .section .text.start, "ax"
    .code32
    .globl pvh_entry
pvh_entry:
    cli
    cld
    movl %ebx, start_info
    movl $boot_stack_top, %esp
    lgdt gdt_pointer
    ljmp $0x08, $1f
1:  movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw %ax, %fs
    movw %ax, %gs
#ifdef __x86_64__
    movl $boot_pml4, %edi
    movl $boot_pdpt + 7, (%edi)
    movl $boot_pdpt, %edi
    movl $boot_pd + 7, %eax
    movl $4, %ecx
2:  movl %eax, (%edi)
    addl $0x1000, %eax
    addl $8, %edi
    loop 2b
    movl $boot_pd, %edi
    movl $0x87, %eax            /* present, writable, user, 2-MiB page */
    movl $2048, %ecx
3:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 3b
    .globl enter_long_mode
enter_long_mode:
    movl %cr4, %eax
    orl $0x220, %eax            /* PAE, OSFXSR */
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x901, %eax            /* NXE, LME, SCE */
    wrmsr
    movl %cr0, %eax
    orl $0x80010000, %eax       /* PG, WP */
    movl %eax, %cr0
    ljmp $0x18, $4f
    .code64
4:  lgdt gdt_pointer
    movq $boot_stack_top, %rsp
    xorl %ebp, %ebp
#endif
    call guest_setup
    call guest_main
    xorl %edi, %edi
#ifndef __x86_64__
    pushl $0
#endif
    call guest_exit

/* ---- Traps ------------------------------------------------------------------------------------- */
#ifdef __x86_64__
#define PUSHREG push
    .altmacro
    .macro stub n
    .align 16
    .if (\n == 8) || (\n == 10) || (\n == 11) || (\n == 12) || (\n == 13) || (\n == 14) || (\n == 17) || (\n == 21)
    .else
    push $0
    .endif
    push $\n
    jmp trap_common
    .endm
    .align 16
    .globl trap_stubs
trap_stubs:
    .set i, 0
    .rept 256
    stub %i
    .set i, i + 1
    .endr
trap_common:
    push %rax
    push %rcx
    push %rdx
    push %rbx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    movq %rsp, %rdi
    movq %rsp, %rbp
    andq $-16, %rsp
    cld
    call trap_entry
    movq %rbp, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    addq $16, %rsp
    iretq

/* int catch_enter(struct catch_buffer *): 0 now, 1 when a trap comes back through catch_leave(). */
    .globl catch_enter
catch_enter:
    movq %rbx, (%rdi)
    movq %rbp, 8(%rdi)
    movq %r12, 16(%rdi)
    movq %r13, 24(%rdi)
    movq %r14, 32(%rdi)
    movq %r15, 40(%rdi)
    leaq 8(%rsp), %rax
    movq %rax, 48(%rdi)
    movq (%rsp), %rax
    movq %rax, 56(%rdi)
    xorl %eax, %eax
    ret
    .globl catch_leave
catch_leave:
    movq (%rdi), %rbx
    movq 8(%rdi), %rbp
    movq 16(%rdi), %r12
    movq 24(%rdi), %r13
    movq 32(%rdi), %r14
    movq 40(%rdi), %r15
    movq 48(%rdi), %rsp
    movl $1, %eax
    jmp *56(%rdi)
#else
    .altmacro
    .macro stub n
    .align 16
    .if (\n == 8) || (\n == 10) || (\n == 11) || (\n == 12) || (\n == 13) || (\n == 14) || (\n == 17) || (\n == 21)
    .else
    pushl $0
    .endif
    pushl $\n
    jmp trap_common
    .endm
    .align 16
    .globl trap_stubs
trap_stubs:
    .set i, 0
    .rept 256
    stub %i
    .set i, i + 1
    .endr
trap_common:
    pushal
    pushl %ds
    pushl %es
    movl $0x10, %eax
    movw %ax, %ds
    movw %ax, %es
    movl %esp, %eax
    cld
    pushl %eax
    call trap_entry
    addl $4, %esp
    popl %es
    popl %ds
    popal
    addl $8, %esp
    iretl
    .globl catch_enter
catch_enter:
    movl 4(%esp), %ecx
    movl %ebx, (%ecx)
    movl %ebp, 4(%ecx)
    movl %esi, 8(%ecx)
    movl %edi, 12(%ecx)
    leal 4(%esp), %eax
    movl %eax, 16(%ecx)
    movl (%esp), %eax
    movl %eax, 20(%ecx)
    xorl %eax, %eax
    ret
    .globl catch_leave
catch_leave:
    movl 4(%esp), %ecx
    movl (%ecx), %ebx
    movl 4(%ecx), %ebp
    movl 8(%ecx), %esi
    movl 12(%ecx), %edi
    movl 16(%ecx), %esp
    movl $1, %eax
    jmp *20(%ecx)
#endif

/* ---- Tables -------------------------------------------------------------------------------------- */
    .data
    .align 16
    .globl gdt, gdt_pointer
gdt:                            /* selectors are in guest.h */
    .quad 0
    .quad 0x00cf9b000000ffff    /* 08: 32-bit code, DPL 0 */
    .quad 0x00cf93000000ffff    /* 10: data, DPL 0 */
    .quad 0x00af9b000000ffff    /* 18: 64-bit code, DPL 0 */
    .quad 0x00cffb000000ffff    /* 20: 32-bit code, DPL 3 */
    .quad 0x00cff3000000ffff    /* 28: data, DPL 3 */
    .quad 0x00affb000000ffff    /* 30: 64-bit code, DPL 3 */
    .quad 0x000f9b000000ffff    /* 38: 16-bit code, DPL 0, limit 0xfffff bytes */
    .quad 0x000f93000000ffff    /* 40: 16-bit data, DPL 0 */
    .quad 0, 0                  /* 48: TSS */
    .fill 22, 8, 0              /* 58..: free for tests */
gdt_pointer:
    .word . - gdt - 1
    .long gdt
    .long 0

    .globl start_info
    .align 4
start_info:
    .long 0

    .bss
    .align 4096
    .globl boot_pml4, boot_pdpt, boot_pd
#ifdef __x86_64__
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd: .skip 4 * 4096
#endif
    .skip 65536
    .globl boot_stack_top
boot_stack_top:
    .section .note.GNU-stack, "", @progbits
