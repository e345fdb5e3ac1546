/*
 * ata_commands.c - the ATA command set as a table, and the commands that need no data of the image
 * (ata_rw.c has those that do). What is not in the table is aborted (ATA-7, 6).
 */
#include "ata.h"
#include <string.h>

typedef void command_fn(struct ata_drive *d, unsigned flags);

static void abort_command(struct ata_drive *d)
{
    ata_fail(d, ATA_ABRT);
}

static void nothing(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    ata_done(d);
}

static void nop(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    abort_command(d); /* 6.22: always */
}

static void flush(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    if (d->sectors)
        ata_flush_start(d);
    else
        ata_done(d);
}

/* ---- Identification and addressing -------------------------------------------------------------
 */

static void identify(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    ata_identify(d, d->buffer);
    ata_reply(d, ATA_SECTOR);
}

/* 6.11: both drives do it, whichever is selected; the channel sees to that. */
static void diagnose(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    d->regs.device = 0;
    ata_set_signature(d);
    d->regs.error = 1; /* passed */
    ata_done(d);
    if (d->cdrom)
        d->regs.status = 0;
}

/* INITIALIZE DEVICE PARAMETERS (ATA-5, 8.12): heads and sectors of CHS addresses. */
static void set_geometry(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    if (!d->regs.count) {
        abort_command(d);
        return;
    }
    d->heads = (uint16_t)((d->regs.device & 0x0f) + 1);
    d->track_sectors = d->regs.count;
    ata_done(d);
}

static void set_multiple(struct ata_drive *d, unsigned flags)
{
    uint8_t n = d->regs.count;
    (void)flags;
    if (n > 16 || (n & (n - 1))) {
        abort_command(d);
        return;
    }
    d->multiple = n;
    ata_done(d);
}

/* READ NATIVE MAX ADDRESS: the last sector; nothing is hidden. */
static void native_max(struct ata_drive *d, unsigned flags)
{
    uint64_t last = d->sectors ? d->sectors - 1 : 0;
    if (!(flags & ATA_CMD_48) && last > 0x0fffffff)
        last = 0x0fffffff;
    d->regs.device |= ATA_LBA;
    ata_put_address(d, last);
    ata_done(d);
}

static void seek(struct ata_drive *d, unsigned flags)
{
    d->regs.count = 1;
    ata_rw_start(d, flags | ATA_CMD_VERIFY);
}

/* ---- SET FEATURES ------------------------------------------------------------------------------
 */

/* 03h: PIO modes change nothing here; DMA modes are shown by IDENTIFY. */
static bool set_transfer_mode(struct ata_drive *d)
{
    uint8_t mode = d->regs.count & 7;
    switch (d->regs.count >> 3) {
    case 0: /* default PIO */
        return mode <= 1;
    case 1: /* PIO with flow control */
        return mode <= 4;
    case 4: /* multiword DMA */
        if (mode > 2)
            return false;
        break;
    case 8: /* Ultra DMA */
        if (mode > 5)
            return false;
        break;
    default:
        return false;
    }
    d->dma_mode = d->regs.count;
    return true;
}

static void set_write_cache(struct ata_drive *d, bool on)
{
    d->write_cache = on;
    blockdev_set_write_cache(d->image, on);
    if (on)
        ata_done(d);
    else
        flush(d, 0); /* what has been acknowledged is now promised to be on the disk */
}

static void set_features(struct ata_drive *d, unsigned flags)
{
    bool ok = true;
    (void)flags;
    switch (d->regs.feature) {
    case 0x02:
    case 0x82:
        if (!d->cdrom) {
            set_write_cache(d, d->regs.feature == 0x02);
            return;
        }
        ok = false;
        break;
    case 0x03:
        ok = set_transfer_mode(d);
        break;
    case 0x55: /* read look-ahead off, on */
    case 0xaa:
        ok = !d->cdrom;
        d->read_ahead = d->regs.feature == 0xaa;
        break;
    case 0x66: /* keep settings over a soft reset, or not: they are kept */
    case 0xcc:
        break;
    default:
        ok = false;
    }
    if (ok)
        ata_done(d);
    else
        abort_command(d);
}

/* ---- Power -------------------------------------------------------------------------------------
 */

static void standby(struct ata_drive *d, unsigned flags)
{
    d->standby = 1;
    flush(d, flags);
}

static void idle(struct ata_drive *d, unsigned flags)
{
    d->standby = 0;
    nothing(d, flags);
}

static void check_power(struct ata_drive *d, unsigned flags)
{
    d->regs.count = d->standby ? 0x00 : 0xff;
    nothing(d, flags);
}

static void device_reset(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    ata_device_reset(d);
}

/* ---- The table ---------------------------------------------------------------------------------
 */

#define DISK  ATA_CMD_DISK
#define CDROM ATA_CMD_CDROM
#define BOTH  (DISK | CDROM)
#define EXT   ATA_CMD_48
#define DMA   ATA_CMD_DMA
#define WRITE ATA_CMD_WRITE
#define MULTI ATA_CMD_MULTIPLE
#define FORCE ATA_CMD_FORCE

static const struct {
    command_fn *run;
    unsigned flags;
} commands[256] = {
    [0x00] = {nop, BOTH},
    [0x06] = {ata_trim_start, DISK}, /* DATA SET MANAGEMENT */
    [0x08] = {device_reset, CDROM},
    [0x10] = {nothing, DISK},      /* RECALIBRATE */
    [0x20] = {ata_rw_start, DISK}, /* READ SECTORS */
    [0x21] = {ata_rw_start, DISK},
    [0x24] = {ata_rw_start, DISK | EXT},
    [0x25] = {ata_rw_start, DISK | EXT | DMA},
    [0x27] = {native_max, DISK | EXT},
    [0x29] = {ata_rw_start, DISK | EXT | MULTI},
    [0x2f] = {ata_read_log, DISK},
    [0x30] = {ata_rw_start, DISK | WRITE}, /* WRITE SECTORS */
    [0x31] = {ata_rw_start, DISK | WRITE},
    [0x34] = {ata_rw_start, DISK | WRITE | EXT},
    [0x35] = {ata_rw_start, DISK | WRITE | EXT | DMA},
    [0x39] = {ata_rw_start, DISK | WRITE | EXT | MULTI},
    [0x3d] = {ata_rw_start, DISK | WRITE | EXT | DMA | FORCE},
    [0x40] = {ata_rw_start, DISK | ATA_CMD_VERIFY}, /* READ VERIFY SECTORS */
    [0x41] = {ata_rw_start, DISK | ATA_CMD_VERIFY},
    [0x42] = {ata_rw_start, DISK | ATA_CMD_VERIFY | EXT},
    [0x70] = {seek, DISK},
    [0x90] = {diagnose, BOTH},
    [0x91] = {set_geometry, DISK},
    [0x94] = {standby, BOTH}, /* IMMEDIATE, and the first numbers of these four */
    [0x95] = {idle, BOTH},
    [0x96] = {standby, BOTH},
    [0x97] = {idle, BOTH},
    [0x98] = {check_power, BOTH},
    [0x99] = {standby, BOTH}, /* SLEEP; here any command wakes the drive up */
    [0xa0] = {atapi_packet, CDROM},
    [0xa1] = {identify, CDROM},
    [0xb0] = {ata_smart, DISK},
    [0xc4] = {ata_rw_start, DISK | MULTI},
    [0xc5] = {ata_rw_start, DISK | WRITE | MULTI},
    [0xc6] = {set_multiple, DISK},
    [0xc8] = {ata_rw_start, DISK | DMA},
    [0xc9] = {ata_rw_start, DISK | DMA},
    [0xca] = {ata_rw_start, DISK | WRITE | DMA},
    [0xcb] = {ata_rw_start, DISK | WRITE | DMA},
    [0xce] = {ata_rw_start, DISK | WRITE | EXT | MULTI | FORCE},
    [0xe0] = {standby, BOTH},
    [0xe1] = {idle, BOTH},
    [0xe2] = {standby, BOTH},
    [0xe3] = {idle, BOTH},
    [0xe5] = {check_power, BOTH},
    [0xe6] = {standby, BOTH},
    [0xe7] = {flush, BOTH},
    [0xea] = {flush, DISK},
    [0xec] = {identify, DISK},
    [0xef] = {set_features, BOTH},
    [0xf8] = {native_max, DISK},
};

void ata_execute(struct ata_drive *d, uint8_t command)
{
    unsigned flags = commands[command].flags;
    d->command = command;
    d->intrq = 0;
    d->dma = 0;
    d->regs.error = 0;
    d->regs.status = ATA_BSY | ATA_DRDY | ATA_DSC;
    if (flags & (d->cdrom ? CDROM : DISK)) {
        commands[command].run(d, flags);
        return;
    }
    /* 9.12: to IDENTIFY DEVICE and READ SECTORS a PACKET device answers with its signature. */
    if (d->cdrom && (command == 0xec || command == 0x20))
        ata_set_signature(d);
    abort_command(d);
}
