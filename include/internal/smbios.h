/*
 * smbios.h - what the user says of the machine in its SMBIOS tables: -smbios and -uuid. Field names
 * are those of DMTF DSP0134, System Management BIOS.
 */
#ifndef INTERNAL_SMBIOS_H
#define INTERNAL_SMBIOS_H

#include <stdbool.h>
#include <stdint.h>

enum smbios_text {
    SMBIOS_BIOS_VENDOR,
    SMBIOS_BIOS_VERSION,
    SMBIOS_BIOS_DATE,
    SMBIOS_SYSTEM_MANUFACTURER,
    SMBIOS_SYSTEM_PRODUCT,
    SMBIOS_SYSTEM_VERSION,
    SMBIOS_SYSTEM_SERIAL,
    SMBIOS_SYSTEM_SKU,
    SMBIOS_SYSTEM_FAMILY,
    SMBIOS_BOARD_MANUFACTURER,
    SMBIOS_BOARD_PRODUCT,
    SMBIOS_BOARD_VERSION,
    SMBIOS_BOARD_SERIAL,
    SMBIOS_BOARD_ASSET,
    SMBIOS_BOARD_LOCATION,
    SMBIOS_CHASSIS_MANUFACTURER,
    SMBIOS_CHASSIS_VERSION,
    SMBIOS_CHASSIS_SERIAL,
    SMBIOS_CHASSIS_ASSET,
    SMBIOS_CHASSIS_SKU,
    SMBIOS_TEXTS
};

enum { SMBIOS_OEM_STRINGS = 32 };

/* All zeroes: nothing is said, and the tables are the board's own. Strings belong to the owner. */
struct smbios_config {
    char *text[SMBIOS_TEXTS]; /* NULL: not given */
    bool bios, board;         /* types 0 and 2 are wanted; without type 0 firmware adds its own */
    bool uefi;                /* type 0 */
    uint8_t release[2];       /* type 0: of the BIOS, major and minor */
    bool has_uuid;
    uint8_t uuid[16]; /* in the order of its digits */
    char *oem[SMBIOS_OEM_STRINGS];
    unsigned oem_count;
};

#endif
