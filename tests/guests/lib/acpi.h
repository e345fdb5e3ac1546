/*
 * acpi.h - finding ACPI's tables as an operating system does (ACPI 6.5, 5.2.5).
 */
#ifndef GUEST_ACPI_H
#define GUEST_ACPI_H

#include "guest.h"

struct acpi_header {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char oem[6], table[8];
    uint32_t oem_revision, creator, creator_revision;
} __attribute__((packed));

struct acpi_rsdp {
    char signature[8];
    uint8_t checksum;
    char oem[6];
    uint8_t revision;
    uint32_t rsdt, length;
    uint64_t xsdt;
    uint8_t extended_checksum, reserved[3];
} __attribute__((packed));

static inline uint8_t acpi_sum(const void *p, unsigned len)
{
    uint8_t sum = 0;
    for (unsigned i = 0; i < len; i++)
        sum = (uint8_t)(sum + ((const uint8_t *)p)[i]);
    return sum;
}

/* On a 16-byte boundary in the first KiB of the EBDA or between E0000h and FFFFFh. */
static inline const struct acpi_rsdp *acpi_find_rsdp(void)
{
    uintptr_t ebda = (uintptr_t) * (volatile uint16_t *)0x40e << 4;
    const struct {
        uintptr_t from, to;
    } areas[] = {{ebda, ebda + 1024}, {0xe0000, 0x100000}};
    for (unsigned i = 0; i < 2; i++)
        for (uintptr_t at = areas[i].from; at && at < areas[i].to; at += 16)
            if (memcmp((void *)at, "RSD PTR ", 8) == 0 && acpi_sum((void *)at, 20) == 0)
                return (void *)at;
    return 0;
}

/* By the RSDT, which every version has; NULL: there is none. */
static inline const struct acpi_header *acpi_find(const char *signature)
{
    const struct acpi_rsdp *rsdp = acpi_find_rsdp();
    if (!rsdp)
        return 0;
    const struct acpi_header *rsdt = (void *)(uintptr_t)rsdp->rsdt;
    const uint32_t *entry = (const uint32_t *)(rsdt + 1);
    for (unsigned i = 0; i < (rsdt->length - sizeof(*rsdt)) / 4; i++) {
        const struct acpi_header *table = (void *)(uintptr_t)entry[i];
        if (memcmp(table->signature, signature, 4) == 0)
            return table;
    }
    return 0;
}

#endif
