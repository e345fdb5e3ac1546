/*
 * fdc.h - the floppy controller as its files share it: what a drive is, where a transfer has got
 * to.
 *
 * Intel 82078 data sheet; section and table numbers are its own.
 */
#ifndef DEVICES_FDC_H
#define DEVICES_FDC_H

#include "internal/blockdev.h"
#include "internal/chips.h"

enum { FDC_DRIVES = 2, FDC_SELECTABLE = 4, FDC_SECTOR = 512, FDC_FIFO = 16 };

/* Status registers, section 4.2 (8.0 of older sheets). */
enum fdc_st0 {
    ST0_ABNORMAL = 1 << 6,
    ST0_INVALID = 1 << 7,
    ST0_POLLED = 3 << 6, /* the ready line changed: what polling finds after a reset */
    ST0_SEEK_END = 1 << 5,
    ST0_EQUIPMENT = 1 << 4,
};
enum fdc_st1 {
    ST1_END_OF_CYLINDER = 1 << 7,
    ST1_DATA_ERROR = 1 << 5,
    ST1_NO_DATA = 1 << 2,
    ST1_NOT_WRITABLE = 1 << 1,
    ST1_MISSING_MARK = 1 << 0,
};
enum fdc_st2 {
    ST2_CONTROL_MARK = 1 << 6,
    ST2_WRONG_CYLINDER = 1 << 4,
    ST2_SCAN_EQUAL = 1 << 3,
    ST2_SCAN_FAILED = 1 << 2,
};

/* ---- Drives (fdc_drive.c) -------------------------------------------------------------------- */

struct fdc_format {
    uint16_t sectors_total;
    uint8_t sectors, tracks, heads;
    uint8_t rate; /* as in CCR: 0 500, 1 300, 2 250 kb/s, 3 1 Mb/s */
    uint8_t type; /* of the drive, as in CMOS */
};

struct fdc_drive {
    struct blockdev *image; /* NULL: there is no disk in it */
    const struct fdc_format *format;
    uint8_t type;    /* as in CMOS; 0: there is no drive */
    uint8_t track;   /* the head is over */
    uint8_t changed; /* the disk change line: until the head steps */
    uint8_t id;      /* sector that the last READ ID found */
};

bool fdc_drive_open(struct fdc_drive *drive, struct blockdev *image, struct error *err);
/* Another disk, or none. */
bool fdc_drive_change(struct fdc_drive *drive, struct blockdev *image, struct error *err);
/* Where a sector is in the image; false: the disk has no such sector. */
bool fdc_drive_locate(const struct fdc_drive *drive, unsigned track, unsigned head, unsigned sector,
                      uint64_t *offset);

/* ---- Transfers (fdc_transfer.c) -------------------------------------------------------------- */

enum fdc_transfer_kind {
    FDC_READ,
    FDC_WRITE,
    FDC_VERIFY,
    FDC_FORMAT,
    FDC_SCAN_EQUAL,
    FDC_SCAN_LOW_OR_EQUAL,
    FDC_SCAN_HIGH_OR_EQUAL,
};

/* One sector at a time goes through the buffer: from the image to the guest or back. */
enum fdc_step {
    STEP_NONE,
    STEP_IMAGE_READ,  /* the image is at work */
    STEP_IMAGE_WRITE, /* likewise */
    STEP_TO_GUEST,    /* bytes wait for DMA or for the guest to fetch them */
    STEP_FROM_GUEST,
};

struct fdc_io; /* a request to an image, which may outlive the controller */

struct fdc {
    struct device dev;
    struct board *board;
    struct dma *dma;
    struct irq_line irq6;
    struct fdc_drive drive[FDC_DRIVES];

    uint8_t dor, tdr, dsr, ccr;
    uint8_t config, pretrack, lock, perpendicular, timers[2], power;
    uint8_t phase; /* enum fdc_phase */
    uint8_t fifo[FDC_FIFO], fifo_at, fifo_len;
    uint8_t sense[FDC_SELECTABLE];  /* ST0 that SENSE INTERRUPT STATUS has to give; 0: none */
    uint8_t tracks[FDC_SELECTABLE]; /* PCN, also of drives that are not there */
    uint8_t interrupt;              /* INT as asked for, before DOR gates it */

    /* the transfer */
    uint8_t step, kind; /* enum fdc_step, enum fdc_transfer_kind */
    uint8_t unit, cylinder, head, sector, last, multi, filler;
    uint8_t left; /* FORMAT, VERIFY: sectors; scans: from one to the next */
    uint8_t st1, st2, count_ran_out;
    uint16_t at, len; /* in the buffer */
    uint8_t buffer[FDC_SECTOR];
    struct fdc_io *io;        /* what the transfer waits for, or NULL */
    struct fdc_io *forgotten; /* of a transfer before a reset: is still at its image */

    int low_ports, high_port;
    bool int_level;
};

enum fdc_phase { PHASE_COMMAND, PHASE_EXECUTION, PHASE_RESULT };
enum { DOR_NO_RESET = 1 << 2, DOR_DMA_GATE = 1 << 3 };
enum { CONFIG_IMPLIED_SEEK = 1 << 6, CONFIG_NO_FIFO = 1 << 5, CONFIG_NO_POLL = 1 << 4 };
enum { FDC_DMA_CHANNEL = 2 };

static inline bool fdc_uses_dma(const struct fdc *f)
{
    return !(f->timers[1] & 1); /* ND of SPECIFY */
}

void fdc_interrupt(struct fdc *f, bool on);
/* Ends a command with these bytes for the guest, and an interrupt or not. */
void fdc_result(struct fdc *f, const uint8_t *bytes, unsigned count, bool interrupt);

/* Begins the transfer that `kind`, `unit`, `cylinder` ... describe. */
void fdc_transfer_begin(struct fdc *f);
/* Whatever it is doing is forgotten: a reset. */
void fdc_transfer_abandon(struct fdc *f);
/* The disk has been taken out of a drive. */
void fdc_transfer_disk_gone(struct fdc *f, unsigned unit);
/* The controller goes; its last request need not come back to it. */
void fdc_transfer_leave(struct fdc *f);
/* DMA may go on. */
void fdc_transfer_ready(void *fdc);
/* The guest's byte without DMA. */
uint8_t fdc_transfer_get(struct fdc *f);
void fdc_transfer_put(struct fdc *f, uint8_t byte);
bool fdc_transfer_waits(const struct fdc *f, bool *to_guest);
/* After the fields were restored. */
void fdc_transfer_restored(struct fdc *f);

#endif
