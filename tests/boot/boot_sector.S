/*
 * boot_sector.S - what firmware loads and starts from a disk or a CD: reads COUNT sectors (of the medium's own size) from LBA on by
 * INT 13h, function 42h, prints them up to a zero byte on port E9h, and ends the machine with status 33.
 */
    .code16
    .globl _start
_start:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    mov $0x42, %ah              /* DL is the drive that we come from */
    mov $packet, %si
    int $0x13
    mov $failed, %si
    jc print
    mov $0x8000, %si
print:
    lodsb
    test %al, %al
    jz end
    out %al, $0xe9
    jmp print
end:
    mov $0x501, %dx
    mov $0x10, %al
    out %al, %dx
    hlt
failed:
    .asciz "INT 13h failed"
    .balign 4
packet:
    .byte 16, 0
    .word COUNT
    .word 0x8000, 0
    .quad LBA
    .org 510
    .word 0xaa55
