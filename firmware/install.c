/*
 * install.c - the memory map, and what a BIOS leaves in memory for the operating system.
 */
#include "internal/access.h"
#include "internal/error.h"
#include "internal/firmware.h"
#include "internal/phys.h"
#include <stdlib.h>
#include <string.h>

#define MIB (1ull << 20)

static void add_range(struct memory_map *map, uint64_t base, uint64_t end, enum memory_type type)
{
    if (end > base)
        map->range[map->count++] =
            (struct memory_range){.base = base, .size = end - base, .type = type};
}

void firmware_memory_map(const struct firmware_config *config, struct memory_map *map)
{
    memset(map, 0, sizeof(*map));
    add_range(map, 0, FIRMWARE_EBDA, MEMORY_USABLE);
    add_range(map, FIRMWARE_EBDA, 0xa0000, MEMORY_RESERVED);
    add_range(map, FIRMWARE_AREA, FIRMWARE_AREA_END, MEMORY_RESERVED);
    add_range(map, MIB, config->ram_low, MEMORY_USABLE);
    add_range(map, config->protect, config->protect_end, MEMORY_RESERVED);
    add_range(map, 4096 * MIB, 4096 * MIB + config->ram_high, MEMORY_USABLE);
}

/* The BIOS data area: the few words that operating systems read (IBM PC/AT Technical Reference). */
static void write_bda(struct phys_map *map, const struct firmware_config *config)
{
    static const struct access access = {.initiator = INITIATOR_LOADER};
    static const uint16_t com[4] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
    uint8_t bda[256] = {0};
    uint16_t ebda = FIRMWARE_EBDA >> 4, kib = FIRMWARE_EBDA >> 10;
    for (unsigned i = 0; i < 4; i++)
        if (config->has_serial[i])
            memcpy(bda + 2 * i, &com[i], 2);
    memcpy(bda + 0x0e, &ebda, 2);
    memcpy(bda + 0x13, &kib, 2);
    phys_write(map, &access, 0x400, bda, sizeof(bda));
}

bool firmware_install(struct phys_map *map, const struct firmware_config *config, uint64_t *rsdp,
                      struct error *err)
{
    static const struct access access = {.initiator = INITIATOR_LOADER};
    size_t size = FIRMWARE_AREA_END - FIRMWARE_AREA;
    uint8_t *area = malloc(size);
    if (!area)
        return error_set(err, "no host memory for the ACPI tables");
    bool ok = firmware_build(config, area, rsdp, err);
    if (ok) {
        phys_write(map, &access, FIRMWARE_AREA, area, size);
        write_bda(map, config);
    }
    free(area);
    return ok;
}
