/*
 * fdc.c - the floppy controller: registers, commands, interrupts.
 *
 * Intel 82078 data sheet, AT mode; it is QEMU's isa-fdc to the guest. Heads move at once: a seek is
 * over, and its interrupt there, when its last parameter has been written.
 */
#include "fdc.h"
#include <stdlib.h>
#include <string.h>

/* Registers, by port less 3F0h. */
enum { REG_SRB = 1, REG_DOR, REG_TDR, REG_MSR_DSR, REG_FIFO, REG_DIR_CCR = 7 };
enum {
    MSR_READY = 1 << 7,
    MSR_TO_GUEST = 1 << 6,
    MSR_NO_DMA = 1 << 5,
    MSR_BUSY = 1 << 4,
};
enum { DSR_RESET = 1 << 7, DIR_CHANGED = 1 << 7, ST3_WRITE_PROTECTED = 1 << 6, ST3_READY = 1 << 5 };
enum { ST3_TRACK_0 = 1 << 4, ST3_TWO_SIDES = 1 << 3, VERSION_82078 = 0x90, PART_ID = 0x41 };
enum { CMD_MULTI = 1 << 7, VERIFY_COUNT = 1 << 7, LOCK_SET = 1 << 7 };
enum { PERPENDICULAR_OVERWRITE = 1 << 7 };

/* ---- Interrupts and results ------------------------------------------------------------------ */

static void update_line(struct fdc *f)
{
    bool level = f->interrupt && f->dor & DOR_DMA_GATE && f->dor & DOR_NO_RESET;
    if (level == f->int_level)
        return;
    f->int_level = level;
    irq_set(&f->irq6, level);
}

void fdc_interrupt(struct fdc *f, bool on)
{
    f->interrupt = on;
    update_line(f);
}

static void expect_command(struct fdc *f)
{
    f->phase = PHASE_COMMAND;
    f->fifo_at = f->fifo_len = 0;
}

void fdc_result(struct fdc *f, const uint8_t *bytes, unsigned count, bool interrupt)
{
    memcpy(f->fifo, bytes, count);
    f->phase = PHASE_RESULT;
    f->fifo_at = 0;
    f->fifo_len = (uint8_t)count;
    if (interrupt)
        fdc_interrupt(f, true);
}

static void result1(struct fdc *f, uint8_t byte)
{
    fdc_result(f, &byte, 1, false);
}

/* ---- Commands that move data ----------------------------------------------------------------- */

static void transfer(struct fdc *f, enum fdc_transfer_kind kind, uint8_t st2)
{
    const uint8_t *p = f->fifo;
    f->kind = (uint8_t)kind;
    f->unit = p[1] & 3;
    f->head = p[1] >> 2 & 1;
    f->cylinder = p[2];
    f->sector = p[4];
    f->last = p[6];
    f->multi = p[0] & CMD_MULTI ? 1 : 0;
    f->left = p[8]; /* VERIFY: sectors; scans: from one to the next */
    f->st2 = st2;
    if (p[5] != 2 || p[3] != f->head) { /* no sector has such an ID */
        const uint8_t result[] = {
            (uint8_t)(ST0_ABNORMAL | (p[1] & 7)), ST1_NO_DATA, 0, p[2], p[3], p[4], p[5]};
        fdc_result(f, result, sizeof(result), true);
        return;
    }
    fdc_transfer_begin(f);
}

static void cmd_read(struct fdc *f)
{
    transfer(f, FDC_READ, 0);
}

static void cmd_write(struct fdc *f)
{
    transfer(f, FDC_WRITE, 0);
}

/* Images have no deleted data: the first sector is ordinary, and the transfer ends with it. */
static void cmd_read_deleted(struct fdc *f)
{
    f->last = f->fifo[6] = f->fifo[4];
    transfer(f, FDC_READ, ST2_CONTROL_MARK);
}

/* Sectors as they come by after the index hole. */
static void cmd_read_track(struct fdc *f)
{
    f->fifo[0] &= (uint8_t)~CMD_MULTI;
    f->fifo[4] = 1;
    transfer(f, FDC_READ, 0);
}

static void cmd_verify(struct fdc *f)
{
    if (!(f->fifo[1] & VERIFY_COUNT))
        f->fifo[8] = 0;
    transfer(f, FDC_VERIFY, 0);
}

static void cmd_scan_equal(struct fdc *f)
{
    transfer(f, FDC_SCAN_EQUAL, 0);
}

static void cmd_scan_low(struct fdc *f)
{
    transfer(f, FDC_SCAN_LOW_OR_EQUAL, 0);
}

static void cmd_scan_high(struct fdc *f)
{
    transfer(f, FDC_SCAN_HIGH_OR_EQUAL, 0);
}

static void cmd_format(struct fdc *f)
{
    const uint8_t *p = f->fifo;
    f->kind = FDC_FORMAT;
    f->unit = p[1] & 3;
    f->head = p[1] >> 2 & 1;
    f->left = p[3];
    f->filler = p[5];
    f->sector = 1;
    f->cylinder = f->tracks[f->unit];
    f->st2 = 0;
    if (p[2] != 2 || p[3] == 0) {
        const uint8_t result[7] = {(uint8_t)(ST0_ABNORMAL | (p[1] & 7)), ST1_NO_DATA};
        fdc_result(f, result, sizeof(result), true);
        return;
    }
    fdc_transfer_begin(f);
}

/* The next ID that comes by; there is one if the disk turns and was written at this data rate. */
static void cmd_read_id(struct fdc *f)
{
    unsigned unit = f->fifo[1] & 3, head = f->fifo[1] >> 2 & 1;
    struct fdc_drive *drive = unit < FDC_DRIVES ? &f->drive[unit] : NULL;
    uint8_t result[7] = {f->fifo[1] & 7};
    if (drive && drive->image && drive->format->rate == (f->ccr & 3) &&
        head < drive->format->heads && drive->track < drive->format->tracks) {
        drive->id = drive->id % drive->format->sectors + 1;
        result[3] = drive->track;
        result[4] = (uint8_t)head;
        result[5] = drive->id;
        result[6] = 2;
    } else {
        result[0] |= ST0_ABNORMAL;
        result[1] = ST1_MISSING_MARK;
    }
    fdc_result(f, result, sizeof(result), true);
}

/* ---- Commands that move heads ---------------------------------------------------------------- */

static void seek_done(struct fdc *f, unsigned unit, uint8_t track, uint8_t st0)
{
    f->tracks[unit] = track;
    if (unit < FDC_DRIVES)
        f->drive[unit].track = track;
    if (unit < FDC_DRIVES && f->drive[unit].image)
        f->drive[unit].changed = 0; /* a step, with a disk in the drive */
    f->sense[unit] = st0;
    fdc_interrupt(f, true);
    expect_command(f);
}

/* Without a drive there is no track 0 to be found. */
static void cmd_recalibrate(struct fdc *f)
{
    unsigned unit = f->fifo[1] & 3;
    bool there = unit < FDC_DRIVES && f->drive[unit].type;
    seek_done(f, unit, 0,
              (uint8_t)(ST0_SEEK_END | (there ? 0 : ST0_ABNORMAL | ST0_EQUIPMENT) | unit));
}

static void cmd_seek(struct fdc *f)
{
    unsigned unit = f->fifo[1] & 3;
    seek_done(f, unit, f->fifo[2], (uint8_t)(ST0_SEEK_END | (f->fifo[1] & 7)));
}

static void cmd_relative_seek(struct fdc *f)
{
    unsigned unit = f->fifo[1] & 3;
    int step = f->fifo[0] & 0x40 ? f->fifo[2] : -f->fifo[2], track = f->tracks[unit] + step;
    track = track < 0 ? 0 : track > 255 ? 255 : track;
    seek_done(f, unit, (uint8_t)track, (uint8_t)(ST0_SEEK_END | (f->fifo[1] & 7)));
}

/* ---- Commands that ask and set --------------------------------------------------------------- */

static void cmd_sense_interrupt(struct fdc *f)
{
    for (unsigned i = 0; i < FDC_SELECTABLE; i++)
        if (f->sense[i]) {
            const uint8_t result[] = {f->sense[i], f->tracks[i]};
            f->sense[i] = 0;
            fdc_interrupt(f, false);
            fdc_result(f, result, sizeof(result), false);
            return;
        }
    result1(f, ST0_INVALID);
}

static void cmd_sense_drive(struct fdc *f)
{
    unsigned unit = f->fifo[1] & 3;
    const struct fdc_drive *drive = unit < FDC_DRIVES ? &f->drive[unit] : NULL;
    unsigned st3 = (f->fifo[1] & 7u) | ST3_READY | ST3_TWO_SIDES;
    if (f->tracks[unit] == 0)
        st3 |= ST3_TRACK_0;
    if (!drive || !drive->image || blockdev_read_only(drive->image))
        st3 |= ST3_WRITE_PROTECTED;
    result1(f, (uint8_t)st3);
}

static void cmd_specify(struct fdc *f)
{
    f->timers[0] = f->fifo[1];
    f->timers[1] = f->fifo[2];
    expect_command(f);
}

static void cmd_configure(struct fdc *f)
{
    f->config = f->fifo[2];
    f->pretrack = f->fifo[3];
    expect_command(f);
}

/* With OW the drive bits may change, too. */
static void cmd_perpendicular(struct fdc *f)
{
    uint8_t value = f->fifo[1];
    f->perpendicular = value & PERPENDICULAR_OVERWRITE
                           ? value & 0x3f
                           : (uint8_t)((f->perpendicular & 0x3c) | (value & 3));
    expect_command(f);
}

static void cmd_lock(struct fdc *f)
{
    f->lock = f->fifo[0] & LOCK_SET ? 1 : 0;
    result1(f, (uint8_t)(f->lock << 4));
}

static void cmd_version(struct fdc *f)
{
    result1(f, VERSION_82078);
}

static void cmd_part_id(struct fdc *f)
{
    result1(f, PART_ID);
}

static void cmd_dump(struct fdc *f)
{
    const uint8_t result[] = {
        f->tracks[0], f->tracks[1], f->tracks[2], f->tracks[3],
        f->timers[0], f->timers[1], f->last,      (uint8_t)(f->lock << 7 | f->perpendicular),
        f->config,    f->pretrack,
    };
    fdc_result(f, result, sizeof(result), false);
}

static void cmd_power(struct fdc *f)
{
    f->power = f->fifo[1];
    result1(f, f->power);
}

static void cmd_drive_specification(struct fdc *f)
{
    expect_command(f); /* drives here are of any data rate */
}

static void cmd_invalid(struct fdc *f)
{
    result1(f, ST0_INVALID);
}

/* By the bits that tell them apart; `length`: bytes of the command phase. */
static const struct command {
    uint8_t mask, value, length;
    void (*run)(struct fdc *f);
} commands[] = {
    {0x1f, 0x06, 9, cmd_read},
    {0x1f, 0x0c, 9, cmd_read_deleted},
    {0x3f, 0x05, 9, cmd_write},
    {0x3f, 0x09, 9, cmd_write},
    {0x9f, 0x02, 9, cmd_read_track},
    {0x1f, 0x16, 9, cmd_verify},
    {0x1f, 0x11, 9, cmd_scan_equal},
    {0x1f, 0x19, 9, cmd_scan_low},
    {0x1f, 0x1d, 9, cmd_scan_high},
    {0xbf, 0x0d, 6, cmd_format},
    {0xbf, 0x0a, 2, cmd_read_id},
    {0xff, 0x07, 2, cmd_recalibrate},
    {0xff, 0x0f, 3, cmd_seek},
    {0xbf, 0x8f, 3, cmd_relative_seek},
    {0xff, 0x08, 1, cmd_sense_interrupt},
    {0xff, 0x04, 2, cmd_sense_drive},
    {0xff, 0x03, 3, cmd_specify},
    {0xff, 0x13, 4, cmd_configure},
    {0xff, 0x12, 2, cmd_perpendicular},
    {0x7f, 0x14, 1, cmd_lock},
    {0xff, 0x10, 1, cmd_version},
    {0xff, 0x18, 1, cmd_part_id},
    {0xff, 0x0e, 1, cmd_dump},
    {0xff, 0x17, 2, cmd_power},
    {0x00, 0x00, 1, cmd_invalid},
};

static const struct command *find_command(uint8_t opcode)
{
    const struct command *c = commands;
    while ((opcode & c->mask) != c->value)
        c++;
    return c;
}

/* DRIVE SPECIFICATION ends with a byte that has bit 7 set. */
enum { CMD_DRIVE_SPECIFICATION = 0x8e };

static void command_byte(struct fdc *f, uint8_t byte)
{
    bool specification = f->fifo_at && f->fifo[0] == CMD_DRIVE_SPECIFICATION;
    if (f->fifo_at < FDC_FIFO)
        f->fifo[f->fifo_at++] = byte;
    if (specification ? byte & 0x80 || f->fifo_at == 7 : false)
        cmd_drive_specification(f);
    else if (f->fifo[0] != CMD_DRIVE_SPECIFICATION &&
             f->fifo_at >= find_command(f->fifo[0])->length)
        find_command(f->fifo[0])->run(f);
}

/* ---- Registers ------------------------------------------------------------------------------- */

/* What a reset by DOR, DSR or the bus has in common. Polling then finds all four drives to have
 * changed, and says so with an interrupt. */
static void reset_controller(struct fdc *f)
{
    fdc_transfer_abandon(f);
    expect_command(f);
    if (!f->lock) {
        f->config = CONFIG_NO_FIFO;
        f->pretrack = 0;
    }
    f->perpendicular &= 0x3c;
    memset(f->sense, 0, sizeof(f->sense));
    fdc_interrupt(f, false);
}

static void leave_reset(struct fdc *f)
{
    if (f->config & CONFIG_NO_POLL)
        return;
    for (unsigned i = 0; i < FDC_SELECTABLE; i++)
        f->sense[i] = (uint8_t)(ST0_POLLED | i);
    fdc_interrupt(f, true);
}

static void write_dor(struct fdc *f, uint8_t value)
{
    bool was = f->dor & DOR_NO_RESET, is = value & DOR_NO_RESET;
    f->dor = value;
    if (was && !is)
        reset_controller(f);
    if (!was && is)
        leave_reset(f);
    update_line(f);
    if (is)
        fdc_transfer_ready(f);
}

static void write_dsr(struct fdc *f, uint8_t value)
{
    if (!(f->dor & DOR_NO_RESET))
        return;
    f->dsr = value & (uint8_t)~DSR_RESET;
    f->ccr = value & 3;
    if (value & DSR_RESET) {
        reset_controller(f);
        leave_reset(f);
    }
}

static uint8_t read_msr(const struct fdc *f)
{
    bool to_guest, waits = fdc_transfer_waits(f, &to_guest);
    if (!(f->dor & DOR_NO_RESET))
        return 0;
    switch (f->phase) {
    case PHASE_RESULT:
        return MSR_READY | MSR_TO_GUEST | MSR_BUSY;
    case PHASE_EXECUTION:
        return (uint8_t)(MSR_BUSY | (fdc_uses_dma(f) ? 0 : MSR_NO_DMA) |
                         (waits ? MSR_READY | (to_guest ? MSR_TO_GUEST : 0) : 0));
    default:
        return (uint8_t)(MSR_READY | (f->fifo_at ? MSR_BUSY : 0));
    }
}

static uint8_t read_fifo(struct fdc *f)
{
    bool to_guest, waits = fdc_transfer_waits(f, &to_guest);
    if (!(f->dor & DOR_NO_RESET))
        return 0;
    if (f->phase == PHASE_EXECUTION)
        return waits && to_guest ? fdc_transfer_get(f) : 0;
    if (f->phase != PHASE_RESULT)
        return 0;
    uint8_t byte = f->fifo[f->fifo_at % FDC_FIFO];
    fdc_interrupt(f, false);
    if (++f->fifo_at >= f->fifo_len)
        expect_command(f);
    return byte;
}

static void write_fifo(struct fdc *f, uint8_t byte)
{
    bool to_guest, waits = fdc_transfer_waits(f, &to_guest);
    if (!(f->dor & DOR_NO_RESET))
        return;
    if (f->phase == PHASE_COMMAND)
        command_byte(f, byte);
    else if (f->phase == PHASE_EXECUTION && waits && !to_guest)
        fdc_transfer_put(f, byte);
}

/* The disk change line of the drive that is selected, while its motor turns. */
static uint8_t read_dir(const struct fdc *f)
{
    unsigned unit = f->dor & 3;
    bool on = f->dor >> (4 + unit) & 1;
    if (!on || unit >= FDC_DRIVES)
        return 0;
    return f->drive[unit].changed ? DIR_CHANGED : 0;
}

static uint64_t fdc_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    struct fdc *f = opaque;
    (void)access, (void)size;
    switch (offset) {
    case REG_SRB: /* motors and drive 0, section 2.1.2 */
        return 0xc0 | (f->dor & 1) << 5 | (f->dor >> 4 & 3);
    case REG_DOR:
        return f->dor;
    case REG_TDR:
        return f->tdr;
    case REG_MSR_DSR:
        return read_msr(f);
    case REG_FIFO:
        return read_fifo(f);
    case REG_DIR_CCR:
        return read_dir(f);
    }
    return 0xff;
}

static void fdc_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                      uint64_t value)
{
    struct fdc *f = opaque;
    (void)access, (void)size;
    switch (offset) {
    case REG_DOR:
        write_dor(f, (uint8_t)value);
        break;
    case REG_TDR:
        f->tdr = value & 3;
        break;
    case REG_MSR_DSR:
        write_dsr(f, (uint8_t)value);
        break;
    case REG_FIFO:
        write_fifo(f, (uint8_t)value);
        break;
    case REG_DIR_CCR:
        f->ccr = value & 3;
        break;
    }
}

/* Ports 3F1h-3F5h and 3F7h: 3F0h is the 82077's in PS/2 mode, 3F6h the disk controller's. */
static uint64_t low_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    return fdc_read(opaque, access, offset + 1, size);
}
static void low_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                      uint64_t value)
{
    fdc_write(opaque, access, offset + 1, size, value);
}
static uint64_t high_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    return fdc_read(opaque, access, offset + REG_DIR_CCR, size);
}
static void high_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    fdc_write(opaque, access, offset + REG_DIR_CCR, size, value);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void fdc_reset(struct device *dev)
{
    struct fdc *f = (struct fdc *)dev;
    f->lock = 0;
    f->perpendicular = 0;
    f->dor = DOR_NO_RESET | DOR_DMA_GATE;
    f->tdr = f->dsr = f->power = 0;
    f->ccr = 2; /* 250 kb/s */
    f->timers[0] = f->timers[1] = 0;
    f->kind = f->unit = f->cylinder = f->head = f->sector = f->last = f->multi = f->filler = 0;
    f->left = f->st1 = f->st2 = f->count_ran_out = 0;
    f->at = f->len = 0;
    memset(f->buffer, 0, sizeof(f->buffer));
    memset(f->fifo, 0, sizeof(f->fifo));
    memset(f->tracks, 0, sizeof(f->tracks));
    for (unsigned i = 0; i < FDC_DRIVES; i++) {
        f->drive[i].track = f->drive[i].id = 0;
        f->drive[i].changed = 1;
    }
    reset_controller(f);
}

static void fdc_restored(struct device *dev)
{
    struct fdc *f = (struct fdc *)dev;
    if (f->fifo_at >= FDC_FIFO || f->fifo_len > FDC_FIFO || f->phase > PHASE_RESULT)
        expect_command(f);
    update_line(f);
    fdc_transfer_restored(f);
}

static void fdc_destroy(struct device *dev)
{
    struct fdc *f = (struct fdc *)dev;
    fdc_transfer_leave(f);
    dma_connect(f->dma, FDC_DMA_CHANNEL, NULL, NULL);
    io_remove(f->board->io, f->low_ports);
    io_remove(f->board->io, f->high_port);
    free(f);
}

static const struct field fdc_fields[] = {
    FIELD(struct fdc, dor, FIELD_U8, 1),
    FIELD(struct fdc, tdr, FIELD_U8, 1),
    FIELD(struct fdc, dsr, FIELD_U8, 1),
    FIELD(struct fdc, ccr, FIELD_U8, 1),
    FIELD(struct fdc, config, FIELD_U8, 1),
    FIELD(struct fdc, pretrack, FIELD_U8, 1),
    FIELD(struct fdc, lock, FIELD_U8, 1),
    FIELD(struct fdc, perpendicular, FIELD_U8, 1),
    FIELD_ARRAY(struct fdc, timers, FIELD_U8, 1),
    FIELD(struct fdc, power, FIELD_U8, 1),
    FIELD(struct fdc, phase, FIELD_U8, 1),
    FIELD_ARRAY(struct fdc, fifo, FIELD_BYTES, 1),
    FIELD(struct fdc, fifo_at, FIELD_U8, 1),
    FIELD(struct fdc, fifo_len, FIELD_U8, 1),
    FIELD_ARRAY(struct fdc, sense, FIELD_U8, 1),
    FIELD_ARRAY(struct fdc, tracks, FIELD_U8, 1),
    FIELD(struct fdc, interrupt, FIELD_U8, 1),
    FIELD(struct fdc, step, FIELD_U8, 1),
    FIELD(struct fdc, kind, FIELD_U8, 1),
    FIELD(struct fdc, unit, FIELD_U8, 1),
    FIELD(struct fdc, cylinder, FIELD_U8, 1),
    FIELD(struct fdc, head, FIELD_U8, 1),
    FIELD(struct fdc, sector, FIELD_U8, 1),
    FIELD(struct fdc, last, FIELD_U8, 1),
    FIELD(struct fdc, multi, FIELD_U8, 1),
    FIELD(struct fdc, filler, FIELD_U8, 1),
    FIELD(struct fdc, left, FIELD_U8, 1),
    FIELD(struct fdc, st1, FIELD_U8, 1),
    FIELD(struct fdc, st2, FIELD_U8, 1),
    FIELD(struct fdc, count_ran_out, FIELD_U8, 1),
    FIELD(struct fdc, at, FIELD_U16, 1),
    FIELD(struct fdc, len, FIELD_U16, 1),
    FIELD_ARRAY(struct fdc, buffer, FIELD_BYTES, 1),
    FIELD(struct fdc, drive[0].track, FIELD_U8, 1),
    FIELD(struct fdc, drive[0].changed, FIELD_U8, 1),
    FIELD(struct fdc, drive[0].id, FIELD_U8, 1),
    FIELD(struct fdc, drive[1].track, FIELD_U8, 1),
    FIELD(struct fdc, drive[1].changed, FIELD_U8, 1),
    FIELD(struct fdc, drive[1].id, FIELD_U8, 1),
};
static const struct state_desc fdc_state = STATE_DESC("fdc", 1, fdc_fields);

static const struct io_ops low_ops = {low_read, low_write, 1, 1};
static const struct io_ops high_ops = {high_read, high_write, 1, 1};

uint8_t fdc_drive_type(const struct fdc *f, unsigned drive)
{
    return f->drive[drive].type;
}

bool fdc_change(struct fdc *f, unsigned drive, struct blockdev *image, struct error *err)
{
    if (!fdc_drive_change(&f->drive[drive], image, err))
        return false;
    fdc_transfer_disk_gone(f, drive);
    return true;
}

struct fdc *fdc_new(struct board *board, struct dma *dma, const struct fdc_config *config,
                    struct irq_line irq6, struct error *err)
{
    struct fdc *f = chip_alloc(sizeof(*f));
    f->dev = (struct device){.name = "fdc",
                             .state = &fdc_state,
                             .reset = fdc_reset,
                             .destroy = fdc_destroy,
                             .restored = fdc_restored};
    f->board = board;
    f->dma = dma;
    f->irq6 = irq6;
    for (unsigned i = 0; i < FDC_DRIVES; i++)
        if (!fdc_drive_open(&f->drive[i], config->drives[i], err)) {
            free(f);
            return NULL;
        }
    f->low_ports = io_add(board->io, 0x3f1, 5, &low_ops, f, "fdc");
    f->high_port = io_add(board->io, 0x3f7, 1, &high_ops, f, "fdc");
    dma_connect(dma, FDC_DMA_CHANNEL, fdc_transfer_ready, f);
    fdc_reset(&f->dev);
    return f;
}
