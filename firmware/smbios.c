/*
 * smbios.c - the SMBIOS tables, that is, what `dmidecode` shows (DMTF DSP0134, System Management
 * BIOS 2.8): system, enclosure, processors, memory. The BIOS adds what it says of itself (type 0)
 * and the tables' address.
 */
#include "files.h"
#include "internal/error.h"
#include <endian.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 4096, ANCHOR_SIZE = 31, UNKNOWN = 2 };
#define MIB (1ull << 20)

struct writer {
    uint8_t bytes[ROOM];
    size_t len;
    size_t begun; /* where the present structure begins */
    unsigned count, biggest;
};

static void put(struct writer *w, uint64_t value, unsigned bytes)
{
    uint64_t little = htole64(value);
    if (w->len + bytes <= ROOM)
        memcpy(w->bytes + w->len, &little, bytes);
    w->len += bytes;
}

/* Structure header (DSP0134, 6.1.2). The handle is the type's number shifted, plus an index. */
static void begin(struct writer *w, uint8_t type, unsigned index)
{
    w->begun = w->len;
    w->count++;
    put(w, type, 1);
    put(w, 0, 1);
    put(w, (unsigned)type << 8 | index, 2);
}

/* The strings behind the formatted area, numbered from 1 by their order; NULL ends them. */
static void end(struct writer *w, const char *const *strings)
{
    if (w->begun + 1 < ROOM)
        w->bytes[w->begun + 1] = (uint8_t)(w->len - w->begun);
    for (unsigned i = 0; strings && strings[i]; i++)
        for (const char *p = strings[i];; p++) {
            put(w, (uint8_t)*p, 1);
            if (!*p)
                break;
        }
    if (!strings)
        put(w, 0, 1);
    put(w, 0, 1);
    if (w->len - w->begun > w->biggest)
        w->biggest = (unsigned)(w->len - w->begun);
}

static const char *const system_strings[] = {"Bailey", "Standard PC (i440FX + PIIX, 1996)",
                                             "pc-i440fx", NULL};
static const char *const chassis_strings[] = {"Bailey", "pc-i440fx", NULL};
static const char *const processor_strings[] = {"CPU 0", "Bailey", "pc-i440fx", NULL};
static const char *const memory_strings[] = {"DIMM 0", "Bailey", NULL};

/* 7.2. Its UUID is all zeroes: none. */
static void add_system(struct writer *w)
{
    enum { POWER_SWITCH = 6 };
    begin(w, 1, 0);
    put(w, 0x030201, 3); /* manufacturer, product, version */
    put(w, 0, 1);        /* serial number */
    put(w, 0, 8);
    put(w, 0, 8);
    put(w, POWER_SWITCH, 1);
    put(w, 0, 2); /* SKU, family */
    end(w, system_strings);
}

/* 7.4 */
static void add_chassis(struct writer *w)
{
    enum { OTHER = 1, SAFE = 3, NO_SECURITY = 3 };
    begin(w, 3, 0);
    put(w, 1, 1);
    put(w, OTHER, 1);
    put(w, 2, 1);
    put(w, 0, 2); /* serial number, asset tag */
    put(w, SAFE, 1);
    put(w, SAFE, 1);
    put(w, SAFE, 1);
    put(w, NO_SECURITY, 1);
    put(w, 0, 4);
    put(w, 0, 5); /* height, power cords, contained elements, SKU */
    end(w, chassis_strings);
}

/* 7.5: one socket for each. */
static void add_processor(struct writer *w, unsigned i)
{
    enum { CENTRAL = 3, OTHER_FAMILY = 1, POPULATED_ENABLED = 0x41, UPGRADE_OTHER = 1 };
    begin(w, 4, i);
    put(w, 1, 1);
    put(w, CENTRAL, 1);
    put(w, OTHER_FAMILY, 1);
    put(w, 2, 1);
    put(w, 0, 8); /* processor id: CPUID tells */
    put(w, 3, 1);
    put(w, 0, 1);    /* voltage */
    put(w, 0, 2);    /* external clock */
    put(w, 2000, 2); /* MHz, at most and now */
    put(w, 2000, 2);
    put(w, POPULATED_ENABLED, 1);
    put(w, UPGRADE_OTHER, 1);
    put(w, 0xffff, 2); /* no cache structures */
    put(w, 0xffff, 2);
    put(w, 0xffff, 2);
    put(w, 0, 3);        /* serial number, asset tag, part number */
    put(w, 0x010101, 3); /* cores, enabled, threads */
    put(w, UNKNOWN, 2);
    put(w, OTHER_FAMILY, 2);
    end(w, processor_strings);
}

/* 7.17, 7.18, 7.20: one array of one module, which is mapped at 0 and at 4 GiB. */
static void add_memory(struct writer *w, const struct firmware_config *config)
{
    enum { SYSTEM_BOARD = 1, SYSTEM_MEMORY = 3, MULTI_BIT_ECC = 6, DIMM = 9, RAM = 7 };
    const uint64_t kib = (config->ram_low + config->ram_high) >> 10, mib = kib >> 10;
    begin(w, 16, 0);
    put(w, SYSTEM_BOARD, 1);
    put(w, SYSTEM_MEMORY, 1);
    put(w, MULTI_BIT_ECC, 1);
    put(w, kib < 0x80000000 ? kib : 0x80000000, 4);
    put(w, 0xfffe, 2); /* no error information */
    put(w, 1, 2);
    put(w, kib < 0x80000000 ? 0 : kib << 10, 8);
    end(w, NULL);

    begin(w, 17, 0);
    put(w, 16 << 8, 2); /* the array */
    put(w, 0xfffe, 2);
    put(w, 0xffff, 2); /* widths: unknown */
    put(w, 0xffff, 2);
    put(w, mib < 0x7fff ? mib : 0x7fff, 2);
    put(w, DIMM, 1);
    put(w, 0, 1);
    put(w, 1, 1);
    put(w, 0, 1);
    put(w, RAM, 1);
    put(w, UNKNOWN, 2);
    put(w, 0, 2); /* speed */
    put(w, 2, 1);
    put(w, 0, 3);
    put(w, 0, 1);
    put(w, mib < 0x7fff ? 0 : mib, 4);
    put(w, 0, 2);
    put(w, 0, 6);
    end(w, memory_strings);

    const struct {
        uint64_t base, size;
    } ranges[] = {{0, config->ram_low}, {1ull << 32, config->ram_high}};
    for (unsigned i = 0; i < 2; i++) {
        if (!ranges[i].size)
            continue;
        begin(w, 19, i);
        put(w, 0xffffffff, 4); /* addresses are in the extended fields */
        put(w, 0xffffffff, 4);
        put(w, 16 << 8, 2);
        put(w, 1, 1);
        put(w, ranges[i].base, 8);
        put(w, ranges[i].base + ranges[i].size - 1, 8);
        end(w, NULL);
    }
}

/* The entry point (5.2.1); the BIOS fills in the address and both checksums. */
static void write_anchor(uint8_t anchor[ANCHOR_SIZE], const struct writer *w)
{
    const uint16_t biggest = htole16((uint16_t)w->biggest), len = htole16((uint16_t)w->len),
                   count = htole16((uint16_t)w->count);
    memset(anchor, 0, ANCHOR_SIZE);
    memcpy(anchor, "_SM_", 4);
    anchor[5] = ANCHOR_SIZE;
    anchor[6] = 2;
    anchor[7] = 8;
    memcpy(anchor + 8, &biggest, 2);
    memcpy(anchor + 16, "_DMI_", 5);
    memcpy(anchor + 22, &len, 2);
    memcpy(anchor + 28, &count, 2);
    anchor[30] = 0x28;
}

bool add_smbios_files(struct firmware_files *files, const struct firmware_config *config,
                      struct error *err)
{
    uint8_t anchor[ANCHOR_SIZE];
    struct writer *w = calloc(1, sizeof(*w));
    if (!w)
        return error_set(err, "no host memory for the SMBIOS tables");
    add_system(w);
    add_chassis(w);
    for (unsigned i = 0; i < config->vcpus; i++)
        add_processor(w, i);
    add_memory(w, config);
    begin(w, 127, 0); /* 7.45: the end */
    end(w, NULL);
    write_anchor(anchor, w);
    bool ok = w->len <= ROOM || error_set(err, "the SMBIOS tables are longer than %d bytes", ROOM);
    ok = ok && add_copy(files, "etc/smbios/smbios-tables", w->bytes, w->len, err) &&
         add_copy(files, "etc/smbios/smbios-anchor", anchor, sizeof(anchor), err);
    free(w);
    return ok;
}
