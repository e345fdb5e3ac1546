/*
 * kernel_rom.c - gives out the option ROM of kernel_rom.S, its checksums made right.
 */
#include "internal/firmware.h"
#include "tables.h"
#include <string.h>

extern const uint8_t firmware_kernel_rom_begin[], firmware_kernel_rom_end[];

/* The expansion header, and bytes that nothing uses. */
enum { PNP_AT = 0x20, PNP_SIZE = 32, PNP_CHECKSUM = 9, ROM_CHECKSUM = FIRMWARE_KERNEL_ROM - 1 };

void firmware_kernel_rom(uint8_t rom[FIRMWARE_KERNEL_ROM])
{
    memcpy(rom, firmware_kernel_rom_begin, FIRMWARE_KERNEL_ROM);
    area_checksum(rom + PNP_AT, PNP_SIZE, PNP_CHECKSUM);
    area_checksum(rom, FIRMWARE_KERNEL_ROM, ROM_CHECKSUM);
}
