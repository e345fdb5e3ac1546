/*
 * fdc_transfer.c - the execution phase: sectors between a disk's image and the guest.
 *
 *     read, scan, verify   image -> buffer -> guest
 *     write, format        guest -> buffer -> image
 *
 * The guest's side is DMA, which may have to wait until the guest opens the channel, or the guest
 * itself, a byte at a time. The image's side is asynchronous. A transfer ends at the DMA count's
 * end (TC), after the track's last sector, or with an error.
 */
#include "fdc.h"
#include <stdlib.h>
#include <string.h>

/* Freed when it is done; `fdc` is NULL when the controller is gone. The buffer is its own. */
struct fdc_io {
    struct blockdev_request request;
    struct iovec iov;
    struct fdc *fdc;
    struct blockdev *image;
    uint8_t buffer[FDC_SECTOR];
};

static void next_sector(struct fdc *f);

static bool is_scan(const struct fdc *f)
{
    return f->kind >= FDC_SCAN_EQUAL;
}

/* ---- The end --------------------------------------------------------------------------------- */

static void finish(struct fdc *f, uint8_t st0)
{
    const uint8_t result[] = {
        (uint8_t)(st0 | f->head << 2 | f->unit), f->st1, f->st2, f->cylinder, f->head, f->sector, 2,
    };
    f->step = STEP_NONE;
    fdc_result(f, result, sizeof(result), true);
}

static void fail(struct fdc *f, uint8_t st1, uint8_t st2)
{
    f->st1 |= st1;
    f->st2 |= st2;
    finish(f, ST0_ABNORMAL);
}

/* Table 5-6: what C, H and R say after the sector; true when it was the last of the cylinder. */
static bool advance(struct fdc *f)
{
    unsigned step = is_scan(f) && f->left == 2 ? 2 : 1;
    if (f->sector + step <= f->last) {
        f->sector = (uint8_t)(f->sector + step);
        return false;
    }
    f->sector = 1;
    if (f->multi) {
        f->head ^= 1;
        if (f->head)
            return false;
    }
    f->cylinder++;
    return true;
}

/* A sector is through. */
static void sector_done(struct fdc *f)
{
    bool met = f->st2 & ST2_CONTROL_MARK && f->kind == FDC_READ;
    if (f->kind == FDC_FORMAT) {
        f->left--;
        if (f->left == 0 || f->count_ran_out)
            finish(f, 0);
        else
            next_sector(f);
        return;
    }
    if (is_scan(f) && !(f->st2 & ST2_SCAN_FAILED)) {
        finish(f, 0);
        return;
    }
    bool end = advance(f);
    if (f->kind == FDC_VERIFY && f->left && --f->left == 0)
        finish(f, 0);
    else if (f->count_ran_out || met)
        finish(f, 0);
    else if (end && (f->kind == FDC_VERIFY || is_scan(f)))
        finish(f, 0);
    else if (end) /* nobody said TC before the track was over */
        fail(f, ST1_END_OF_CYLINDER, 0);
    else
        next_sector(f);
}

/* ---- The image's side ------------------------------------------------------------------------ */

static void to_guest(struct fdc *f);

static void image_done(struct blockdev_request *request)
{
    struct fdc_io *io = request->opaque;
    struct fdc *f = io->fdc;
    if (f && io == f->forgotten) {
        f->forgotten = NULL;
        if (f->io)
            blockdev_submit(f->io->image, &f->io->request);
    } else if (f) {
        f->io = NULL;
        if (request->result < 0) {
            fail(f, request->op == BLOCKDEV_READ ? ST1_DATA_ERROR : ST1_NOT_WRITABLE, 0);
        } else if (request->op == BLOCKDEV_READ) {
            memcpy(f->buffer, io->buffer, FDC_SECTOR);
            to_guest(f);
        } else {
            sector_done(f);
        }
    }
    free(io);
}

/* An image may be shorter than its disk: what it lacks reads as zeros, and cannot be written. */
static void use_image(struct fdc *f, enum blockdev_op op)
{
    struct fdc_drive *drive = &f->drive[f->unit];
    uint64_t offset;
    if (op == BLOCKDEV_WRITE && blockdev_read_only(drive->image)) { /* restored with another disk */
        fail(f, ST1_NOT_WRITABLE, 0);
        return;
    }
    if (!fdc_drive_locate(drive, drive->track, f->head, f->sector, &offset) ||
        (op == BLOCKDEV_WRITE && offset >= blockdev_size(drive->image))) {
        fail(f, ST1_NO_DATA, 0);
        return;
    }
    if (offset >= blockdev_size(drive->image)) {
        memset(f->buffer, 0, sizeof(f->buffer));
        to_guest(f);
        return;
    }
    struct fdc_io *io = chip_alloc(sizeof(*io));
    memcpy(io->buffer, f->buffer, sizeof(io->buffer));
    io->fdc = f;
    io->image = drive->image;
    io->iov = (struct iovec){io->buffer, FDC_SECTOR};
    io->request = (struct blockdev_request){.op = op,
                                            .offset = offset,
                                            .len = FDC_SECTOR,
                                            .iov = &io->iov,
                                            .iovcnt = 1,
                                            .done = image_done,
                                            .opaque = io};
    f->io = io;
    f->step = op == BLOCKDEV_READ ? STEP_IMAGE_READ : STEP_IMAGE_WRITE;
    if (!f->forgotten)
        blockdev_submit(drive->image, &io->request);
}

/* ---- The guest's side ------------------------------------------------------------------------ */

/* FFh on either side matches anything (section 5.1.6). Sets SCAN_FAILED unless the sector satisfies
 * the condition. */
static void compare(struct fdc *f, const uint8_t *mine)
{
    bool equal = true, fits = true;
    for (unsigned i = 0; i < FDC_SECTOR; i++) {
        uint8_t disk = f->buffer[i], guest = mine[i];
        if (disk == guest || disk == 0xff || guest == 0xff)
            continue;
        equal = false;
        fits &= (f->kind == FDC_SCAN_LOW_OR_EQUAL && disk < guest) ||
                (f->kind == FDC_SCAN_HIGH_OR_EQUAL && disk > guest);
    }
    f->st2 &= (uint8_t) ~(ST2_SCAN_FAILED | ST2_SCAN_EQUAL);
    f->st2 |= equal ? ST2_SCAN_EQUAL : fits ? 0 : ST2_SCAN_FAILED;
}

/* The sector has gone to the guest, or come from it, or the count has run out within it. */
static void buffer_done(struct fdc *f)
{
    if (f->kind == FDC_READ || is_scan(f)) {
        sector_done(f);
    } else {
        /* What was not sent is zeros (section 5.1.3). */
        memset(f->buffer + f->at, 0, sizeof(f->buffer) - f->at);
        if (f->kind == FDC_FORMAT) {
            f->cylinder = f->buffer[0];
            f->sector = f->buffer[2];
            memset(f->buffer, f->filler, sizeof(f->buffer));
        }
        use_image(f, BLOCKDEV_WRITE);
    }
}

/* Lets DMA have as much as it takes. */
static void pump(struct fdc *f)
{
    bool tc = false;
    if (f->step != STEP_TO_GUEST && f->step != STEP_FROM_GUEST)
        return;
    if (!fdc_uses_dma(f)) {
        fdc_interrupt(f, true); /* for each byte; the guest comes and gets it */
        return;
    }
    if (!(f->dor & DOR_DMA_GATE))
        return;
    uint8_t mine[FDC_SECTOR];
    if (is_scan(f)) {
        memcpy(mine, f->buffer, sizeof(mine)); /* what is not sent matches */
        f->at += (uint16_t)dma_transfer(f->dma, FDC_DMA_CHANNEL, mine, f->len, &tc);
        if (f->at)
            compare(f, mine);
    } else {
        f->at += (uint16_t)dma_transfer(f->dma, FDC_DMA_CHANNEL, f->buffer + f->at,
                                        (unsigned)(f->len - f->at), &tc);
    }
    f->count_ran_out |= tc;
    if (tc || f->at == f->len || (is_scan(f) && f->at))
        buffer_done(f);
}

static void to_guest(struct fdc *f)
{
    if (f->kind == FDC_VERIFY) {
        sector_done(f);
        return;
    }
    f->step = STEP_TO_GUEST;
    f->at = 0;
    f->len = FDC_SECTOR;
    pump(f);
}

static void next_sector(struct fdc *f)
{
    uint64_t offset;
    if (f->kind != FDC_FORMAT && !fdc_drive_locate(&f->drive[f->unit], f->drive[f->unit].track,
                                                   f->head, f->sector, &offset)) {
        fail(f, ST1_NO_DATA, 0);
    } else if (f->kind == FDC_WRITE || f->kind == FDC_FORMAT) {
        f->step = STEP_FROM_GUEST;
        f->at = 0;
        f->len = f->kind == FDC_FORMAT ? 4 : FDC_SECTOR;
        pump(f);
    } else {
        use_image(f, BLOCKDEV_READ);
    }
}

bool fdc_transfer_waits(const struct fdc *f, bool *to)
{
    *to = f->step == STEP_TO_GUEST && !is_scan(f);
    return (f->step == STEP_TO_GUEST || f->step == STEP_FROM_GUEST) && !fdc_uses_dma(f);
}

uint8_t fdc_transfer_get(struct fdc *f)
{
    uint8_t byte = f->buffer[f->at % FDC_SECTOR];
    fdc_interrupt(f, false);
    if (++f->at >= f->len)
        buffer_done(f);
    else
        pump(f);
    return byte;
}

/* Without DMA a scan compares byte by byte. */
void fdc_transfer_put(struct fdc *f, uint8_t byte)
{
    fdc_interrupt(f, false);
    if (is_scan(f)) {
        uint8_t mine[FDC_SECTOR];
        uint8_t before = f->at ? f->st2 & ST2_SCAN_FAILED : 0;
        memcpy(mine, f->buffer, sizeof(mine));
        mine[f->at % FDC_SECTOR] = byte;
        compare(f, mine);
        f->st2 |= before;
    } else {
        f->buffer[f->at % FDC_SECTOR] = byte;
    }
    if (++f->at >= f->len)
        buffer_done(f);
    else
        pump(f);
}

void fdc_transfer_ready(void *fdc)
{
    struct fdc *f = fdc;
    if (fdc_uses_dma(f))
        pump(f);
}

/* ---- The beginning --------------------------------------------------------------------------- */

static bool may_begin(struct fdc *f)
{
    struct fdc_drive *drive = f->unit < FDC_DRIVES ? &f->drive[f->unit] : NULL;
    if (!drive || !drive->image || drive->format->rate != (f->ccr & 3)) {
        fail(f, ST1_MISSING_MARK, 0); /* nothing that could be read goes by */
        return false;
    }
    bool writes = f->kind == FDC_WRITE || f->kind == FDC_FORMAT;
    if (writes && blockdev_read_only(drive->image)) {
        fail(f, ST1_NOT_WRITABLE, 0);
        return false;
    }
    if (f->config & CONFIG_IMPLIED_SEEK && f->kind != FDC_FORMAT &&
        f->cylinder < drive->format->tracks) {
        drive->track = f->tracks[f->unit] = f->cylinder;
        drive->changed = 0;
    }
    if (f->kind != FDC_FORMAT && f->cylinder != drive->track) {
        fail(f, ST1_NO_DATA, ST2_WRONG_CYLINDER);
        return false;
    }
    return true;
}

void fdc_transfer_begin(struct fdc *f)
{
    f->phase = PHASE_EXECUTION;
    f->st1 = 0;
    f->count_ran_out = 0;
    if (may_begin(f))
        next_sector(f);
}

/* What is at the image cannot be taken back. What comes next waits for it, so that an old write
 * never lands after a newer one. */
void fdc_transfer_abandon(struct fdc *f)
{
    if (f->forgotten)
        free(f->io); /* has waited itself */
    else
        f->forgotten = f->io;
    f->io = NULL;
    f->step = STEP_NONE;
}

void fdc_transfer_disk_gone(struct fdc *f, unsigned unit)
{
    if (f->step == STEP_NONE || f->unit != unit)
        return;
    fdc_transfer_abandon(f);
    fail(f, ST1_MISSING_MARK, 0);
}

void fdc_transfer_leave(struct fdc *f)
{
    fdc_transfer_abandon(f);
    if (f->forgotten)
        f->forgotten->fdc = NULL;
}

/* What an image was doing is done again. A state that cannot be, or whose disk is not in the drive,
 * ends as if the disk had been taken out: no transfer goes on behind the guest's commands. */
void fdc_transfer_restored(struct fdc *f)
{
    uint8_t step = f->step;
    fdc_transfer_abandon(f); /* of the state before */
    if (f->phase != PHASE_EXECUTION)
        return;
    if (f->unit >= FDC_DRIVES || !f->drive[f->unit].image || f->at > f->len ||
        f->len > FDC_SECTOR || step == STEP_NONE || step > STEP_FROM_GUEST) {
        fail(f, ST1_MISSING_MARK, 0);
        return;
    }
    f->step = step;
    if (step == STEP_IMAGE_READ)
        use_image(f, BLOCKDEV_READ);
    else if (step == STEP_IMAGE_WRITE)
        use_image(f, BLOCKDEV_WRITE);
    else
        pump(f);
}
