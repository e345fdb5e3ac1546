/*
 * smbios.c - the SMBIOS tables, that is, what `dmidecode` shows (DMTF DSP0134, System Management
 * BIOS 2.8): system, enclosure, processors, memory, and what the user says of them. Unless that has
 * a type 0 a BIOS adds what it says of itself.
 */
#include "internal/smbios.h"
#include "files.h"
#include "internal/error.h"
#include "tables.h"
#include <endian.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = SMBIOS_ROOM, ANCHOR_SIZE = 31, UNKNOWN = 2, STRINGS = SMBIOS_OEM_STRINGS };
#define MIB (1ull << 20)

#define MAKER   "Bailey"
#define PRODUCT "Standard PC (i440FX + PIIX, 1996)"
#define MODEL   "pc-i440fx"

struct writer {
    const struct smbios_config *said;
    uint8_t bytes[ROOM];
    size_t len;
    size_t begun; /* where the present structure begins */
    const char *strings[STRINGS];
    unsigned string_count;
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
static unsigned handle(uint8_t type, unsigned index)
{
    return (unsigned)type << 8 | index;
}

static void begin(struct writer *w, uint8_t type, unsigned index)
{
    w->begun = w->len;
    w->string_count = 0;
    w->count++;
    put(w, type, 1);
    put(w, 0, 1);
    put(w, handle(type, index), 2);
}

/* A string's number: they follow the formatted area in this order, the first is 1. 0: none. */
static void put_string(struct writer *w, const char *string)
{
    bool there = string && *string && w->string_count < STRINGS;
    if (there)
        w->strings[w->string_count++] = string;
    put(w, there ? w->string_count : 0, 1);
}

/* What the user says, or else what we say. */
static void put_text(struct writer *w, enum smbios_text text, const char *otherwise)
{
    const char *said = w->said ? w->said->text[text] : NULL;
    put_string(w, said ? said : otherwise);
}

static void end(struct writer *w)
{
    if (w->begun + 1 < ROOM)
        w->bytes[w->begun + 1] = (uint8_t)(w->len - w->begun);
    for (unsigned i = 0; i < w->string_count; i++)
        for (const char *p = w->strings[i];; p++) {
            put(w, (uint8_t)*p, 1);
            if (!*p)
                break;
        }
    if (!w->string_count)
        put(w, 0, 1);
    put(w, 0, 1);
    if (w->len - w->begun > w->biggest)
        w->biggest = (unsigned)(w->len - w->begun);
}

/* 7.1. Of its characteristics none are told but that it is a virtual machine's, and UEFI. */
static void add_bios(struct writer *w)
{
    enum { SEGMENT = 0xe800, NOT_SUPPORTED = 1 << 3, NO_EC = 0xffff };
    enum { EXTENDED_UEFI = 1 << 3, EXTENDED_DISTRIBUTION = 1 << 2, EXTENDED_VIRTUAL = 1 << 4 };
    if (!w->said || !w->said->bios)
        return;
    begin(w, 0, 0);
    put_text(w, SMBIOS_BIOS_VENDOR, NULL);
    put_text(w, SMBIOS_BIOS_VERSION, NULL);
    put(w, SEGMENT, 2);
    put_text(w, SMBIOS_BIOS_DATE, NULL);
    put(w, 0, 1); /* 64 KiB */
    put(w, NOT_SUPPORTED, 8);
    put(w, 0, 1);
    put(w, EXTENDED_DISTRIBUTION | EXTENDED_VIRTUAL | (w->said->uefi ? EXTENDED_UEFI : 0), 1);
    put(w, w->said->release[0], 1);
    put(w, w->said->release[1], 1);
    put(w, NO_EC, 2);
    end(w);
}

/* 7.2.1: the first three of a UUID's fields are little-endian. */
static void put_uuid(struct writer *w)
{
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    for (unsigned i = 0; i < 16; i++)
        put(w, w->said && w->said->has_uuid ? w->said->uuid[order[i]] : 0, 1);
}

/* 7.2. A UUID of zeroes: none. */
static void add_system(struct writer *w)
{
    enum { POWER_SWITCH = 6 };
    begin(w, 1, 0);
    put_text(w, SMBIOS_SYSTEM_MANUFACTURER, MAKER);
    put_text(w, SMBIOS_SYSTEM_PRODUCT, PRODUCT);
    put_text(w, SMBIOS_SYSTEM_VERSION, MODEL);
    put_text(w, SMBIOS_SYSTEM_SERIAL, NULL);
    put_uuid(w);
    put(w, POWER_SWITCH, 1);
    put_text(w, SMBIOS_SYSTEM_SKU, NULL);
    put_text(w, SMBIOS_SYSTEM_FAMILY, NULL);
    end(w);
}

/* 7.3 */
static void add_board(struct writer *w)
{
    enum { HOSTING = 1, MOTHERBOARD = 0x0a };
    if (!w->said || !w->said->board)
        return;
    begin(w, 2, 0);
    put_text(w, SMBIOS_BOARD_MANUFACTURER, MAKER);
    put_text(w, SMBIOS_BOARD_PRODUCT, PRODUCT);
    put_text(w, SMBIOS_BOARD_VERSION, MODEL);
    put_text(w, SMBIOS_BOARD_SERIAL, NULL);
    put_text(w, SMBIOS_BOARD_ASSET, NULL);
    put(w, HOSTING, 1);
    put_text(w, SMBIOS_BOARD_LOCATION, NULL);
    put(w, handle(3, 0), 2); /* the chassis */
    put(w, MOTHERBOARD, 1);
    put(w, 0, 1); /* contained objects */
    end(w);
}

/* 7.4 */
static void add_chassis(struct writer *w)
{
    enum { OTHER = 1, SAFE = 3, NO_SECURITY = 3 };
    begin(w, 3, 0);
    put_text(w, SMBIOS_CHASSIS_MANUFACTURER, MAKER);
    put(w, OTHER, 1);
    put_text(w, SMBIOS_CHASSIS_VERSION, MODEL);
    put_text(w, SMBIOS_CHASSIS_SERIAL, NULL);
    put_text(w, SMBIOS_CHASSIS_ASSET, NULL);
    put(w, SAFE, 1);
    put(w, SAFE, 1);
    put(w, SAFE, 1);
    put(w, NO_SECURITY, 1);
    put(w, 0, 4);
    put(w, 0, 4); /* height, power cords, contained elements */
    put_text(w, SMBIOS_CHASSIS_SKU, NULL);
    end(w);
}

/* 7.12 */
static void add_oem_strings(struct writer *w)
{
    if (!w->said || !w->said->oem_count)
        return;
    begin(w, 11, 0);
    put(w, w->said->oem_count, 1);
    for (unsigned i = 0; i < w->said->oem_count; i++)
        w->strings[w->string_count++] = w->said->oem[i];
    end(w);
}

/* 7.5: one socket for each. */
static void add_processor(struct writer *w, unsigned i)
{
    enum { CENTRAL = 3, OTHER_FAMILY = 1, POPULATED_ENABLED = 0x41, UPGRADE_OTHER = 1 };
    begin(w, 4, i);
    put_string(w, "CPU 0");
    put(w, CENTRAL, 1);
    put(w, OTHER_FAMILY, 1);
    put_string(w, MAKER);
    put(w, 0, 8); /* processor id: CPUID tells */
    put_string(w, MODEL);
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
    end(w);
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
    end(w);

    begin(w, 17, 0);
    put(w, handle(16, 0), 2); /* the array */
    put(w, 0xfffe, 2);
    put(w, 0xffff, 2); /* widths: unknown */
    put(w, 0xffff, 2);
    put(w, mib < 0x7fff ? mib : 0x7fff, 2);
    put(w, DIMM, 1);
    put(w, 0, 1);
    put_string(w, "DIMM 0");
    put(w, 0, 1);
    put(w, RAM, 1);
    put(w, UNKNOWN, 2);
    put(w, 0, 2); /* speed */
    put_string(w, MAKER);
    put(w, 0, 3);
    put(w, 0, 1);
    put(w, mib < 0x7fff ? 0 : mib, 4);
    put(w, 0, 2);
    put(w, 0, 6);
    end(w);

    const struct {
        uint64_t base, size;
    } ranges[] = {{0, config->ram_low}, {1ull << 32, config->ram_high}};
    for (unsigned i = 0; i < 2; i++) {
        if (!ranges[i].size)
            continue;
        begin(w, 19, i);
        put(w, 0xffffffff, 4); /* addresses are in the extended fields */
        put(w, 0xffffffff, 4);
        put(w, handle(16, 0), 2);
        put(w, 1, 1);
        put(w, ranges[i].base, 8);
        put(w, ranges[i].base + ranges[i].size - 1, 8);
        end(w);
    }
}

/* The entry point (5.2.1), but for the address and both checksums. */
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

static struct writer *build(const struct firmware_config *config, uint8_t anchor[ANCHOR_SIZE],
                            struct error *err)
{
    struct writer *w = calloc(1, sizeof(*w));
    if (!w) {
        error_set(err, "no host memory for the SMBIOS tables");
        return NULL;
    }
    w->said = config->smbios;
    add_bios(w);
    add_system(w);
    add_board(w);
    add_chassis(w);
    for (unsigned i = 0; i < config->vcpus; i++)
        add_processor(w, i);
    add_oem_strings(w);
    add_memory(w, config);
    begin(w, 127, 0); /* 7.45: the end */
    end(w);
    write_anchor(anchor, w);
    if (w->len <= ROOM)
        return w;
    error_set(err, "-smbios: the tables would be longer than %d bytes", ROOM);
    free(w);
    return NULL;
}

bool add_smbios_files(struct firmware_files *files, const struct firmware_config *config,
                      struct error *err)
{
    uint8_t anchor[ANCHOR_SIZE];
    struct writer *w = build(config, anchor, err);
    bool ok = w && add_copy(files, "etc/smbios/smbios-tables", w->bytes, w->len, err) &&
              add_copy(files, "etc/smbios/smbios-anchor", anchor, sizeof(anchor), err);
    free(w);
    return ok;
}

/* Both parts of the entry point have their checksum (5.2.1). */
bool smbios_place(const struct firmware_config *config, uint8_t *area, struct error *err)
{
    enum { CHECKSUM = 4, MIDDLE = 16, MIDDLE_CHECKSUM = 5, ADDRESS = 24, TABLES = 32 };
    uint8_t *anchor = area + (SMBIOS_ANCHOR - FIRMWARE_AREA);
    const uint32_t gpa = htole32(SMBIOS_ANCHOR + TABLES);
    struct writer *w = build(config, anchor, err);
    if (!w)
        return false;
    memcpy(anchor + ADDRESS, &gpa, 4);
    memcpy(anchor + TABLES, w->bytes, w->len);
    area_checksum(anchor + MIDDLE, ANCHOR_SIZE - MIDDLE, MIDDLE_CHECKSUM);
    area_checksum(anchor, ANCHOR_SIZE, CHECKSUM);
    free(w);
    return true;
}
