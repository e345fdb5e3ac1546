/*
 * tables.h - what the table writers share. Private to firmware/.
 */
#ifndef FIRMWARE_TABLES_H
#define FIRMWARE_TABLES_H

#include "aml.h"
#include "internal/firmware.h"

/* The bytes of the BIOS area, filled from the bottom; `a` writes at its end, checks for room. */
struct area {
    struct aml a;
};
static inline uint32_t area_gpa(const struct area *area)
{
    return FIRMWARE_AREA + (uint32_t)area->a.len;
}
void area_align(struct area *area, unsigned align);
/* Makes the sum of `len` bytes zero by setting bytes[at]. */
void area_checksum(uint8_t *bytes, size_t len, size_t at);

void dsdt_body(struct aml *a, const struct firmware_config *config);
/* The MP floating pointer and configuration table (MultiProcessor Specification 1.4, chapter 4). */
void mp_table(struct area *area, const struct firmware_config *config);

#endif
