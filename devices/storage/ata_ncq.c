/*
 * ata_ncq.c - native command queueing: READ and WRITE FPDMA QUEUED (ATA8-ACS, 7.30 and 7.75), up to
 * ATA_TAGS at a time, each in chunks of its own buffer or with the guest's memory (ata.h).
 *
 * When a command fails the others stop after the chunk that is at the image, and only when none is
 * there any more the failure is told: so nothing is written behind the host's back while it
 * recovers. Until the host has read the log of the failure (READ LOG EXT, page 10h) or has reset
 * the drive, queued commands are refused.
 */
#include "ata.h"
#include <stdlib.h>
#include <string.h>

enum { READ_FPDMA_QUEUED = 0x60, WRITE_FPDMA_QUEUED = 0x61 };

static unsigned tag_of(const struct ata_queued *q)
{
    return (unsigned)(q - q->drive->queued);
}

/* 7.23, log page 10h: as the registers would be after the command. */
static void note_failure(struct ata_queued *q, uint8_t error, uint64_t lba)
{
    struct ata_drive *d = q->drive;
    uint8_t *log = d->queued_log;
    if (d->queued_failed)
        return;
    d->queued_failed = 1u + tag_of(q);
    memset(log, 0, sizeof(d->queued_log));
    log[0] = (uint8_t)tag_of(q);
    log[2] = ATA_DRDY | ATA_DSC | ATA_ERR;
    log[3] = error;
    for (unsigned i = 0; i < 3; i++) {
        log[4 + i] = (uint8_t)(lba >> 8 * i);
        log[8 + i] = (uint8_t)(lba >> 8 * (i + 3));
    }
    log[7] = ATA_LBA;
}

/* The failure is told when nothing is at the image. */
static void tell_failure(struct ata_drive *d)
{
    unsigned tag = d->queued_failed - 1;
    if (!d->queued_failed || d->at_image || !d->queued[tag].active)
        return;
    ata_queued_forget(d);
    d->regs.status = ATA_DRDY | ATA_DSC | ATA_ERR;
    d->regs.error = d->queued_log[3];
    d->host->ops->queued_done(d->host, tag, true);
}

static uint64_t position(const struct ata_queued *q)
{
    return q->lba * ATA_SECTOR + q->done;
}

static void io_done(struct blockdev_request *io);

/* In a worker's thread. */
static void give_back(struct blockdev_request *io)
{
    const struct ata_queued *q = io->opaque;
    phys_loan_end(q->loan);
}

/* With the memory of a loan, or without. */
static void submit(struct ata_queued *q, enum blockdev_op op, uint64_t offset, uint64_t len,
                   struct phys_loan *loan)
{
    q->lent = loan != NULL;
    q->loan = loan;
    q->iov = (struct iovec){.iov_base = q->buffer, .iov_len = len};
    q->io = (struct blockdev_request){.op = op,
                                      .offset = offset,
                                      .len = len,
                                      .iov = loan ? loan->iov : &q->iov,
                                      .iovcnt = loan ? (int)loan->count : op != BLOCKDEV_FLUSH,
                                      .done = io_done,
                                      .let_go = loan ? give_back : NULL,
                                      .opaque = q};
    q->drive->at_image++;
    blockdev_submit(q->drive->image, &q->io);
}

/* As much as goes at once, if memory is to be had for it. */
static bool submit_lent(struct ata_queued *q, uint64_t left)
{
    struct ata_drive *d = q->drive;
    enum blockdev_op op = q->write ? BLOCKDEV_WRITE : BLOCKDEV_READ;
    uint32_t len = (left < ATA_OFFER ? (uint32_t)left : ATA_OFFER) & ~(ATA_ALIGN - 1);
    if (q->careful || !len || !blockdev_may_lend(d->image, op, position(q)))
        return false;
    struct phys_loan *loan = d->host->ops->queued_lend(d->host, tag_of(q), len, !q->write);
    if (loan)
        submit(q, op, position(q), len, loan);
    return loan != NULL;
}

static void next_chunk(struct ata_queued *q)
{
    struct ata_drive *d = q->drive;
    uint64_t left = (uint64_t)q->sectors * ATA_SECTOR - q->done;
    uint32_t most = q->careful ? ATA_SECTOR : ATA_CHUNK;
    uint32_t len = left < most ? (uint32_t)left : most;
    if (submit_lent(q, left))
        return;
    if (q->write && !d->host->ops->queued_data(d->host, tag_of(q), q->buffer, len, false))
        note_failure(q, ATA_ABRT, q->lba);
    else
        submit(q, q->write ? BLOCKDEV_WRITE : BLOCKDEV_READ, position(q), len, NULL);
}

static void complete(struct ata_queued *q)
{
    struct ata_drive *d = q->drive;
    q->active = false;
    d->host->ops->queued_done(d->host, tag_of(q), false);
}

/* The image did what was asked for. */
static void advance(struct ata_queued *q)
{
    struct ata_drive *d = q->drive;
    uint32_t len = (uint32_t)q->io.len;
    if ((q->io.op == BLOCKDEV_READ || q->lent) &&
        !d->host->ops->queued_data(d->host, tag_of(q), q->lent ? NULL : q->buffer, len,
                                   !q->write)) {
        note_failure(q, ATA_ABRT, q->lba);
        return;
    }
    q->done += len;
    bool all = q->done == (uint64_t)q->sectors * ATA_SECTOR;
    if (all && q->write && q->io.op == BLOCKDEV_WRITE && q->flush)
        submit(q, BLOCKDEV_FLUSH, 0, 0, NULL);
    else if (all)
        complete(q);
    else if (!d->queued_failed)
        next_chunk(q);
}

static void failed(struct ata_queued *q)
{
    bool more = q->io.len > ATA_SECTOR && q->io.op != BLOCKDEV_FLUSH;
    if (more && !q->write) { /* sector by sector, for the address of the bad one */
        q->careful = true;
        next_chunk(q);
    } else {
        note_failure(q, q->write ? ATA_ABRT : ATA_UNC, position(q) / ATA_SECTOR);
    }
}

static void io_done(struct blockdev_request *io)
{
    struct ata_queued *q = io->opaque;
    struct ata_drive *d = q->drive;
    if (ata_was_stale(d))
        return;
    if (io->result)
        failed(q);
    else
        advance(q);
    tell_failure(d);
}

void ata_queued_forget(struct ata_drive *d)
{
    for (unsigned tag = 0; d->queued && tag < ATA_TAGS; tag++)
        d->queued[tag].active = false;
}

static uint64_t address(const struct ata_registers *r)
{
    uint64_t lba = 0;
    for (unsigned i = 0; i < 3; i++)
        lba |= (uint64_t)r->lba[i] << 8 * i | (uint64_t)r->hob_lba[i] << 8 * (i + 3);
    return lba;
}

static bool refuse(struct ata_drive *d, uint8_t error)
{
    d->regs.status = ATA_DRDY | ATA_DSC | ATA_ERR;
    d->regs.error = error;
    return false;
}

bool ata_queued_start(struct ata_drive *d, unsigned tag, uint8_t command,
                      const struct ata_registers *regs)
{
    struct ata_queued *q = d->queued ? &d->queued[tag] : NULL;
    uint32_t sectors = regs->feature | (uint32_t)regs->hob_feature << 8;
    bool write = command == WRITE_FPDMA_QUEUED;
    if (!q || d->queued_failed || q->active || (write && blockdev_read_only(d->image)))
        return refuse(d, ATA_ABRT);
    if (!q->buffer)
        q->buffer = aligned_alloc(ATA_ALIGN, ATA_CHUNK);
    if (!q->buffer)
        return refuse(d, ATA_ABRT);
    d->regs.error = 0;
    d->regs.status = ATA_DRDY | ATA_DSC;
    q->drive = d;
    q->active = true;
    q->write = write;
    q->flush = regs->device & ATA_FUA;
    q->careful = false;
    q->lba = address(regs);
    q->sectors = sectors ? sectors : 65536;
    q->done = 0;
    if (q->lba >= d->sectors || q->sectors > d->sectors - q->lba)
        note_failure(q, ATA_IDNF, q->lba > d->sectors ? q->lba : d->sectors);
    else
        next_chunk(q);
    tell_failure(d);
    return true;
}
