/*
 * floppy.S - a floppy disk's boot sector, which does what keys say: for tests of the floppy
 * controller, the display and the keyboard under a BIOS. Assembled and linked at 7C00h as a flat
 * binary of one sector.
 *
 *     at the start   reads the disk's last sector, which holds a text and a zero, and shows the text;
 *                    writes it, with its first byte counted up, to the sector before
 *     1              mode 13h, 256 colours: dot (x, y) has the colour (x + y) mod 256
 *     2              VBE mode 114h, 800 x 600 of 65536 colours: the first 64 KiB are 07E0h, green
 *     3              mode 12h, 16 colours: the first line's left half is colour 4
 *     t              text again
 *     others         shown as they come
 */
    .code16
    .globl _start
_start:
    ljmp $0, $1f
1:  xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    cld
    mov $0x0201, %ax /* read a sector: cylinder 79, head 1, sector 18 */
    mov $0x4f12, %cx
    mov $0x01, %dh
    mov $0x8000, %bx
    int $0x13
    jc failed
    mov $0x8000, %si
    call show
    incb 0x8000
    mov $0x0301, %ax /* write one: sector 17 */
    mov $0x4f11, %cx
    mov $0x01, %dh
    mov $0x8000, %bx
    int $0x13
    jc failed
    mov $ready, %si
    call show
next:
    xor %ax, %ax
    int $0x16
    cmp $'1', %al
    je mode_13
    cmp $'2', %al
    je mode_114
    cmp $'3', %al
    je mode_12
    cmp $'t', %al
    je text
    call put
    jmp next

failed:
    mov $failure, %si
    call show
    jmp next

text:
    mov $0x0003, %ax
    int $0x10
    mov $ready, %si
    call show
    jmp next

mode_13:
    mov $0x0013, %ax
    int $0x10
    mov $0xa000, %ax
    mov %ax, %es
    xor %di, %di
    xor %dx, %dx /* y */
2:  mov %dl, %al
    mov $320, %cx
3:  stosb
    inc %al
    loop 3b
    inc %dx
    cmp $200, %dx
    jne 2b
    jmp next

mode_114:
    mov $0x4f02, %ax
    mov $0x0114, %bx
    int $0x10
    mov $0xa000, %ax
    mov %ax, %es
    xor %di, %di
    mov $0x07e0, %ax
    mov $0x8000, %cx
    rep stosw
    jmp next

mode_12:
    mov $0x0012, %ax
    int $0x10
    mov $0xa000, %ax
    mov %ax, %es
    mov $0x3c4, %dx
    mov $0x0402, %ax /* plane 2 only */
    out %ax, %dx
    xor %di, %di
    mov $0xff, %al
    mov $40, %cx
    rep stosb
    jmp next

show:
    lodsb
    test %al, %al
    jz 4f
    call put
    jmp show
4:  ret
put:
    mov $0x0e, %ah
    mov $0x07, %bx
    int $0x10
    ret

ready:
    .asciz "\r\nready "
failure:
    .asciz "\r\ndisk error "
    .org 510
    .word 0xaa55
