/*
 * scsi_pages.c - what a SCSI disk tells of itself: INQUIRY with the vital product data of
 * SPC-4, 7.8 and SBC-3, 6.6; mode pages (SPC-4, 7.5 and SBC-3, 6.5), of which the driver can change
 * one bit, the write cache's.
 */
#include "scsi.h"
#include <string.h>

/* ---- INQUIRY -----------------------------------------------------------------------------------
 */

/* Each page writes what follows its 4 bytes of header, and returns how much that is. */
static uint16_t supported_pages(const struct scsi_unit *unit, uint8_t *page);

static unsigned serial_length(const struct scsi_unit *unit)
{
    unsigned len = SCSI_SERIAL;
    while (len && unit->serial[len - 1] == ' ')
        len--;
    return len;
}

static uint16_t serial_number(const struct scsi_unit *unit, uint8_t *page)
{
    unsigned len = serial_length(unit);
    memcpy(page, unit->serial, len);
    return (uint16_t)len;
}

/* Designation descriptors: the serial number, and the world wide name. */
static uint16_t identification(const struct scsi_unit *unit, uint8_t *page)
{
    unsigned len = serial_length(unit), at = 4 + len;
    page[0] = 2; /* ASCII */
    page[1] = 0; /* vendor specific */
    page[3] = (uint8_t)len;
    memcpy(page + 4, unit->serial, len);
    if (unit->wwn) {
        page[at] = 1;     /* binary */
        page[at + 1] = 3; /* NAA */
        page[at + 3] = 8;
        put_be64(page + at + 4, unit->wwn);
        at += 12;
    }
    return (uint16_t)at;
}

static uint16_t block_limits(const struct scsi_unit *unit, uint8_t *page)
{
    enum { GRANULARITY = 8 /* blocks: a page of the host's file system */ };
    page[0] = 1;                /* WSNZ: WRITE SAME of no blocks is refused */
    put_be32(page + 4, 0xffff); /* maximum transfer length */
    if (!blockdev_read_only(unit->image)) {
        put_be32(page + 16, SCSI_MAX_ERASE);
        put_be32(page + 20, SCSI_MAX_UNMAP);
        put_be32(page + 24, GRANULARITY);
    }
    put_be64(page + 32, SCSI_MAX_ERASE); /* maximum WRITE SAME length */
    return 0x3c;
}

static uint16_t characteristics(const struct scsi_unit *unit, uint8_t *page)
{
    (void)unit, (void)page; /* rotation rate and form factor are not reported */
    return 0x3c;
}

static uint16_t provisioning(const struct scsi_unit *unit, uint8_t *page)
{
    if (!blockdev_read_only(unit->image)) {
        page[1] = 0xe0; /* UNMAP, WRITE SAME(16) and (10) give space back */
        page[2] = 2;    /* thin */
    }
    return 4;
}

static const struct {
    uint8_t code;
    uint16_t (*fill)(const struct scsi_unit *unit, uint8_t *page);
} vital_pages[] = {
    {0x00, supported_pages}, {0x80, serial_number},   {0x83, identification},
    {0xb0, block_limits},    {0xb1, characteristics}, {0xb2, provisioning},
};
enum { VITAL_PAGES = sizeof(vital_pages) / sizeof(vital_pages[0]) };

static uint16_t supported_pages(const struct scsi_unit *unit, uint8_t *page)
{
    (void)unit;
    for (unsigned i = 0; i < VITAL_PAGES; i++)
        page[i] = vital_pages[i].code;
    return VITAL_PAGES;
}

static void inquire_page(struct scsi_task *task)
{
    uint8_t reply[128] = {0};
    for (unsigned i = 0; i < VITAL_PAGES; i++) {
        if (vital_pages[i].code != task->cdb[2])
            continue;
        uint16_t len = vital_pages[i].fill(task->unit, reply + 4);
        reply[0] = task->unit->type->device_type;
        reply[1] = task->cdb[2];
        put_be16(reply + 2, len);
        scsi_reply(task, reply, 4u + len, be16(task->cdb + 3));
        return;
    }
    scsi_invalid_field(task);
}

void scsi_disk_inquiry(struct scsi_task *task)
{
    uint8_t reply[36] = {0};
    if (task->cdb[1] & 1) {
        inquire_page(task);
        return;
    }
    if (task->cdb[2] || task->cdb[1]) {
        scsi_invalid_field(task);
        return;
    }
    reply[0] = task->unit->type->device_type;
    reply[2] = 0x05; /* SPC-3: what initiators know from QEMU */
    reply[3] = 0x12; /* hierarchical LUNs; response data format 2 */
    reply[4] = sizeof(reply) - 5;
    reply[7] = 0x02; /* command queueing */
    memcpy(reply + 8, "BAILEY  BAILEY HARDDISK 1.0 ", 28);
    scsi_reply(task, reply, sizeof(reply), be16(task->cdb + 3));
}

/* ---- Mode pages --------------------------------------------------------------------------------
 */

enum page_control { CURRENT = 0, CHANGEABLE = 1, DEFAULT = 2, SAVED = 3 };
enum { WCE = 0x04, MODE_HEADER_6 = 4, MODE_HEADER_10 = 8, BLOCK_DESCRIPTOR = 8, PAGES_MAX = 64 };

static void caching(const struct scsi_unit *unit, uint8_t *page, enum page_control control)
{
    bool on = control == CHANGEABLE ? true
              : control == DEFAULT  ? blockdev_default_write_cache(unit->image)
                                    : unit->write_cache;
    page[2] = on ? WCE : 0;
}

static void all_zeroes(const struct scsi_unit *unit, uint8_t *page, enum page_control control)
{
    (void)unit, (void)page, (void)control;
}

static const struct {
    uint8_t code, length; /* of what follows the first two bytes */
    void (*fill)(const struct scsi_unit *unit, uint8_t *page, enum page_control control);
} mode_pages[] = {
    {0x01, 0x0a, all_zeroes}, /* read-write error recovery */
    {0x08, 0x12, caching},
    {0x0a, 0x0a, all_zeroes}, /* control */
};
enum { MODE_PAGES = sizeof(mode_pages) / sizeof(mode_pages[0]) };

static unsigned fill_mode_page(const struct scsi_unit *unit, unsigned i, uint8_t *page,
                               enum page_control control)
{
    memset(page, 0, 2u + mode_pages[i].length);
    page[0] = mode_pages[i].code;
    page[1] = mode_pages[i].length;
    mode_pages[i].fill(unit, page, control);
    return 2u + mode_pages[i].length;
}

static void block_descriptor(const struct scsi_unit *unit, uint8_t *at)
{
    uint64_t blocks = blockdev_size(unit->image) / SCSI_BLOCK;
    put_be32(at, blocks > UINT32_MAX ? UINT32_MAX : (uint32_t)blocks);
    put_be32(at + 4, SCSI_BLOCK);
}

void scsi_disk_mode_sense(struct scsi_task *task)
{
    const struct scsi_unit *unit = task->unit;
    const uint8_t *cdb = task->cdb;
    bool ten = cdb[0] == 0x5a, found = false;
    uint8_t reply[MODE_HEADER_10 + BLOCK_DESCRIPTOR + PAGES_MAX] = {0};
    unsigned header = ten ? MODE_HEADER_10 : MODE_HEADER_6, len = header;
    enum page_control control = cdb[2] >> 6;
    uint8_t wanted = cdb[2] & 0x3f;
    if (control == SAVED) {
        scsi_check(task, SENSE_ILLEGAL_REQUEST, ASC_SAVING_UNSUPPORTED);
        return;
    }
    if (cdb[3] && cdb[3] != 0xff) { /* subpages: none, or all of them */
        scsi_invalid_field(task);
        return;
    }
    if (!(cdb[1] & 0x08)) { /* DBD */
        block_descriptor(unit, reply + len);
        len += BLOCK_DESCRIPTOR;
        reply[header - 1] = BLOCK_DESCRIPTOR;
    }
    for (unsigned i = 0; i < MODE_PAGES; i++)
        if (wanted == 0x3f || wanted == mode_pages[i].code) {
            len += fill_mode_page(unit, i, reply + len, control);
            found = true;
        }
    if (!found) {
        scsi_invalid_field(task);
        return;
    }
    uint8_t specific = (uint8_t)((blockdev_read_only(unit->image) ? 0x80 : 0) | 0x10); /* DPOFUA */
    reply[ten ? 3 : 2] = specific;
    if (ten)
        put_be16(reply, (uint16_t)(len - 2));
    else
        reply[0] = (uint8_t)(len - 1);
    scsi_reply(task, reply, len, ten ? be16(cdb + 7) : cdb[4]);
}

/* One page of MODE SELECT: nothing may differ but what can be changed. */
static bool page_acceptable(const struct scsi_unit *unit, const uint8_t *page, uint32_t left,
                            uint32_t *size, uint8_t *cache)
{
    uint8_t current[PAGES_MAX], changeable[PAGES_MAX];
    for (unsigned i = 0; i < MODE_PAGES; i++) {
        if (left < 2 || page[0] != mode_pages[i].code || page[1] != mode_pages[i].length)
            continue;
        *size = fill_mode_page(unit, i, current, CURRENT);
        fill_mode_page(unit, i, changeable, CHANGEABLE);
        if (*size > left)
            return false;
        for (unsigned n = 2; n < *size; n++)
            if ((page[n] ^ current[n]) & ~changeable[n])
                return false;
        if (page[0] == 0x08)
            *cache = (page[2] & WCE) != 0;
        return true;
    }
    return false;
}

void scsi_disk_mode_select(struct scsi_task *task)
{
    enum { SP = 0x01, PF = 0x10 };
    struct scsi_unit *unit = task->unit;
    bool ten = task->cdb[0] == 0x55;
    uint32_t len = ten ? be16(task->cdb + 7) : task->cdb[4], size;
    unsigned header = ten ? MODE_HEADER_10 : MODE_HEADER_6;
    uint8_t cache = unit->write_cache;
    if (task->cdb[1] & SP || !(task->cdb[1] & PF)) {
        scsi_invalid_field(task);
        return;
    }
    if (len == 0) {
        scsi_good(task);
        return;
    }
    if (!scsi_parameters(task, len))
        return;
    const uint8_t *list = task->iov.iov_base;
    uint32_t at = header + (len < header ? 0 : ten ? be16(list + 6) : list[3]);
    if (len < at) {
        scsi_check(task, SENSE_ILLEGAL_REQUEST, ASC_PARAMETER_LENGTH);
        return;
    }
    /* The disk keeps its size, whatever a block descriptor says; blocks have one size. */
    bool good = at == header || (at == header + BLOCK_DESCRIPTOR &&
                                 (be32(list + header + 4) & 0xffffff) == SCSI_BLOCK);
    for (; good && at < len; at += size)
        good = page_acceptable(unit, list + at, len - at, &size, &cache);
    if (!good) {
        scsi_check(task, SENSE_ILLEGAL_REQUEST, ASC_INVALID_PARAMETER);
        return;
    }
    bool flush = unit->write_cache && !cache; /* what is in it goes to the medium */
    unit->write_cache = cache;
    blockdev_set_write_cache(unit->image, cache);
    if (flush)
        scsi_flush(task);
    else
        scsi_good(task);
}
