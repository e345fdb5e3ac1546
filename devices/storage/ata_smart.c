/*
 * ata_smart.c - SMART (ATA-7, 6.52) of a disk that never fails, and READ LOG EXT (6.29).
 *
 * There are a few attributes with constant values, an empty error log and an empty self-test log.
 */
#include "ata.h"
#include <string.h>

enum {
    SMART_READ_DATA = 0xd0,
    SMART_READ_THRESHOLDS = 0xd1,
    SMART_AUTOSAVE = 0xd2,
    SMART_OFFLINE = 0xd4,
    SMART_READ_LOG = 0xd5,
    SMART_ENABLE = 0xd8,
    SMART_DISABLE = 0xd9,
    SMART_STATUS = 0xda,
};
enum { LOG_DIRECTORY = 0, LOG_ERRORS = 1, LOG_SELF_TEST = 6, LOG_QUEUED_ERROR = 0x10 };

static const struct {
    uint8_t id, flags, value, threshold, raw;
} attributes[] = {
    {1, 0x03, 100, 6, 0},    /* raw read error rate */
    {3, 0x03, 100, 0, 16},   /* spin-up time */
    {4, 0x02, 100, 20, 100}, /* starts and stops */
    {5, 0x03, 100, 36, 0},   /* reallocated sectors */
    {9, 0x03, 100, 0, 1},    /* hours powered on */
    {12, 0x03, 100, 0, 0},   /* power cycles */
    {190, 0x03, 69, 50, 31}, /* temperature, C */
};

/* The last byte makes all of them add up to 0. */
static void reply(struct ata_drive *d)
{
    uint8_t sum = 0;
    for (unsigned i = 0; i < ATA_SECTOR - 1; i++)
        sum = (uint8_t)(sum + d->buffer[i]);
    d->buffer[ATA_SECTOR - 1] = (uint8_t)-sum;
    ata_reply(d, ATA_SECTOR);
}

static void read_data(struct ata_drive *d)
{
    uint8_t *page = d->buffer;
    page[0] = 1; /* revision */
    for (unsigned i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++) {
        uint8_t *at = page + 2 + 12 * i;
        at[0] = attributes[i].id;
        at[1] = attributes[i].flags;
        at[3] = at[4] = attributes[i].value; /* now, and at the worst */
        at[5] = attributes[i].raw;
    }
    page[362] = 0x02; /* off-line data collection: done */
    page[366] = 120;  /* s that it would take */
    page[367] = 0x19; /* capabilities: SMART EXECUTE OFF-LINE, self-test */
    page[368] = 0x03;
    page[370] = 0x01;
    page[372] = 2; /* minutes of a short self-test */
    page[373] = 54;
    reply(d);
}

static void read_thresholds(struct ata_drive *d)
{
    d->buffer[0] = 1;
    for (unsigned i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++) {
        d->buffer[2 + 12 * i] = attributes[i].id;
        d->buffer[3 + 12 * i] = attributes[i].threshold;
    }
    reply(d);
}

static void read_smart_log(struct ata_drive *d)
{
    switch (d->regs.lba[0]) {
    case LOG_DIRECTORY:
        d->buffer[0] = 1;
        d->buffer[2 * LOG_ERRORS] = d->buffer[2 * LOG_SELF_TEST] = 1; /* pages */
        ata_reply(d, ATA_SECTOR);
        break;
    case LOG_ERRORS:
    case LOG_SELF_TEST:
        d->buffer[0] = 1;
        reply(d);
        break;
    default:
        ata_fail(d, ATA_ABRT);
    }
}

void ata_smart(struct ata_drive *d, unsigned flags)
{
    bool enable = d->regs.feature == SMART_ENABLE;
    (void)flags;
    if (d->regs.lba[1] != 0x4f || d->regs.lba[2] != 0xc2 || (!d->smart && !enable)) {
        ata_fail(d, ATA_ABRT);
        return;
    }
    memset(d->buffer, 0, ATA_SECTOR);
    switch (d->regs.feature) {
    case SMART_READ_DATA:
        read_data(d);
        break;
    case SMART_READ_THRESHOLDS:
        read_thresholds(d);
        break;
    case SMART_READ_LOG:
        read_smart_log(d);
        break;
    case SMART_ENABLE:
    case SMART_DISABLE:
        d->smart = enable;
        ata_done(d);
        break;
    case SMART_AUTOSAVE:
    case SMART_OFFLINE: /* a test that has found nothing already */
    case SMART_STATUS:  /* the key unchanged: no threshold exceeded */
        ata_done(d);
        break;
    default:
        ata_fail(d, ATA_ABRT);
    }
}

/* Page 10h says which queued command failed, and takes the drive out of its error state. */
void ata_read_log(struct ata_drive *d, unsigned flags)
{
    unsigned page = d->regs.lba[1] | (unsigned)d->regs.hob_lba[1] << 8;
    unsigned count = d->regs.count | (unsigned)d->regs.hob_count << 8;
    (void)flags;
    memset(d->buffer, 0, ATA_SECTOR);
    if (page || count != 1) {
        ata_fail(d, ATA_ABRT);
        return;
    }
    if (d->regs.lba[0] == LOG_DIRECTORY) {
        d->buffer[0] = 1;
        d->buffer[2 * LOG_QUEUED_ERROR] = d->queued != NULL;
        ata_reply(d, ATA_SECTOR);
    } else if (d->regs.lba[0] == LOG_QUEUED_ERROR && d->queued) {
        if (d->queued_failed)
            memcpy(d->buffer, d->queued_log, sizeof(d->queued_log));
        else
            d->buffer[0] = 0x80; /* NQ: no queued command failed */
        d->queued_failed = 0;
        reply(d);
    } else {
        ata_fail(d, ATA_ABRT);
    }
}
