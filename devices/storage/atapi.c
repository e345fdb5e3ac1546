/*
 * atapi.c - the PACKET command of a CD-ROM drive (ATA-7, 6.24 and 9.8, 9.9): a command packet
 * comes, mmc.c says what becomes of it, its data go to the host in blocks that fit the host's byte
 * count, or by DMA.
 */
#include "ata.h"
#include <string.h>

#define PACKET_SIZE 12

static void set_reason(struct ata_drive *d, uint8_t reason, uint32_t bytes)
{
    d->regs.count = reason;
    d->regs.lba[1] = (uint8_t)bytes;
    d->regs.lba[2] = (uint8_t)(bytes >> 8);
}

static void good(struct ata_drive *d)
{
    d->regs.count = ATA_IO | ATA_COD;
    ata_done(d);
}

static void check(struct ata_drive *d)
{
    d->regs.count = ATA_IO | ATA_COD;
    uint8_t error = (uint8_t)(d->mmc.sense_key << 4);
    ata_fail(d, error | (d->mmc.sense_key == SENSE_ILLEGAL_REQUEST ? ATA_ABRT : 0));
}

/* ---- Data --------------------------------------------------------------------------------------
 */

/* Bytes that the host takes per block: 6.24.4, even unless it is the last. */
static uint32_t byte_limit(const struct ata_drive *d)
{
    uint32_t limit = d->regs.lba[1] | (uint32_t)d->regs.lba[2] << 8;
    return limit == 0xffff ? 0xfffe : limit > 1 ? limit & ~1u : limit;
}

/* The next block of what the buffer holds. */
static void next_block(struct ata_drive *d)
{
    uint32_t left = d->filled - d->pos;
    if (!d->dma)
        set_reason(d, ATA_IO, left < d->block_size ? left : d->block_size);
    ata_block(d, ATA_PHASE_IN, !d->dma);
}

static void reply_block_done(struct ata_drive *d)
{
    if (d->pos < d->filled)
        next_block(d);
    else
        good(d);
}

static uint32_t medium_block(const struct ata_drive *d)
{
    return d->mmc.read_raw ? MMC_RAW_BLOCK : MMC_BLOCK;
}

/* Blocks of the medium that the buffer holds: as many blocks of the host's size as fit, so that
 * none is cut short before the last. */
static uint32_t read_size(const struct ata_drive *d)
{
    uint32_t size = medium_block(d), most = ATA_CHUNK / size;
    if (!d->dma && d->block_size >= size)
        most -= most % (d->block_size / size);
    if (d->careful)
        most = 1;
    return d->left < most ? d->left : most;
}

static void read_medium(struct ata_drive *d)
{
    uint32_t blocks = read_size(d);
    if (d->mmc.medium_changed || !mmc_blocks(&d->mmc)) { /* since the command began */
        mmc_check(&d->mmc, SENSE_NOT_READY, ASC_NO_MEDIUM_CLOSED);
        check(d);
        return;
    }
    d->pos = 0;
    d->filled = blocks * medium_block(d);
    ata_submit(d, BLOCKDEV_READ, 0, d->lba * MMC_BLOCK, (uint64_t)blocks * MMC_BLOCK);
}

static void read_io_done(struct ata_drive *d)
{
    uint32_t blocks = d->filled / medium_block(d);
    if (d->io.result && blocks > 1) {
        d->careful = 1;
        read_medium(d);
        return;
    }
    if (d->io.result) {
        mmc_read_failed(&d->mmc, (uint32_t)d->lba);
        check(d);
        return;
    }
    for (uint32_t i = blocks; d->mmc.read_raw && i--;) /* the last first: they grow */
        mmc_raw_sector(d->buffer + i * MMC_RAW_BLOCK, d->buffer + i * MMC_BLOCK,
                       (uint32_t)d->lba + i);
    d->lba += blocks;
    d->left -= blocks;
    next_block(d);
}

static void read_block_done(struct ata_drive *d)
{
    if (d->pos < d->filled)
        next_block(d);
    else if (d->left)
        read_medium(d);
    else
        good(d);
}

/* ---- The packet --------------------------------------------------------------------------------
 */

/* Data will come: how much at a time? False: the host has not said (6.24.4: aborted). */
static bool set_block_size(struct ata_drive *d)
{
    uint32_t limit = byte_limit(d), size = medium_block(d);
    d->block_size = d->dma ? ATA_CHUNK : limit;
    if (!d->dma && d->flow == ATA_FLOW_PACKET_READ && limit > size)
        d->block_size -= limit % size; /* whole sectors, which hosts like better */
    if (d->block_size)
        return true;
    mmc_check(&d->mmc, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
    check(d);
    return false;
}

static void packet_done(struct ata_drive *d)
{
    uint8_t cdb[MMC_CDB] = {0};
    uint32_t len = 0;
    memcpy(cdb, d->buffer, PACKET_SIZE);
    switch (mmc_execute(&d->mmc, cdb, d->buffer, &len)) {
    case MMC_GOOD:
        good(d);
        break;
    case MMC_CHECK:
        check(d);
        break;
    case MMC_REPLY:
        d->flow = ATA_FLOW_PACKET_REPLY;
        d->pos = 0;
        d->filled = len;
        if (set_block_size(d))
            next_block(d);
        break;
    case MMC_READ:
        d->flow = ATA_FLOW_PACKET_READ;
        d->lba = d->mmc.read_lba;
        d->left = d->mmc.read_blocks;
        d->careful = 0;
        if (set_block_size(d))
            read_medium(d);
        break;
    }
}

void atapi_packet(struct ata_drive *d, unsigned flags)
{
    enum { FEATURE_DMA = 1, FEATURE_OVERLAP = 2 };
    (void)flags;
    if (d->regs.feature & FEATURE_OVERLAP) {
        ata_fail(d, ATA_ABRT);
        return;
    }
    d->dma = d->regs.feature & FEATURE_DMA;
    d->flow = ATA_FLOW_PACKET;
    d->regs.count = ATA_COD;
    d->pos = 0;
    d->filled = d->block_size = PACKET_SIZE;
    ata_block(d, ATA_PHASE_OUT, false); /* IDENTIFY word 0: no interrupt for the packet */
}

const struct ata_flow_steps atapi_steps[ATA_FLOWS] = {
    [ATA_FLOW_PACKET] = {NULL, packet_done},
    [ATA_FLOW_PACKET_REPLY] = {NULL, reply_block_done},
    [ATA_FLOW_PACKET_READ] = {read_io_done, read_block_done},
};
