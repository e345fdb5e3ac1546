/* demo_image.S - the built-in demo guest, as an ELF file in the library's read-only data. */
    .section .rodata
    .globl firmware_demo_begin, firmware_demo_end
    .hidden firmware_demo_begin, firmware_demo_end
    .balign 16
firmware_demo_begin:
    .incbin DEMO_ELF
firmware_demo_end:
    .section .note.GNU-stack, "", @progbits
