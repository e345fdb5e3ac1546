/*
 * ata_drive.c - a drive's life and the phases that all its commands go through (ata.h).
 */
#include "ata.h"
#include "internal/error.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct field ata_fields[] = {
    FIELD(struct ata_drive, regs.feature, FIELD_U8, 1),
    FIELD(struct ata_drive, regs.count, FIELD_U8, 1),
    FIELD_ARRAY(struct ata_drive, regs.lba, FIELD_U8, 1),
    FIELD(struct ata_drive, regs.device, FIELD_U8, 1),
    FIELD(struct ata_drive, regs.hob_feature, FIELD_U8, 1),
    FIELD(struct ata_drive, regs.hob_count, FIELD_U8, 1),
    FIELD_ARRAY(struct ata_drive, regs.hob_lba, FIELD_U8, 1),
    FIELD(struct ata_drive, regs.status, FIELD_U8, 1),
    FIELD(struct ata_drive, regs.error, FIELD_U8, 1),
    FIELD(struct ata_drive, command, FIELD_U8, 1),
    FIELD(struct ata_drive, intrq, FIELD_U8, 1),
    FIELD(struct ata_drive, srst, FIELD_U8, 1),
    FIELD(struct ata_drive, write_cache, FIELD_U8, 1),
    FIELD(struct ata_drive, read_ahead, FIELD_U8, 1),
    FIELD(struct ata_drive, smart, FIELD_U8, 1),
    FIELD(struct ata_drive, standby, FIELD_U8, 1),
    FIELD(struct ata_drive, multiple, FIELD_U8, 1),
    FIELD(struct ata_drive, heads, FIELD_U16, 1),
    FIELD(struct ata_drive, track_sectors, FIELD_U16, 1),
    FIELD(struct ata_drive, dma_mode, FIELD_U8, 1),
    FIELD(struct ata_drive, phase, FIELD_U8, 1),
    FIELD(struct ata_drive, flow, FIELD_U8, 1),
    FIELD(struct ata_drive, dma, FIELD_U8, 1),
    FIELD(struct ata_drive, force, FIELD_U8, 1),
    FIELD(struct ata_drive, careful, FIELD_U8, 1),
    FIELD(struct ata_drive, lending, FIELD_U8, 1),
    FIELD(struct ata_drive, lba, FIELD_U64, 1),
    FIELD(struct ata_drive, left, FIELD_U32, 1),
    FIELD(struct ata_drive, pos, FIELD_U32, 1),
    FIELD(struct ata_drive, block, FIELD_U32, 1),
    FIELD(struct ata_drive, filled, FIELD_U32, 1),
    FIELD(struct ata_drive, block_size, FIELD_U32, 1),
    MMC_FIELDS(struct ata_drive, mmc),
    FIELD_ARRAY(struct ata_drive, buffer, FIELD_BYTES, 1),
    FIELD(struct ata_drive, queued_failed, FIELD_U32, 1),
    FIELD_ARRAY(struct ata_drive, queued_log, FIELD_BYTES, 1),
};
static const struct state_desc ata_state = STATE_DESC("ata-drive", 2, ata_fields);

/* ---- Phases ------------------------------------------------------------------------------------
 */

static void end_command(struct ata_drive *d)
{
    d->phase = ATA_PHASE_IDLE;
    d->flow = ATA_FLOW_NONE;
    d->lending = ATA_COPIED;
}

void ata_done(struct ata_drive *d)
{
    end_command(d);
    d->regs.status &= (uint8_t) ~(ATA_BSY | ATA_DRQ);
    d->regs.status |= ATA_DRDY | ATA_DSC;
    d->host->ops->done(d->host, d);
}

void ata_fail(struct ata_drive *d, uint8_t error)
{
    d->regs.error = error;
    d->regs.status |= ATA_ERR;
    ata_done(d);
}

void ata_block(struct ata_drive *d, enum ata_phase phase, bool interrupt)
{
    uint32_t left = d->filled - d->pos;
    d->phase = (uint8_t)phase;
    d->block = d->pos + (left < d->block_size ? left : d->block_size);
    d->regs.status &= (uint8_t)~ATA_BSY;
    d->regs.status |= ATA_DRQ | ATA_DRDY | ATA_DSC;
    d->host->ops->data(d->host, d, interrupt);
}

void ata_reply(struct ata_drive *d, uint32_t len)
{
    d->flow = ATA_FLOW_REPLY;
    d->pos = 0;
    d->filled = d->block_size = len;
    ata_block(d, ATA_PHASE_IN, !d->dma);
}

static void reply_done(struct ata_drive *d)
{
    /* 9.5: the host has read the last block of a PIO command; no interrupt tells it so. */
    d->phase = ATA_PHASE_IDLE;
    d->flow = ATA_FLOW_NONE;
    d->regs.status &= (uint8_t)~ATA_DRQ;
    if (d->dma || d->host->sata)
        ata_done(d);
}

static const struct ata_flow_steps *steps_of(uint8_t flow)
{
    static const struct ata_flow_steps reply = {.block_done = reply_done};
    if (flow == ATA_FLOW_REPLY)
        return &reply;
    return flow >= ATA_FLOW_PACKET ? &atapi_steps[flow] : &ata_rw_steps[flow];
}

void ata_moved(struct ata_drive *d, uint32_t bytes)
{
    d->pos += bytes;
    if (d->pos < d->block)
        return;
    d->regs.status &= (uint8_t)~ATA_DRQ;
    d->regs.status |= ATA_BSY;
    d->phase = ATA_PHASE_IO;
    steps_of(d->flow)->block_done(d);
    if (d->phase == ATA_PHASE_IDLE)
        d->regs.status &= (uint8_t)~ATA_BSY;
}

void ata_dma_failed(struct ata_drive *d, bool interrupt)
{
    end_command(d);
    d->regs.status = ATA_DRDY | ATA_DSC;
    if (!interrupt)
        return;
    if (d->cdrom)
        mmc_check(&d->mmc, SENSE_ABORTED_COMMAND, ASC_NONE);
    d->regs.count = d->cdrom ? ATA_IO | ATA_COD : d->regs.count;
    ata_fail(d, (uint8_t)(ATA_ABRT | (d->cdrom ? SENSE_ABORTED_COMMAND << 4 : 0)));
}

/* ---- Requests at the image ---------------------------------------------------------------------
 */

static void drive_free(struct ata_drive *d)
{
    for (unsigned i = 0; d->queued && i < ATA_TAGS; i++)
        free(d->queued[i].buffer);
    free(d->queued);
    free(d);
}

static void become_ready(struct ata_drive *d)
{
    d->regs.status = d->cdrom ? 0 : ATA_DRDY | ATA_DSC; /* 9.12: a PACKET device is not "ready" */
    d->host->ops->ready(d->host, d);
}

bool ata_was_stale(struct ata_drive *d)
{
    d->at_image--;
    if (d->host && !d->stale)
        return false;
    if (d->at_image)
        return true;
    if (!d->host) {
        drive_free(d);
        return true;
    }
    d->stale = false;
    if (!d->srst)
        become_ready(d);
    return true;
}

static void io_done(struct blockdev_request *io)
{
    struct ata_drive *d = io->opaque;
    if (!ata_was_stale(d))
        steps_of(d->flow)->io_done(d);
}

static void submit(struct ata_drive *d, enum blockdev_op op, uint64_t offset, uint64_t len,
                   const struct iovec *iov, unsigned iovcnt,
                   void (*let_go)(struct blockdev_request *))
{
    struct blockdev *image = d->cdrom ? d->mmc.image : d->image;
    d->io = (struct blockdev_request){.op = op,
                                      .offset = offset,
                                      .len = len,
                                      .iov = iov,
                                      .iovcnt = (int)iovcnt,
                                      .done = io_done,
                                      .let_go = let_go,
                                      .opaque = d};
    d->phase = ATA_PHASE_IO;
    d->at_image++;
    blockdev_submit(image, &d->io);
}

void ata_submit(struct ata_drive *d, enum blockdev_op op, uint32_t at, uint64_t offset,
                uint64_t len)
{
    d->iov = (struct iovec){.iov_base = d->buffer + at, .iov_len = len};
    submit(d, op, offset, len, &d->iov, op == BLOCKDEV_READ || op == BLOCKDEV_WRITE, NULL);
}

/* In a worker's thread. */
static void give_back(struct blockdev_request *io)
{
    const struct ata_drive *d = io->opaque;
    phys_loan_end(d->loan);
}

void ata_submit_lent(struct ata_drive *d, enum blockdev_op op, uint64_t offset, uint64_t len,
                     struct phys_loan *loan)
{
    d->loan = loan;
    submit(d, op, offset, len, loan->iov, loan->count, give_back);
}

void ata_await_loans(struct ata_drive *d)
{
    if (d->image)
        blockdev_settle(d->image);
}

void ata_revoke(struct ata_drive *d)
{
    ata_await_loans(d);
    if (d->lending == ATA_LENT && d->phase == ATA_PHASE_IO)
        d->lending = ATA_REVOKED;
}

/* ---- Resets ------------------------------------------------------------------------------------
 */

/* 9.12, table 14: what the registers show after a reset, and by what hosts tell the kinds apart. */
void ata_set_signature(struct ata_drive *d)
{
    d->regs.count = d->regs.lba[0] = 1;
    d->regs.lba[1] = d->cdrom ? 0x14 : 0;
    d->regs.lba[2] = d->cdrom ? 0xeb : 0;
    d->regs.device &= ATA_DEV;
    d->regs.hob_count = d->regs.hob_feature = 0;
    memset(d->regs.hob_lba, 0, sizeof(d->regs.hob_lba));
}

/* The command that runs, if any, is forgotten. */
static void forget_command(struct ata_drive *d)
{
    ata_await_loans(d);
    end_command(d);
    d->intrq = 0;
    d->stale = d->at_image != 0;
    d->regs.status = ATA_BSY;
    d->regs.error = 1; /* diagnostic code: passed */
    ata_queued_forget(d);
    d->queued_failed = 0;
    ata_set_signature(d);
}

void ata_set_srst(struct ata_drive *d, bool on)
{
    if (on == d->srst)
        return;
    d->srst = on;
    d->regs.device = 0;
    forget_command(d);
    if (!on && !d->stale)
        become_ready(d);
}

/* 6.7: of a PACKET device only, at any time, without an interrupt. */
void ata_device_reset(struct ata_drive *d)
{
    forget_command(d);
    if (!d->stale)
        become_ready(d);
}

/* What power-on or a reset by wire sets back, and SRST does not. */
void ata_reset(struct ata_drive *d)
{
    d->srst = 0;
    d->regs.device = 0;
    d->read_ahead = d->smart = 1;
    if (d->image) {
        d->write_cache = blockdev_default_write_cache(d->image);
        blockdev_set_write_cache(d->image, d->write_cache);
    }
    d->standby = d->multiple = d->dma_mode = 0;
    d->heads = 16;
    d->track_sectors = 63;
    mmc_reset(&d->mmc);
    forget_command(d);
    if (!d->stale)
        become_ready(d);
}

/* Nothing of an offer has moved yet, and the image may borrow. */
static bool possible_offer(const struct ata_drive *d)
{
    enum blockdev_op op = d->flow == ATA_FLOW_WRITE ? BLOCKDEV_WRITE : BLOCKDEV_READ;
    return d->pos == 0 && d->block == d->filled &&
           blockdev_may_lend(d->image, op, d->lba * ATA_SECTOR);
}

/* What a data phase is in the middle of lies in the buffer and on the disk. */
static bool possible_data(const struct ata_drive *d)
{
    static const uint8_t phases[ATA_FLOWS] = {
        [ATA_FLOW_REPLY] = ATA_PHASE_IN,       [ATA_FLOW_READ] = ATA_PHASE_IN,
        [ATA_FLOW_WRITE] = ATA_PHASE_OUT,      [ATA_FLOW_TRIM] = ATA_PHASE_OUT,
        [ATA_FLOW_PACKET] = ATA_PHASE_OUT,     [ATA_FLOW_PACKET_REPLY] = ATA_PHASE_IN,
        [ATA_FLOW_PACKET_READ] = ATA_PHASE_IN,
    };
    const uint64_t size = d->cdrom ? mmc_blocks(&d->mmc) : d->sectors;
    bool on_disk = d->lba <= size && d->left <= size - d->lba;
    bool sectors = d->flow == ATA_FLOW_READ || d->flow == ATA_FLOW_WRITE;
    bool copied = d->lending == ATA_COPIED;
    if (d->phase != phases[d->flow] || !d->block_size || d->block_size > ATA_OFFER ||
        d->pos >= d->block || d->block > d->filled ||
        d->filled > (copied ? ATA_CHUNK : ATA_OFFER) || (!copied && !(sectors && d->dma)) ||
        (d->flow != ATA_FLOW_REPLY && d->cdrom != (d->flow >= ATA_FLOW_PACKET)))
        return false;
    if (sectors)
        return on_disk && d->filled % ATA_SECTOR == 0 && d->filled / ATA_SECTOR <= d->left &&
               (d->lending != ATA_OFFERED || possible_offer(d));
    return on_disk || d->flow != ATA_FLOW_PACKET_READ;
}

/* A saved state may be anybody's. Requests at the image are not in it: it was saved without. */
static bool possible(const struct ata_drive *d)
{
    return d->flow < ATA_FLOWS && d->heads && d->heads <= 16 && d->track_sectors &&
           d->track_sectors <= 255 && d->multiple <= 16 && !(d->multiple & (d->multiple - 1)) &&
           d->queued_failed <= ATA_TAGS && d->lending <= ATA_OFFERED &&
           (d->phase == ATA_PHASE_IDLE ? d->lending == ATA_COPIED : possible_data(d));
}

static void drive_restored(struct device *dev)
{
    struct ata_drive *d = (struct ata_drive *)dev;
    if (!possible(d))
        ata_reset(d);
    if (d->image)
        blockdev_set_write_cache(d->image, d->write_cache);
}

static void drive_reset(struct device *dev)
{
    ata_reset((struct ata_drive *)dev);
}

/* ---- Life --------------------------------------------------------------------------------------
 */

static void drive_destroy(struct device *dev)
{
    struct ata_drive *d = (struct ata_drive *)dev;
    ata_await_loans(d);
    d->host->drives[d->unit] = NULL;
    d->host = NULL;
    if (!d->at_image)
        drive_free(d);
}

bool ata_drive_change(struct device *dev, struct blockdev *image, bool force, struct error *err)
{
    struct ata_drive *d = (struct ata_drive *)dev;
    return mmc_change(&d->mmc, image, force) ||
           error_set(err, "the guest has locked the tray, and has been told; try again, or force");
}

static void put_text(char *at, size_t size, const char *text)
{
    size_t n = strnlen(text, size);
    memset(at, ' ', size);
    memcpy(at, text, n);
}

static void put_names(struct ata_drive *d, const struct ata_drive_options *options)
{
    char serial[21];
    bool given = options->serial && *options->serial;
    snprintf(serial, sizeof(serial), "BL%05u", options->number);
    put_text(d->serial, sizeof(d->serial), given ? options->serial : serial);
    given = options->model && *options->model;
    put_text(d->model, sizeof(d->model),
             given ? options->model : (d->cdrom ? "BAILEY DVD-ROM" : "BAILEY HARDDISK"));
    put_text(d->firmware, sizeof(d->firmware), "1.0");
    d->wwn = options->wwn;
}

struct device *ata_drive_create(struct ata_host *host, unsigned unit,
                                const struct ata_drive_options *options, struct error *err)
{
    const char *name = options->cdrom ? "ide-cd" : "ide-hd";
    if (unit >= host->units || host->drives[unit]) {
        error_set(err, "%s: unit %u of bus %u %s", name, unit, host->number,
                  unit >= host->units ? "does not exist" : "is taken by another drive");
        return NULL;
    }
    if (!options->cdrom && !options->disk) {
        error_set(err, "ide-hd: a disk needs an image");
        return NULL;
    }
    struct ata_drive *d = aligned_alloc(_Alignof(struct ata_drive), sizeof(*d));
    if (d)
        memset(d, 0, sizeof(*d));
    if (d && host->sata && !options->cdrom)
        d->queued = calloc(ATA_TAGS, sizeof(*d->queued));
    if (!d || (host->sata && !options->cdrom && !d->queued)) {
        error_set(err, "%s: out of memory", name);
        free(d);
        return NULL;
    }
    d->dev = (struct device){.name = name,
                             .state = &ata_state,
                             .reset = drive_reset,
                             .destroy = drive_destroy,
                             .restored = drive_restored};
    d->host = host;
    d->unit = unit;
    d->cdrom = options->cdrom;
    if (!d->cdrom)
        d->image = options->disk;
    d->sectors = d->image ? blockdev_size(d->image) / ATA_SECTOR : 0;
    put_names(d, options);
    mmc_init(&d->mmc, d->cdrom ? options->disk : NULL, d->serial);
    host->drives[unit] = d;
    ata_reset(d);
    return &d->dev;
}
