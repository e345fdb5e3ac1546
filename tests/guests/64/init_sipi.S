/*
 * init_sipi.S - where a processor of init_sipi.c begins: writes down, from 7000h on, what it finds.
 * Position independent: it is copied to several pages.
 */
    .section .rodata
    .code16
    .globl sipi_record, sipi_record_end
sipi_record:
    movl %eax, 0x7004
    movl %ebx, 0x7008
    movl %ecx, 0x700c
    movl %edx, 0x7010
    movl %esi, 0x7014
    movl %edi, 0x7018
    movl %ebp, 0x701c
    movl %esp, 0x7020
    movl $0x7f00, %esp
    pushfl
    popl %eax
    movl %eax, 0x7024
    movl %cr0, %eax
    movl %eax, 0x7028
    movl %cr2, %eax
    movl %eax, 0x702c
    movl %cr3, %eax
    movl %eax, 0x7030
    movl %cr4, %eax
    movl %eax, 0x7034
    movw %cs, 0x7038
    movw %ds, 0x703a
    movw %es, 0x703c
    movw %ss, 0x703e
    movw %fs, 0x7040
    movw %gs, 0x7042
    sidt 0x7048
    sgdt 0x7050
    movl %dr6, %eax
    movl %eax, 0x7058
    movl %dr7, %eax
    movl %eax, 0x705c
    movl %dr0, %eax
    movl %eax, 0x7060
    call 1f
1:  popw %ax                /* where it runs, by IP */
    subw $(1b - sipi_record), %ax
    movw %ax, 0x7064
    lock incl 0x7000
2:  cli
    hlt
    jmp 2b
sipi_record_end:
    .section .note.GNU-stack, "", @progbits
