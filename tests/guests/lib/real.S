/*
 * real.S - to real mode and back, for 32-bit guests (real.h).
 *
 * The part between real_monitor and real_monitor_end is copied to REAL_MONITOR, below 64 KiB, where
 * segment 0 reaches it: the way in, 256 stubs that note which vector arrived, and the way out. The
 * stubs use CS only, so they work whatever the test did to its registers.
 */
#ifndef __x86_64__
#define REAL_MONITOR 0x1000
#define LOW(label) (REAL_MONITOR + label - real_monitor)

    .section .rodata
    .globl real_monitor, real_monitor_end, real_way_in, real_stubs, real_state
    .code16
    .align 16
real_monitor:
real_state:                     /* struct real_regs */
s_eax: .long 0
s_ecx: .long 0
s_edx: .long 0
s_ebx: .long 0
s_esp: .long 0
s_ebp: .long 0
s_esi: .long 0
s_edi: .long 0
s_eip: .long 0
s_cs: .long 0
s_eflags: .long 0
s_ss: .long 0
s_ds: .long 0
s_es: .long 0
s_fs: .long 0
s_gs: .long 0
s_vector: .long 0
s_protected_esp: .long 0
own_stack: .skip 32
own_stack_top:

/* Entered in 16-bit protected mode at CPL 0; all segments have base 0. */
real_way_in:
    movl %cr0, %eax
    andb $0xfe, %al
    movl %eax, %cr0
    ljmpw $0, $LOW(1f)
1:  xorw %ax, %ax
    movw %ax, %ss
    movl $LOW(own_stack_top), %esp
    movw %cs:LOW(s_es), %ax
    movw %ax, %es
    movw %cs:LOW(s_fs), %ax
    movw %ax, %fs
    movw %cs:LOW(s_gs), %ax
    movw %ax, %gs
    movw %cs:LOW(s_ds), %ax
    movw %ax, %ds
    pushl %cs:LOW(s_eflags)
    popfl                       /* nothing below changes flags */
    movw %cs:LOW(s_ss), %ax
    movw %ax, %ss
    movl %cs:LOW(s_esp), %esp
    movl %cs:LOW(s_eax), %eax
    movl %cs:LOW(s_ecx), %ecx
    movl %cs:LOW(s_edx), %edx
    movl %cs:LOW(s_ebx), %ebx
    movl %cs:LOW(s_ebp), %ebp
    movl %cs:LOW(s_esi), %esi
    movl %cs:LOW(s_edi), %edi
    ljmpl *%cs:LOW(s_eip)

way_out:
    movl %eax, %cs:LOW(s_eax)
    movl %ecx, %cs:LOW(s_ecx)
    movl %edx, %cs:LOW(s_edx)
    movl %ebx, %cs:LOW(s_ebx)
    movl %esp, %cs:LOW(s_esp)
    movl %ebp, %cs:LOW(s_ebp)
    movl %esi, %cs:LOW(s_esi)
    movl %edi, %cs:LOW(s_edi)
    movw %ss, %cs:LOW(s_ss)
    movw %ds, %cs:LOW(s_ds)
    movw %es, %cs:LOW(s_es)
    movw %fs, %cs:LOW(s_fs)
    movw %gs, %cs:LOW(s_gs)
    movw %cs, %ax
    movw %ax, %ss
    movl $LOW(own_stack_top), %esp
    pushfl
    popl %cs:LOW(s_eflags)
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $0x08, $way_back

    .align 16
real_stubs:
    .set i, 0
    .rept 256
    .align 16
    movb $i, %cs:LOW(s_vector)
    jmp way_out
    .set i, i + 1
    .endr
real_monitor_end:

    .text
    .code32
/* void real_switch(code, data, stack): runs what real_state says, until an interrupt. The hidden
 * parts of CS, the data segments and SS come from these selectors. */
    .globl real_switch
real_switch:
    pushal
    pushfl
    cli
    movl %esp, REAL_MONITOR + (s_protected_esp - real_monitor)
    movl 40(%esp), %ecx
    movl 44(%esp), %edx
    movl 48(%esp), %eax
    movl $LOW(real_way_in), way_in_pointer
    movw %cx, way_in_pointer + 4
    movw %dx, %ds
    movw %dx, %es
    movw %dx, %fs
    movw %dx, %gs
    movw %ax, %ss
    ljmp *%cs:way_in_pointer
way_back:
    movl $0x10, %eax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %fs
    movw %ax, %gs
    movw %ax, %ss
    movl REAL_MONITOR + (s_protected_esp - real_monitor), %esp
    popfl
    popal
    ret
    .bss
way_in_pointer: .skip 8
#endif
    .section .note.GNU-stack, "", @progbits
