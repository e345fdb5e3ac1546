/*
 * flash.c - a NOR flash chip with Intel's command set, one byte wide (flash.h). Intel 28F640J5
 * data sheet (290606); JEDEC JESD68.01, Common Flash Interface, for what a query answers.
 *
 * While its array is read it is ROM to the memory map, as fast as any. The first store puts its
 * registers over it; a while after it has gone back to its array the ROM shows again: a firmware
 * that programs byte after byte would else have the map changed for each of them.
 *
 *     store  then          does
 *     10h    value         programs the bytes at that address: bits go from 1 to 0 only
 *     40h    value         the same
 *     20h    D0h           erases the sector: all bits become 1
 *     E8h    n - 1, n values, D0h   programs n bytes through a buffer
 *     50h                  clears the status: all of it, as QEMU's chip does and OVMF expects
 *     60h    01h, D0h      locks, unlocks a sector: accepted, there are no locks
 *     70h                  reads give the status
 *     90h, 98h             reads give the identification, the query table
 *     FFh                  reads give the array
 */
#include "internal/flash.h"
#include "internal/blockdev.h"
#include "internal/chips.h"
#include "internal/clock.h"
#include "internal/error.h"
#include "internal/event.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum flash_mode { MODE_ARRAY, MODE_STATUS, MODE_ID, MODE_QUERY };
enum {
    CMD_PROGRAM = 0x10,
    CMD_ERASE = 0x20,
    CMD_PROGRAM_TOO = 0x40,
    CMD_CLEAR = 0x50,
    CMD_LOCK = 0x60,
    CMD_STATUS = 0x70,
    CMD_ID = 0x90,
    CMD_QUERY = 0x98,
    CMD_CONFIRM = 0xd0,
    CMD_BUFFER = 0xe8,
    CMD_ARRAY = 0xff,
};
enum { SR_LOCKED = 1 << 1, SR_PROGRAM = 1 << 4, SR_ERASE = 1 << 5, SR_READY = 1 << 7 };
/* A sequence that has begun: what the next store is. */
enum flash_step { STEP_NONE, STEP_PROGRAM, STEP_ERASE, STEP_LOCK, STEP_COUNT, STEP_FILL, STEP_GO };

enum { BUFFER = 2048, BATCH = 64 << 10, QUERY_SIZE = 0x40 };
#define BACK_TO_ROM_NS 1000000u

/* A write on its way; outlives the chip if need be. */
struct flash_write {
    struct blockdev_request request;
    struct iovec iov;
    struct flash *flash; /* NULL: the chip is gone */
    struct blockdev *image;
    struct flash_write *next; /* when the chip is gone: what waits for this one */
    uint8_t bytes[];
};

struct flash {
    struct device dev;
    struct board *board;
    struct blockdev *image;
    struct ram_block *block;
    uint8_t *bytes, *dirty; /* a byte for each sector */
    uint64_t base, size;
    int rom, registers; /* regions; one of the two shows */
    bool read_only;
    struct timer back;
    struct flash_write *writing;
    bool flush_due;
    /* What the guest sees change. */
    uint8_t mode, step, status;
    uint16_t wanted, filled;
    uint64_t buffer_at;
    uint8_t buffer[BUFFER];
};

/* ---- The image ------------------------------------------------------------------------------- */

static void persist(struct flash *flash);

static void mark(struct flash *flash, uint64_t offset, uint64_t len)
{
    for (uint64_t i = offset / FLASH_SECTOR; i <= (offset + len - 1) / FLASH_SECTOR; i++)
        flash->dirty[i] = 1;
}

/* What has failed is tried again with the guest's next change, not before: a full disk stays full.
 * The user has been told by the image, the guest finds it in the status. */
static void failed(struct flash *flash, const struct blockdev_request *request)
{
    flash->status |= SR_PROGRAM;
    if (request->op == BLOCKDEV_WRITE)
        mark(flash, request->offset, request->len);
    else
        flash->flush_due = true;
}

static void written(struct blockdev_request *request)
{
    struct flash_write *write = request->opaque;
    struct flash *flash = write->flash;
    if (flash) {
        flash->writing = NULL;
        if (request->result)
            failed(flash, request);
        else
            persist(flash);
    } else if (write->next) {
        blockdev_submit(write->image, &write->next->request);
    }
    free(write);
}

static struct flash_write *new_write(struct flash *flash, enum blockdev_op op, uint64_t offset,
                                     size_t len)
{
    struct flash_write *write = calloc(1, sizeof(*write) + len);
    if (!write)
        return NULL; /* tried again at the next store */
    if (len)
        memcpy(write->bytes, flash->bytes + offset, len);
    write->flash = flash;
    write->image = flash->image;
    write->iov = (struct iovec){write->bytes, len};
    write->request = (struct blockdev_request){.op = op,
                                               .offset = offset,
                                               .len = len,
                                               .iov = &write->iov,
                                               .iovcnt = len ? 1 : 0,
                                               .done = written,
                                               .opaque = write};
    return write;
}

/* The next run of sectors that the image does not have yet, or, behind the last one, a flush. */
static struct flash_write *next_write(struct flash *flash)
{
    uint64_t sectors = flash->size / FLASH_SECTOR, first = 0;
    struct flash_write *write;
    while (first < sectors && !flash->dirty[first])
        first++;
    uint64_t end = first;
    while (end < sectors && flash->dirty[end] && (end - first) * FLASH_SECTOR < BATCH)
        end++;
    if (end > first) {
        write =
            new_write(flash, BLOCKDEV_WRITE, first * FLASH_SECTOR, (end - first) * FLASH_SECTOR);
        if (write)
            memset(flash->dirty + first, 0, end - first);
        flash->flush_due = true;
        return write;
    }
    if (!flash->flush_due)
        return NULL;
    write = new_write(flash, BLOCKDEV_FLUSH, 0, 0);
    flash->flush_due = !write;
    return write;
}

/* One at a time, so that sectors reach the image in the order of their changes. */
static void persist(struct flash *flash)
{
    if (flash->writing)
        return;
    flash->writing = next_write(flash);
    if (flash->writing)
        blockdev_submit(flash->image, &flash->writing->request);
}

/* ---- Programming ----------------------------------------------------------------------------- */

/* Sectors with protection rules are like locked ones. */

static bool may_change(struct flash *flash, uint64_t offset, uint64_t len, uint8_t error_bit)
{
    bool locked = flash->read_only || phys_block_ruled(flash->block, offset, len);
    flash->status |= SR_READY;
    if (locked)
        flash->status |= error_bit | SR_LOCKED;
    return !locked;
}

static void changed(struct flash *flash, uint64_t offset, uint64_t len)
{
    mark(flash, offset, len);
    phys_block_written(flash->board->map, flash->block, offset, len);
    persist(flash);
}

static void program(struct flash *flash, uint64_t offset, const uint8_t *values, uint64_t len)
{
    if (len > flash->size - offset)
        len = flash->size - offset;
    if (!may_change(flash, offset, len, SR_PROGRAM))
        return;
    for (uint64_t i = 0; i < len; i++)
        flash->bytes[offset + i] &= values[i];
    changed(flash, offset, len);
}

static void erase(struct flash *flash, uint64_t offset)
{
    offset &= ~(uint64_t)(FLASH_SECTOR - 1);
    if (!may_change(flash, offset, FLASH_SECTOR, SR_ERASE))
        return;
    memset(flash->bytes + offset, 0xff, FLASH_SECTOR);
    changed(flash, offset, FLASH_SECTOR);
}

/* ---- Commands -------------------------------------------------------------------------------- */

static void command(struct flash *flash, uint8_t value)
{
    static const struct {
        uint8_t command, mode, step;
    } commands[] = {
        {CMD_PROGRAM, MODE_STATUS, STEP_PROGRAM},
        {CMD_PROGRAM_TOO, MODE_STATUS, STEP_PROGRAM},
        {CMD_ERASE, MODE_STATUS, STEP_ERASE},
        {CMD_LOCK, MODE_STATUS, STEP_LOCK},
        {CMD_BUFFER, MODE_STATUS, STEP_COUNT},
        {CMD_STATUS, MODE_STATUS, STEP_NONE},
        {CMD_ID, MODE_ID, STEP_NONE},
        {CMD_QUERY, MODE_QUERY, STEP_NONE},
    };
    flash->mode = MODE_ARRAY; /* FFh, and what is no command */
    flash->step = STEP_NONE;
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (commands[i].command == value) {
            flash->mode = commands[i].mode;
            flash->step = commands[i].step;
        }
    if (value == CMD_CLEAR)
        flash->status = 0;
}

/* A sequence that is broken off sets both error bits. */
static void broken(struct flash *flash)
{
    flash->status |= SR_READY | SR_PROGRAM | SR_ERASE;
    flash->step = STEP_NONE;
}

static void fill(struct flash *flash, uint64_t offset, unsigned size, uint64_t value)
{
    if (flash->filled == 0)
        flash->buffer_at = offset;
    for (unsigned i = 0; i < size && flash->filled < flash->wanted; i++)
        flash->buffer[flash->filled++] = (uint8_t)(value >> 8 * i);
    if (flash->filled == flash->wanted)
        flash->step = STEP_GO;
}

static void store(struct flash *flash, uint64_t offset, unsigned size, uint64_t value)
{
    const uint8_t byte = (uint8_t)value;
    switch ((enum flash_step)flash->step) {
    case STEP_NONE:
        command(flash, byte);
        return;
    case STEP_PROGRAM:
        program(flash, offset, (const uint8_t *)&value, size);
        flash->step = STEP_NONE;
        return;
    case STEP_ERASE:
        flash->step = STEP_NONE;
        if (byte == CMD_CONFIRM)
            erase(flash, offset);
        else
            broken(flash);
        return;
    case STEP_LOCK:
        flash->status |= SR_READY;
        flash->step = STEP_NONE;
        return;
    case STEP_COUNT:
        flash->status |= SR_READY;
        flash->wanted = (uint16_t)((value & 0xffff) < BUFFER ? (value & 0xffff) + 1 : BUFFER);
        flash->filled = 0;
        flash->step = STEP_FILL;
        return;
    case STEP_FILL:
        fill(flash, offset, size, value);
        return;
    case STEP_GO:
        flash->step = STEP_NONE;
        if (byte == CMD_CONFIRM)
            program(flash, flash->buffer_at, flash->buffer, flash->wanted);
        else
            broken(flash);
        return;
    }
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* JESD68.01, sections 2.3.1 to 2.3.4, and Intel's extended table at 31h. */
static uint8_t query(const struct flash *flash, uint64_t offset)
{
    enum { SECTORS_AT = 0x2d, SIZE_AT = 0x27 };
    static const uint8_t table[QUERY_SIZE] = {
        [0x10] = 'Q',
        'R',
        'Y',
        0x01,
        0x00,
        0x31,
        0x00,
        0,
        0,
        0,
        0, /* command set 0001h */
        [0x1b] = 0x45,
        0x55,
        0,
        0, /* volts */
        [0x1f] = 7,
        7,
        0x0a,
        0, /* 128 us for a byte, for a buffer; 1 s for a sector */
        [0x23] = 4,
        4,
        4,
        0, /* at most 16 times that */
        [0x28] = 2,
        0,
        0x0b,
        0,
        1, /* asynchronous; buffer of 2 KiB; one region */
        [0x2f] = FLASH_SECTOR >> 8 & 0xff,
        FLASH_SECTOR >> 16,
        [0x31] = 'P',
        'R',
        'I',
        '1',
        '0',
    };
    uint64_t sectors = flash->size / FLASH_SECTOR - 1;
    if (offset == SIZE_AT)
        return (uint8_t)(63 - __builtin_clzll(flash->size));
    if (offset == SECTORS_AT || offset == SECTORS_AT + 1)
        return (uint8_t)(sectors >> 8 * (offset - SECTORS_AT));
    return offset < QUERY_SIZE ? table[offset] : 0;
}

static uint8_t read_byte(const struct flash *flash, uint64_t offset)
{
    static const uint8_t identification[] = {0x89, 0x18, 0x00}; /* Intel; the chip; not locked */
    switch ((enum flash_mode)flash->mode) {
    case MODE_STATUS:
        return flash->status;
    case MODE_ID:
        return (offset & 0xff) < sizeof(identification) ? identification[offset & 0xff] : 0;
    case MODE_QUERY:
        return query(flash, offset & 0xff);
    case MODE_ARRAY:
        break;
    }
    return flash->bytes[offset];
}

static uint64_t flash_read(void *opaque, const struct access *access, uint64_t offset,
                           unsigned size)
{
    const struct flash *flash = opaque;
    uint64_t value = 0;
    (void)access;
    for (unsigned i = 0; i < size && offset + i < flash->size; i++)
        value |= (uint64_t)read_byte(flash, offset + i) << 8 * i;
    return value;
}

/* ---- The memory map -------------------------------------------------------------------------- */

static void show(struct flash *flash, bool registers)
{
    struct phys_switch switches[] = {{.handle = flash->rom, .visible = !registers},
                                     {.handle = flash->registers, .visible = registers}};
    phys_switch(flash->board->map, switches, 2);
}

static void back_to_rom(void *opaque)
{
    struct flash *flash = opaque;
    if (flash->mode == MODE_ARRAY && flash->step == STEP_NONE)
        show(flash, false);
}

static void flash_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                        uint64_t value)
{
    struct flash *flash = opaque;
    (void)access;
    if (!timer_armed(&flash->back) || flash->mode != MODE_ARRAY)
        show(flash, true);
    store(flash, offset, size, value);
    timer_arm(&flash->back, clock_now(flash->board->clock) + BACK_TO_ROM_NS);
}

static const struct io_ops flash_ops = {flash_read, flash_write, 1, 8};

/* ---- Life ------------------------------------------------------------------------------------ */

static void reset_registers(struct flash *flash)
{
    flash->mode = MODE_ARRAY;
    flash->step = STEP_NONE;
    flash->status = SR_READY;
    flash->wanted = flash->filled = 0;
}

static void flash_reset(struct device *dev)
{
    struct flash *flash = (struct flash *)dev;
    reset_registers(flash);
    timer_cancel(&flash->back);
    show(flash, false);
}

static void flash_restored(struct device *dev)
{
    struct flash *flash = (struct flash *)dev;
    if (flash->buffer_at >= flash->size || flash->wanted > BUFFER ||
        flash->filled > flash->wanted) /* no such state */
        reset_registers(flash);
    show(flash, true);
    timer_arm(&flash->back, clock_now(flash->board->clock) + BACK_TO_ROM_NS);
}

/* The image outlives the chip and finishes what has been asked of it, one after the other. */
static void write_the_rest(struct flash *flash)
{
    struct flash_write *last = flash->writing, *write;
    if (last)
        last->flash = NULL;
    while (flash->dirty && (write = next_write(flash))) {
        write->flash = NULL;
        if (last)
            last->next = write;
        else
            blockdev_submit(flash->image, &write->request);
        last = write;
    }
}

static void flash_destroy(struct device *dev)
{
    struct flash *flash = (struct flash *)dev;
    timer_cancel(&flash->back);
    write_the_rest(flash);
    if (flash->rom >= 0)
        phys_remove(flash->board->map, flash->rom);
    if (flash->registers >= 0)
        phys_remove(flash->board->map, flash->registers);
    free(flash->dirty);
    free(flash);
}

static const struct field flash_fields[] = {
    FIELD(struct flash, mode, FIELD_U8, 1),         FIELD(struct flash, step, FIELD_U8, 1),
    FIELD(struct flash, status, FIELD_U8, 1),       FIELD(struct flash, wanted, FIELD_U16, 1),
    FIELD(struct flash, filled, FIELD_U16, 1),      FIELD(struct flash, buffer_at, FIELD_U64, 1),
    FIELD_ARRAY(struct flash, buffer, FIELD_U8, 1),
};
static const struct state_desc flash_state = STATE_DESC("flash", 1, flash_fields);

static bool map_chip(struct flash *flash, struct error *err)
{
    struct phys_map *map = flash->board->map;
    int result;
    flash->block = phys_rom_new(map, flash->size, NULL, 0, err);
    if (!flash->block)
        return false;
    flash->bytes = phys_block_bytes(flash->block);
    if ((result = blockdev_read_now(flash->image, 0, flash->bytes, flash->size)))
        return error_set(err, "flash: the image cannot be read: %s", strerror(-result));
    const struct phys_memory rom = {.gpa = flash->base,
                                    .size = flash->size,
                                    .block = flash->block,
                                    .name = "flash",
                                    .rom_ops = &flash_ops,
                                    .opaque = flash};
    flash->rom = phys_add_memory(map, &rom, err);
    flash->registers =
        phys_add_mmio(map, flash->base, flash->size, &flash_ops, flash, "flash registers", err);
    return flash->rom >= 0 && flash->registers >= 0;
}

struct flash *flash_new(struct board *board, struct blockdev *image, uint64_t end,
                        struct error *err)
{
    struct flash *flash = chip_alloc(sizeof(*flash));
    flash->dev = (struct device){.name = "flash",
                                 .state = &flash_state,
                                 .reset = flash_reset,
                                 .destroy = flash_destroy,
                                 .restored = flash_restored};
    flash->board = board;
    flash->image = image;
    flash->size = blockdev_size(image);
    flash->base = end - flash->size;
    flash->read_only = blockdev_read_only(image);
    flash->rom = flash->registers = -1;
    flash->dirty = calloc(flash->size / FLASH_SECTOR, 1);
    timer_init(&flash->back, board->queue, back_to_rom, flash);
    if (!flash->dirty || !map_chip(flash, err)) {
        if (!flash->dirty)
            error_set(err, "flash: out of memory");
        flash_destroy(&flash->dev);
        return NULL;
    }
    reset_registers(flash);
    show(flash, false);
    return flash;
}

struct ram_block *flash_block(struct flash *flash)
{
    return flash->block;
}

uint64_t flash_base(const struct flash *flash)
{
    return flash->base;
}
