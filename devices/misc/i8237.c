/*
 * i8237.c - the PC's two DMA controllers with their page registers: channels 0-3 for bytes, 5-7 for
 * words; channel 4 is the cascade.
 *
 * Intel 8237A data sheet; IBM PC/AT Technical Reference for the second one and the pages.
 *
 *     00h-0Fh   controller 1, a port a register
 *     C0h-DFh   controller 2, two ports a register
 *     80h-8Fh   page registers: 87h 83h 81h 82h of channels 0-3, 8Fh 8Bh 89h 8Ah of 4-7
 *
 * Requests of controller 1 go through channel 4 whether that is open or not: a machine that starts
 * without a BIOS has nobody to open it.
 *
 * There are no cycles to steal: a device moves what it has at once, if its channel lets it, and is
 * told when the guest has changed something that may let it.
 */
#include "internal/chips.h"
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 8, PAGES = 16, PAGE_BASE = 0x80 };
enum { COMMAND_DISABLE = 1 << 2 };
enum { MODE_AUTO = 1 << 4, MODE_DOWN = 1 << 5, MODE_CASCADE = 3 << 6 };
enum { TYPE_VERIFY = 0, TYPE_WRITE = 1, TYPE_READ = 2 }; /* of the mode's bits 3-2 */
/* Registers behind the channels' addresses and counts. */
enum {
    REG_COMMAND = 8, /* read: status */
    REG_REQUEST,
    REG_MASK,
    REG_MODE,
    REG_FLIP_FLOP,
    REG_CLEAR, /* read: temporary */
    REG_UNMASK,
    REG_ALL_MASKS,
};

struct dma {
    struct device dev;
    struct board *board;
    /* per controller */
    uint8_t command[2], masks[2], requests[2], done[2]; /* done: terminal counts, in status */
    uint8_t flip_flop[2];                               /* the high byte comes next */
    /* per channel */
    uint16_t base_address[CHANNELS], base_count[CHANNELS], address[CHANNELS], count[CHANNELS];
    uint8_t mode[CHANNELS];
    uint8_t pages[PAGES];
    struct {
        void (*fn)(void *opaque);
        void *opaque;
    } ready[CHANNELS];
    struct port_range {
        struct dma *dma;
        unsigned controller;
        int handle;
    } ports[2];
    int page_ports;
};

/* ---- Channels -------------------------------------------------------------------------------- */

static uint8_t page_of(const struct dma *d, unsigned channel)
{
    static const uint8_t registers[CHANNELS] = {7, 3, 1, 2, 15, 11, 9, 10};
    return d->pages[registers[channel]];
}

/* Words have no address bit 0, and their page no bit 0 either. */
static uint64_t memory_address(const struct dma *d, unsigned channel)
{
    if (channel < 4)
        return (uint64_t)page_of(d, channel) << 16 | d->address[channel];
    return (uint64_t)(page_of(d, channel) & 0xfe) << 16 | (uint64_t)d->address[channel] << 1;
}

static bool may_transfer(const struct dma *d, unsigned channel)
{
    unsigned controller = channel / 4, bit = 1u << channel % 4;
    return !(d->command[controller] & COMMAND_DISABLE) && !(d->masks[controller] & bit) &&
           (d->mode[channel] & MODE_CASCADE) != MODE_CASCADE;
}

/* The count has gone below zero: the channel begins anew, or masks itself. */
static void terminal_count(struct dma *d, unsigned channel)
{
    unsigned controller = channel / 4, bit = 1u << channel % 4;
    d->done[controller] |= (uint8_t)bit;
    d->requests[controller] &= (uint8_t)~bit;
    if (d->mode[channel] & MODE_AUTO) {
        d->address[channel] = d->base_address[channel];
        d->count[channel] = d->base_count[channel];
    } else {
        d->masks[controller] |= (uint8_t)bit;
    }
}

/* One byte or word: only RAM and ROM, never registers, so that no device re-enters another. */
static void move(struct dma *d, unsigned channel, uint8_t *unit, unsigned size)
{
    const struct access access = {.initiator = INITIATOR_DMA, .device = ISA_DMA_DEVICE};
    struct phys_map *map = d->board->map;
    uint64_t gpa = memory_address(d, channel);
    bool memory = phys_hva(map, gpa, NULL) != NULL;
    switch (d->mode[channel] >> 2 & 3) {
    case TYPE_WRITE:
        if (memory)
            phys_write(map, &access, gpa, unit, size);
        break;
    case TYPE_READ:
        if (!memory || phys_read(map, &access, gpa, unit, size) != PHYS_OK)
            memset(unit, 0xff, size);
        break;
    }
    d->address[channel] += d->mode[channel] & MODE_DOWN ? -1 : 1;
    d->count[channel]--;
}

unsigned dma_transfer(struct dma *d, unsigned channel, void *buf, unsigned len, bool *tc)
{
    unsigned size = channel < 4 ? 1 : 2, done = 0;
    *tc = false;
    for (; done + size <= len && !*tc && may_transfer(d, channel); done += size) {
        move(d, channel, (uint8_t *)buf + done, size);
        *tc = d->count[channel] == 0xffff;
    }
    if (*tc)
        terminal_count(d, channel);
    return done;
}

void dma_connect(struct dma *d, unsigned channel, void (*ready)(void *opaque), void *opaque)
{
    d->ready[channel].fn = ready;
    d->ready[channel].opaque = opaque;
}

static void tell_devices(struct dma *d)
{
    for (unsigned i = 0; i < CHANNELS; i++)
        if (d->ready[i].fn && may_transfer(d, i))
            d->ready[i].fn(d->ready[i].opaque);
}

/* ---- Registers ------------------------------------------------------------------------------- */

/* The half of a 16-bit register whose turn it is. */
static unsigned next_half(struct dma *d, unsigned c)
{
    unsigned shift = d->flip_flop[c] ? 8 : 0;
    d->flip_flop[c] ^= 1;
    return shift;
}

static uint8_t read_register(struct dma *d, unsigned c, unsigned reg)
{
    unsigned channel = 4 * c + reg / 2;
    uint8_t value = 0;
    if (reg < REG_COMMAND)
        return (uint8_t)((reg & 1 ? d->count : d->address)[channel] >> next_half(d, c));
    if (reg == REG_COMMAND) {
        value = (uint8_t)(d->requests[c] << 4 | d->done[c]);
        d->done[c] = 0;
    } else if (reg == REG_ALL_MASKS) {
        value = d->masks[c] | 0xf0;
    }
    return value;
}

static void put_half(uint16_t *reg, unsigned shift, uint8_t value)
{
    *reg = (uint16_t)((*reg & ~(0xff << shift)) | value << shift);
}

static void set_bit(uint8_t *bits, uint8_t value)
{
    uint8_t bit = (uint8_t)(1 << (value & 3));
    *bits = value & 4 ? *bits | bit : *bits & (uint8_t)~bit;
}

static void clear_controller(struct dma *d, unsigned c)
{
    d->command[c] = d->requests[c] = d->done[c] = d->flip_flop[c] = 0;
    d->masks[c] = 0x0f;
}

static void write_register(struct dma *d, unsigned c, unsigned reg, uint8_t value)
{
    unsigned channel = 4 * c + reg / 2;
    if (reg < REG_COMMAND) {
        unsigned shift = next_half(d, c);
        put_half(&(reg & 1 ? d->base_count : d->base_address)[channel], shift, value);
        put_half(&(reg & 1 ? d->count : d->address)[channel], shift, value);
        return;
    }
    switch (reg) {
    case REG_COMMAND:
        d->command[c] = value;
        break;
    case REG_REQUEST: /* memory-to-memory transfers, its use, are not wired on a PC */
        set_bit(&d->requests[c], value);
        break;
    case REG_MASK:
        set_bit(&d->masks[c], value);
        break;
    case REG_MODE:
        d->mode[4 * c + (value & 3)] = value & 0xfc;
        break;
    case REG_FLIP_FLOP:
        d->flip_flop[c] = 0;
        break;
    case REG_CLEAR:
        clear_controller(d, c);
        break;
    case REG_UNMASK:
        d->masks[c] = 0;
        break;
    case REG_ALL_MASKS:
        d->masks[c] = value & 0x0f;
        break;
    }
    tell_devices(d);
}

static uint64_t port_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    const struct port_range *range = opaque;
    (void)access, (void)size;
    return read_register(range->dma, range->controller, (unsigned)offset >> range->controller);
}

static void port_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    const struct port_range *range = opaque;
    (void)access, (void)size;
    write_register(range->dma, range->controller, (unsigned)offset >> range->controller,
                   (uint8_t)value);
}

static uint64_t page_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    (void)access, (void)size;
    return ((struct dma *)opaque)->pages[offset];
}

static void page_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    (void)access, (void)size;
    ((struct dma *)opaque)->pages[offset] = (uint8_t)value;
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void dma_reset(struct device *dev)
{
    struct dma *d = (struct dma *)dev;
    for (unsigned c = 0; c < 2; c++)
        clear_controller(d, c);
    memset(d->base_address, 0, sizeof(d->base_address));
    memset(d->base_count, 0, sizeof(d->base_count));
    memset(d->address, 0, sizeof(d->address));
    memset(d->count, 0, sizeof(d->count));
    memset(d->mode, 0, sizeof(d->mode));
    memset(d->pages, 0, sizeof(d->pages));
}

static void dma_destroy(struct device *dev)
{
    struct dma *d = (struct dma *)dev;
    for (unsigned c = 0; c < 2; c++)
        io_remove(d->board->io, d->ports[c].handle);
    io_remove(d->board->io, d->page_ports);
    free(d);
}

static const struct field dma_fields[] = {
    FIELD_ARRAY(struct dma, command, FIELD_U8, 1),
    FIELD_ARRAY(struct dma, masks, FIELD_U8, 1),
    FIELD_ARRAY(struct dma, requests, FIELD_U8, 1),
    FIELD_ARRAY(struct dma, done, FIELD_U8, 1),
    FIELD_ARRAY(struct dma, flip_flop, FIELD_U8, 1),
    FIELD_ARRAY(struct dma, base_address, FIELD_U16, 1),
    FIELD_ARRAY(struct dma, base_count, FIELD_U16, 1),
    FIELD_ARRAY(struct dma, address, FIELD_U16, 1),
    FIELD_ARRAY(struct dma, count, FIELD_U16, 1),
    FIELD_ARRAY(struct dma, mode, FIELD_U8, 1),
    FIELD_ARRAY(struct dma, pages, FIELD_U8, 1),
};
static const struct state_desc dma_state = STATE_DESC("i8237", 1, dma_fields);

static const struct io_ops port_ops = {port_read, port_write, 1, 1};
static const struct io_ops page_ops = {page_read, page_write, 1, 1};

struct dma *dma_new(struct board *board)
{
    struct dma *d = chip_alloc(sizeof(*d));
    d->dev = (struct device){
        .name = "i8237", .state = &dma_state, .reset = dma_reset, .destroy = dma_destroy};
    d->board = board;
    for (unsigned c = 0; c < 2; c++) {
        d->ports[c] = (struct port_range){.dma = d, .controller = c};
        d->ports[c].handle = io_add(board->io, c ? 0xc0 : 0, c ? 0x20 : 0x10, &port_ops,
                                    &d->ports[c], c ? "i8237 words" : "i8237 bytes");
    }
    d->page_ports = io_add(board->io, PAGE_BASE, PAGES, &page_ops, d, "i8237 pages");
    dma_reset(&d->dev);
    return d;
}
