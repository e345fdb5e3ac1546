/*
 * reset_sector.S - a boot sector that writes a mark into the next sector (INT 13h, function 43h) and resets the machine (port CF9h);
 * when it finds the mark it says so on port E9h and ends the machine with status 33.
 */
    .code16
    .globl _start
_start:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    mov $0x42, %ah
    mov $packet, %si
    int $0x13
    mov $failed, %si
    jc print
    cmpb $'M', 0x8000
    mov $found, %si
    je print
    movb $'M', 0x8000
    mov $0x4300, %ax
    mov $packet, %si
    int $0x13
    mov $failed, %si
    jc print
    mov $0xcf9, %dx
    mov $2, %al
    out %al, %dx
    mov $6, %al
    out %al, %dx
    hlt
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
found:
    .asciz "found the mark\n"
failed:
    .asciz "INT 13h failed\n"
    .balign 4
packet:
    .byte 16, 0
    .word 1
    .word 0x8000, 0
    .quad 1
    .org 510
    .word 0xaa55
