/*
 * kernel_rom.S - an option ROM from which a BIOS starts the kernel of -kernel: it takes the parts
 * that fw_cfg has (handover.c) into memory and jumps into the kernel's setup code. Plug and Play
 * BIOS Specification 1.0A, section 3.2 (expansion header) and 3.3 (bootstrap entry vector).
 *
 * Checksums are made by whoever hands the ROM out (kernel_rom.c).
 */
    .set    SELECTOR, 0x510
    .set    DATA, 0x511
    .set    DMA, 0x514
    .set    SELECT_AND_READ, 0x0a
    .set    SETUP_ADDRESS, 0x16 /* fw_cfg's keys */

    .code16
    .section .rom, "ax"
    .globl  _start
_start:
    .word   0xaa55
    .byte   1               /* blocks of 512 bytes */
    lret                    /* nothing to initialise */
    .org    0x18
    .word   0               /* no PCI data structure */
    .word   pnp
    .org    0x20
pnp:
    .ascii  "$PnP"
    .byte   1, 2            /* revision; length in units of 16 bytes */
    .word   0               /* no more headers */
    .byte   0, 0            /* reserved; checksum */
    .long   0
    .word   maker, product
    .byte   0x02, 0x00, 0x80 /* a device to boot from, of no kind in particular */
    .byte   0x64            /* may be shadowed; can be booted from */
    .word   0, 0, boot, 0, 0

maker:
    .asciz  "Bailey"
product:
    .asciz  "-kernel"

/* Keys of each part: where to, how long, the bytes. */
parts:
    .word   0x16, 0x17, 0x18 /* setup code */
    .word   0x13, 0x14, 0x15 /* command line */
    .word   0x0a, 0x0b, 0x12 /* initrd */
    .word   0x07, 0x08, 0x11 /* the kernel */
    .word   0

boot:
    cld
    movw    $parts, %si
1:  cs lodsw
    testw   %ax, %ax
    jz      start
    call    number
    movl    %eax, %edi
    cs lodsw
    call    number
    movl    %eax, %ecx
    cs lodsw
    jecxz   1b

    /* The control block, big-endian, on the stack: control, length, address. */
    bswapl  %edi
    pushl   %edi
    pushl   $0
    bswapl  %ecx
    pushl   %ecx
    shll    $16, %eax
    orl     $SELECT_AND_READ, %eax
    bswapl  %eax
    pushl   %eax
    xorl    %ebx, %ebx
    movw    %ss, %bx
    shll    $4, %ebx
    movzwl  %sp, %eax
    addl    %eax, %ebx
    bswapl  %ebx
    movw    $DMA, %dx
    xorl    %eax, %eax
    outl    %eax, %dx
    movw    $DMA + 4, %dx
    movl    %ebx, %eax
    outl    %eax, %dx
    popl    %eax            /* zero, or the error bit */
    addw    $12, %sp
    testl   %eax, %eax
    jz      1b
    int     $0x18           /* the next thing that can be booted */
    lret

/* boot.rst: segments are the setup code's, the entry is 200h behind its beginning. */
start:
    movw    $SETUP_ADDRESS, %ax
    call    number
    shrl    $4, %eax
    cli
    movw    %ax, %ds
    movw    %ax, %es
    movw    %ax, %fs
    movw    %ax, %gs
    movw    %ax, %ss
    movw    $0xfff0, %sp
    addw    $0x20, %ax
    pushw   %ax
    pushw   $0
    lret

/* EAX = the 32-bit little-endian item of key AX. */
number:
    pushw   %cx
    movw    $SELECTOR, %dx
    outw    %ax, %dx
    incw    %dx
    movw    $4, %cx
1:  inb     %dx, %al
    rorl    $8, %eax
    loop    1b
    popw    %cx
    ret

    .org    512
    .section .note.GNU-stack, "", @progbits
