/*
 * smp.S - where another processor begins: real mode at 8000h after a SIPI, then as in start.S.
 * Its stack is ap_stacks[APIC id].
 */
#ifdef __x86_64__
    .section .rodata
    .code16
    .globl ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl 0x8000 + ap_gdt - ap_trampoline
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $0x08, $ap_protected
    .align 8
ap_gdt:
    .word 32 * 8 - 1
    .long gdt
ap_trampoline_end:

    .text
    .code32
ap_protected:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x220, %eax
    movl %eax, %cr4
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x901, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80010000, %eax
    movl %eax, %cr0
    ljmp $0x18, $1f
    .code64
1:  movl $1, %eax
    cpuid
    movl %ebx, %edi
    shrl $24, %edi
    movl %edi, %eax
    incl %eax
    shll $13, %eax
    leaq ap_stacks(%rax), %rsp
    call ap_main
#endif
    .section .note.GNU-stack, "", @progbits
