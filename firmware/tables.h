/*
 * tables.h - what the table writers share. Private to firmware/.
 */
#ifndef FIRMWARE_TABLES_H
#define FIRMWARE_TABLES_H

#include "aml.h"
#include "internal/firmware.h"

/* Tables behind each other, filled from the bottom; `a` writes at its end, checks for room. Where
 * `base` is 0 their addresses are offsets, and what is noted here lets firmware move them. */
enum { AREA_TABLES = 8, AREA_POINTERS = 16 };
struct area_table {
    uint32_t offset, len; /* a system description table: its checksum is byte 9 */
};
struct area_pointer {
    uint32_t offset;
    uint8_t size; /* bytes */
};
struct area {
    struct aml a;
    uint32_t base; /* guest address of the first byte */
    struct area_table tables[AREA_TABLES];
    unsigned table_count;
    struct area_pointer pointers[AREA_POINTERS];
    unsigned pointer_count;
};
static inline uint32_t area_gpa(const struct area *area)
{
    return area->base + (uint32_t)area->a.len;
}
void area_align(struct area *area, unsigned align);
/* Makes the sum of `len` bytes zero by setting bytes[at]. */
void area_checksum(uint8_t *bytes, size_t len, size_t at);

struct acpi_roots {
    uint32_t rsdt, xsdt;
};
/* All tables but the RSDP, which is wanted elsewhere. */
void acpi_tables(struct area *area, const struct firmware_config *config, struct acpi_roots *roots);
void acpi_rsdp(struct area *area, const struct acpi_roots *roots);

/* SMBIOS for machines that start without firmware: the entry point is looked for from F0000h on. */
enum { SMBIOS_ANCHOR = 0xf6000, SMBIOS_ROOM = 32 << 10 };
bool smbios_place(const struct firmware_config *config, uint8_t *area, struct error *err);

void dsdt_body(struct aml *a, const struct firmware_config *config);
/* PCI interrupts (links.c): the ISA bridge's registers, in its scope; the link devices, in \\_SB;
 * the routing table, in the PCI root's scope. */
void dsdt_pirq_registers(struct aml *a);
void dsdt_links(struct aml *a);
void dsdt_routing(struct aml *a);
/* The MP floating pointer and configuration table (MultiProcessor Specification 1.4, chapter 4). */
void mp_table(struct area *area, const struct firmware_config *config);

#endif
