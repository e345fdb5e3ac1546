/*
 * ata_rw.c - sectors between the host and the image: READ, WRITE, READ VERIFY, FLUSH CACHE and
 * TRIM, in the phases of ata.h.
 *
 * The image is read and written in chunks of up to ATA_CHUNK bytes (ATA_OFFER, where the guest's
 * memory is lent), whatever the blocks are in which the host moves them. When a chunk fails its
 * sectors are tried one by one, so that the error's address is that of the bad sector and what lies
 * before it is transferred, as the standard has it. A write is in the image when it completes, and
 * on the disk too if the write cache is off (the image's back end sees to that) or the command says
 * so (FUA).
 */
#include "ata.h"
#include <string.h>

#define MAX_LBA28 0x10000000ull

/* ---- Addresses ---------------------------------------------------------------------------------
 */

static uint64_t address_48(const struct ata_registers *r)
{
    return r->lba[0] | (uint64_t)r->lba[1] << 8 | (uint64_t)r->lba[2] << 16 |
           (uint64_t)r->hob_lba[0] << 24 | (uint64_t)r->hob_lba[1] << 32 |
           (uint64_t)r->hob_lba[2] << 40;
}

static uint64_t address_28(const struct ata_registers *r)
{
    return (address_48(r) & 0xffffff) | (uint64_t)(r->device & 0x0f) << 24;
}

/* Cylinder, head, sector by the current translation; false: no such sector. */
static bool address_chs(const struct ata_drive *d, uint64_t *lba)
{
    const struct ata_registers *r = &d->regs;
    unsigned head = r->device & 0x0f, sector = r->lba[0], cylinder = r->lba[1] | r->lba[2] << 8;
    if (head >= d->heads || sector == 0 || sector > d->track_sectors)
        return false;
    *lba = ((uint64_t)cylinder * d->heads + head) * d->track_sectors + sector - 1;
    return true;
}

void ata_put_address(struct ata_drive *d, uint64_t lba)
{
    struct ata_registers *r = &d->regs;
    if (!(r->device & ATA_LBA)) {
        unsigned track = (unsigned)(lba / d->track_sectors);
        unsigned cylinder = track / d->heads;
        r->lba[0] = (uint8_t)(lba % d->track_sectors + 1);
        r->lba[1] = (uint8_t)cylinder;
        r->lba[2] = (uint8_t)(cylinder >> 8);
        r->device = (uint8_t)((r->device & 0xf0) | track % d->heads);
        return;
    }
    for (unsigned i = 0; i < 3; i++) {
        r->lba[i] = (uint8_t)(lba >> 8 * i);
        r->hob_lba[i] = (uint8_t)(lba >> 8 * (i + 3));
    }
    if (lba < MAX_LBA28)
        r->device = (uint8_t)((r->device & 0xf0) | lba >> 24);
}

void ata_fail_at(struct ata_drive *d, uint8_t error, uint64_t lba)
{
    ata_put_address(d, lba);
    ata_fail(d, error);
}

/* ---- READ --------------------------------------------------------------------------------------
 */

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Only whole pages are lent. */
static uint32_t offered_sectors(const struct ata_drive *d)
{
    return least(d->left, ATA_OFFER / ATA_SECTOR) & ~(uint32_t)(ATA_ALIGN / ATA_SECTOR - 1);
}

static uint32_t chunk_sectors(const struct ata_drive *d)
{
    return d->lending == ATA_OFFERED ? offered_sectors(d)
                                     : least(d->left, d->careful ? 1 : ATA_CHUNK / ATA_SECTOR);
}

/* Whether the memory for the next chunk may be asked for. */
static uint8_t offer(const struct ata_drive *d, enum blockdev_op op)
{
    bool offered = d->dma && !d->careful && offered_sectors(d) &&
                   blockdev_may_lend(d->image, op, d->lba * ATA_SECTOR);
    return offered ? ATA_OFFERED : ATA_COPIED;
}

static void set_chunk(struct ata_drive *d)
{
    d->pos = 0;
    d->filled = chunk_sectors(d) * ATA_SECTOR;
}

static void chunk_passed(struct ata_drive *d)
{
    uint32_t sectors = d->filled / ATA_SECTOR;
    d->lba += sectors;
    d->left -= sectors;
}

static void read_to_buffer(struct ata_drive *d)
{
    set_chunk(d);
    ata_submit(d, BLOCKDEV_READ, 0, d->lba * ATA_SECTOR, d->filled);
}

static void read_chunk(struct ata_drive *d)
{
    d->lending = offer(d, BLOCKDEV_READ);
    if (d->lending == ATA_COPIED) {
        read_to_buffer(d);
        return;
    }
    set_chunk(d);
    ata_block(d, ATA_PHASE_IN, false);
}

/* The chunk was not read; true: it goes on by smaller ones. */
static bool read_again(struct ata_drive *d)
{
    if (d->io.result == 0)
        return false;
    if (d->filled > ATA_SECTOR) {
        d->careful = 1;
        d->lending = ATA_COPIED;
        read_to_buffer(d);
    } else {
        ata_fail_at(d, ATA_UNC, d->lba);
    }
    return true;
}

static void read_io_done(struct ata_drive *d)
{
    if (d->lending == ATA_REVOKED)
        read_chunk(d);
    else if (!read_again(d))
        ata_block(d, ATA_PHASE_IN, !d->dma);
}

static void read_block_done(struct ata_drive *d)
{
    if (d->pos < d->filled) {
        ata_block(d, ATA_PHASE_IN, !d->dma);
        return;
    }
    chunk_passed(d);
    if (d->left) {
        read_chunk(d);
    } else if (d->dma || d->host->sata) {
        ata_done(d);
    } else { /* no interrupt when the host has taken the last block by itself */
        d->phase = ATA_PHASE_IDLE;
        d->flow = ATA_FLOW_NONE;
    }
}

static void verify_io_done(struct ata_drive *d)
{
    if (read_again(d))
        return;
    chunk_passed(d);
    if (d->left)
        read_to_buffer(d);
    else
        ata_done(d);
}

/* ---- WRITE -------------------------------------------------------------------------------------
 */

static void open_write(struct ata_drive *d, bool interrupt)
{
    d->lending = offer(d, BLOCKDEV_WRITE);
    set_chunk(d);
    ata_block(d, ATA_PHASE_OUT, interrupt);
}

/* From `pos` on; one sector in careful mode. */
static void write_chunk(struct ata_drive *d)
{
    uint32_t len = d->careful ? ATA_SECTOR : d->filled - d->pos;
    ata_submit(d, BLOCKDEV_WRITE, d->pos, d->lba * ATA_SECTOR, len);
}

/* The first `bytes` of what the chunk still has are in the image. */
static void written(struct ata_drive *d, uint32_t bytes)
{
    uint32_t sectors = bytes / ATA_SECTOR;
    d->lba += sectors;
    d->left -= sectors;
}

static void after_chunk(struct ata_drive *d)
{
    if (d->left)
        open_write(d, !d->dma);
    else if (d->force)
        ata_flush_start(d);
    else
        ata_done(d);
}

static void write_block_done(struct ata_drive *d)
{
    if (d->pos < d->filled) {
        ata_block(d, ATA_PHASE_OUT, !d->dma);
    } else if (d->lending == ATA_LENT) {
        written(d, d->filled);
        after_chunk(d);
    } else {
        d->pos = 0; /* now: how far it is written */
        write_chunk(d);
    }
}

static void write_failed(struct ata_drive *d)
{
    bool more = d->io.len > ATA_SECTOR;
    d->careful = 1;
    if (!more)
        ata_fail_at(d, ATA_ABRT, d->lba);
    else if (d->lending == ATA_LENT)
        open_write(d, false);
    else
        write_chunk(d);
}

static void write_io_done(struct ata_drive *d)
{
    if (d->lending == ATA_REVOKED) {
        open_write(d, false);
    } else if (d->io.result) {
        write_failed(d);
    } else if (d->lending == ATA_LENT) {
        ata_block(d, ATA_PHASE_OUT, false);
    } else {
        written(d, (uint32_t)d->io.len);
        d->pos += (uint32_t)d->io.len;
        if (d->pos < d->filled)
            write_chunk(d);
        else
            after_chunk(d);
    }
}

/* ---- Both --------------------------------------------------------------------------------------
 */

void ata_lend(struct ata_drive *d, struct phys_loan *loan)
{
    bool write = d->flow == ATA_FLOW_WRITE;
    d->regs.status &= (uint8_t)~ATA_DRQ;
    d->regs.status |= ATA_BSY;
    if (loan) {
        d->lending = ATA_LENT;
        ata_submit_lent(d, write ? BLOCKDEV_WRITE : BLOCKDEV_READ, d->lba * ATA_SECTOR, d->filled,
                        loan);
        return;
    }
    d->lending = ATA_COPIED;
    if (write) {
        set_chunk(d);
        ata_block(d, ATA_PHASE_OUT, false);
    } else {
        read_to_buffer(d);
    }
}

static bool decode_address(struct ata_drive *d, unsigned flags, uint64_t *lba)
{
    const struct ata_registers *r = &d->regs;
    uint32_t count = r->count;
    if (flags & ATA_CMD_48) {
        count |= (uint32_t)r->hob_count << 8;
        *lba = address_48(r);
        d->left = count ? count : 65536;
        return true;
    }
    d->left = count ? count : 256;
    *lba = address_28(r);
    return r->device & ATA_LBA || address_chs(d, lba);
}

void ata_rw_start(struct ata_drive *d, unsigned flags)
{
    static const uint8_t flows[] = {ATA_FLOW_READ, ATA_FLOW_WRITE, ATA_FLOW_VERIFY};
    uint64_t lba = 0;
    bool write = flags & ATA_CMD_WRITE;
    if ((flags & ATA_CMD_MULTIPLE && !d->multiple) || (write && blockdev_read_only(d->image))) {
        ata_fail(d, ATA_ABRT);
        return;
    }
    if (flags & ATA_CMD_48)
        d->regs.device |= ATA_LBA; /* for the address of an error */
    if (!decode_address(d, flags, &lba)) {
        ata_fail(d, ATA_IDNF);
        return;
    }
    if (lba >= d->sectors || d->left > d->sectors - lba) {
        ata_fail_at(d, ATA_IDNF, lba > d->sectors ? lba : d->sectors);
        return;
    }
    d->lba = lba;
    d->dma = (flags & ATA_CMD_DMA) != 0;
    d->force = (flags & ATA_CMD_FORCE) != 0;
    d->careful = 0;
    d->flow = flows[flags & ATA_CMD_VERIFY ? 2 : write];
    d->lending = ATA_COPIED;
    d->block_size = d->dma                     ? ATA_OFFER
                    : flags & ATA_CMD_MULTIPLE ? d->multiple * ATA_SECTOR
                                               : ATA_SECTOR;
    if (write)
        open_write(d, false); /* 9.6: no interrupt for the first block */
    else if (d->flow == ATA_FLOW_VERIFY)
        read_to_buffer(d);
    else
        read_chunk(d);
}

/* ---- FLUSH CACHE -------------------------------------------------------------------------------
 */

void ata_flush_start(struct ata_drive *d)
{
    d->flow = ATA_FLOW_FLUSH;
    ata_submit(d, BLOCKDEV_FLUSH, 0, 0, 0);
}

static void flush_done(struct ata_drive *d)
{
    if (d->io.result)
        ata_fail(d, ATA_ABRT);
    else
        ata_done(d);
}

/* ---- DATA SET MANAGEMENT, TRIM (ACS-2, 7.5) ----------------------------------------------------
 */

#define TRIM_MAX_BLOCKS 8 /* IDENTIFY word 105 */
#define TRIM_RANGE      8 /* bytes: 48 bits of address, 16 of length, little-endian */

static void trim_range(const struct ata_drive *d, uint32_t at, uint64_t *lba, uint32_t *sectors)
{
    uint64_t entry = 0;
    for (unsigned i = 0; i < TRIM_RANGE; i++)
        entry |= (uint64_t)d->buffer[at + i] << 8 * i;
    *lba = entry & 0xffffffffffffull;
    *sectors = (uint32_t)(entry >> 48);
}

void ata_trim_start(struct ata_drive *d, unsigned flags)
{
    (void)flags;
    uint32_t blocks = d->regs.count | (uint32_t)d->regs.hob_count << 8;
    if (!(d->regs.feature & 1) || !blocks || blocks > TRIM_MAX_BLOCKS ||
        blockdev_read_only(d->image)) {
        ata_fail(d, ATA_ABRT);
        return;
    }
    d->dma = 1;
    d->flow = ATA_FLOW_TRIM;
    d->pos = 0;
    d->filled = d->block_size = blocks * ATA_SECTOR;
    ata_block(d, ATA_PHASE_OUT, false);
}

/* The next range from pos on, or the end. */
static void trim_next(struct ata_drive *d)
{
    for (; d->pos < d->filled; d->pos += TRIM_RANGE) {
        uint64_t lba;
        uint32_t sectors;
        trim_range(d, d->pos, &lba, &sectors);
        if (!sectors)
            continue;
        d->pos += TRIM_RANGE;
        ata_submit(d, BLOCKDEV_DISCARD, 0, lba * ATA_SECTOR, (uint64_t)sectors * ATA_SECTOR);
        return;
    }
    ata_done(d);
}

/* All ranges are there: none is discarded when one of them is wrong. */
static void trim_block_done(struct ata_drive *d)
{
    for (uint32_t at = 0; at < d->filled; at += TRIM_RANGE) {
        uint64_t lba;
        uint32_t sectors;
        trim_range(d, at, &lba, &sectors);
        if (sectors && (lba >= d->sectors || sectors > d->sectors - lba)) {
            ata_fail(d, ATA_IDNF);
            return;
        }
    }
    d->pos = 0;
    trim_next(d);
}

static void trim_io_done(struct ata_drive *d)
{
    if (d->io.result)
        ata_fail(d, ATA_ABRT);
    else
        trim_next(d);
}

const struct ata_flow_steps ata_rw_steps[ATA_FLOWS] = {
    [ATA_FLOW_READ] = {read_io_done, read_block_done},
    [ATA_FLOW_WRITE] = {write_io_done, write_block_done},
    [ATA_FLOW_VERIFY] = {verify_io_done, NULL},
    [ATA_FLOW_FLUSH] = {flush_done, NULL},
    [ATA_FLOW_TRIM] = {trim_io_done, trim_block_done},
};
