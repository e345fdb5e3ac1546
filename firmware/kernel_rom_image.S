/* kernel_rom_image.S - kernel_rom.S as a flat binary, in the library's read-only data. */
    .section .rodata
    .globl firmware_kernel_rom_begin, firmware_kernel_rom_end
    .hidden firmware_kernel_rom_begin, firmware_kernel_rom_end
firmware_kernel_rom_begin:
    .incbin KERNEL_ROM
firmware_kernel_rom_end:
    .section .note.GNU-stack, "", @progbits
