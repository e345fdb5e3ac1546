/*
 * ata_identify.c - IDENTIFY DEVICE and IDENTIFY PACKET DEVICE (ATA-7, 6.17 and 6.18; words 105, 169
 * of ACS-2): 256 words, the constant ones in two tables.
 */
#include "ata.h"
#include <string.h>

#define MAX_CYLINDERS 16383u
#define MAX_CHS       (MAX_CYLINDERS * 16 * 63)
#define MAX_LBA28     0x0fffffffu
#define WORDS(a)      (sizeof(a) / sizeof((a)[0]))

struct word {
    uint8_t index;
    uint16_t value;
};

static const struct word disk_words[] = {
    {0, 0x0040},                              /* ATA device, not removable */
    {3, 16},                                  /* heads of the default translation */
    {6, 63},                                  /* its sectors per track; word 1 has the cylinders */
    {47, 0x8010},                             /* at most 16 sectors per interrupt */
    {48, 1},                                  /* the data port takes 32-bit accesses */
    {49, 0x0b00},                             /* IORDY, LBA, DMA */
    {50, 0x4000}, {51, 0x0200}, {53, 0x0007}, /* words 54-58, 64-70 and 88 are valid */
    {64, 0x0003},                             /* PIO 3 and 4 */
    {65, 120},    {66, 120},    {67, 120},    {68, 120}, /* cycle times, ns */
    {80, 0x00f0},                                        /* ATA/ATAPI-4 to -7 */
    {81, 0x0016},                                        /* -7 revision 4 */
    {82, 0x4061},                                        /* NOP, look-ahead, write cache, SMART */
    {83, 0x7400},                                        /* FLUSH CACHE and EXT, 48-bit addresses */
    {84, 0x4063}, /* FUA, general purpose log, SMART self-test and error log */
    {86, 0x3400}, {87, 0x4063}, {105, 8}, /* blocks of TRIM ranges per command */
    {169, 1},                             /* TRIM */
};

static const struct word cdrom_words[] = {
    {0, 0x85c0},  /* PACKET device, CD-ROM, removable, DRQ within 50 us, 12-byte packets */
    {49, 0x0b00}, /* IORDY, LBA, DMA */
    {50, 0x4000}, {53, 0x0006}, /* words 64-70 and 88 are valid */
    {64, 0x0003}, {65, 120},    {66, 120},    {67, 120}, {68, 120},
    {71, 30},     {72, 30}, /* ns to release the bus, to clear BSY after SERVICE */
    {80, 0x00f0}, {81, 0x0016}, {82, 0x4210}, /* NOP, DEVICE RESET, PACKET */
    {83, 0x4000}, {84, 0x4000}, {85, 0x4210}, {86, 0},   {87, 0x4000},
};

static void put(uint8_t *page, unsigned word, uint64_t value)
{
    page[2 * word] = (uint8_t)value;
    page[2 * word + 1] = (uint8_t)(value >> 8);
}

static void put_many(uint8_t *page, unsigned word, unsigned count, uint64_t value)
{
    for (unsigned i = 0; i < count; i++)
        put(page, word + i, value >> 16 * i);
}

/* The first character of each pair is in the word's high byte. */
static void put_text(uint8_t *page, unsigned word, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        page[2 * word + (i ^ 1)] = (uint8_t)text[i];
}

static void put_modes(const struct ata_drive *d, uint8_t *page)
{
    unsigned kind = d->dma_mode >> 3, mode = d->dma_mode & 7;
    put(page, 63, 0x07 | (kind == 4 ? 0x100u << mode : 0));
    put(page, 88, 0x3f | (kind == 8 ? 0x100u << mode : 0));
    if (!d->host->sata)
        put(page, 93, 0x600b | (d->unit ? 0x0200 : 0)); /* 80 wires, diagnostics passed */
}

static void put_disk(const struct ata_drive *d, uint8_t *page)
{
    uint64_t chs = d->sectors > MAX_CHS ? MAX_CHS : d->sectors;
    unsigned cylinders = (unsigned)(chs / (16 * 63));
    unsigned track = (unsigned)d->heads * d->track_sectors;
    uint64_t now = d->sectors / track > 65535 ? 65535 : d->sectors / track;
    put(page, 1, cylinders);
    put(page, 54, now);
    put(page, 55, d->heads);
    put(page, 56, d->track_sectors);
    put_many(page, 57, 2, now * track);
    put(page, 59, d->multiple ? 0x100u | d->multiple : 0);
    put_many(page, 60, 2, d->sectors > MAX_LBA28 ? MAX_LBA28 : d->sectors);
    put(page, 85, 0x4000 | (d->read_ahead ? 0x40 : 0) | (d->write_cache ? 0x20 : 0) | d->smart);
    put_many(page, 100, 4, d->sectors);
    if (d->host->sata) {
        put(page, 75, ATA_TAGS - 1);
        put(page, 76, 0x0102); /* native command queueing, 1.5 Gb/s */
        put(page, 93, 0);
    }
}

static void put_wwn(const struct ata_drive *d, uint8_t *page)
{
    if (!d->wwn)
        return;
    page[2 * 84 + 1] |= 1;
    page[2 * 87 + 1] |= 1;
    for (unsigned i = 0; i < 4; i++)
        put(page, 108 + i, d->wwn >> (48 - 16 * i));
}

void ata_identify(const struct ata_drive *d, uint8_t page[ATA_SECTOR])
{
    const struct word *words = d->cdrom ? cdrom_words : disk_words;
    size_t count = d->cdrom ? WORDS(cdrom_words) : WORDS(disk_words);
    uint8_t sum = 0;
    memset(page, 0, ATA_SECTOR);
    for (size_t i = 0; i < count; i++)
        put(page, words[i].index, words[i].value);
    put_text(page, 10, d->serial, sizeof(d->serial));
    put_text(page, 23, d->firmware, sizeof(d->firmware));
    put_text(page, 27, d->model, sizeof(d->model));
    put_modes(d, page);
    if (!d->cdrom)
        put_disk(d, page);
    put_wwn(d, page);
    page[510] = 0xa5; /* word 255: the page's bytes add up to 0 */
    for (unsigned i = 0; i < 511; i++)
        sum = (uint8_t)(sum + page[i]);
    page[511] = (uint8_t)-sum;
}
