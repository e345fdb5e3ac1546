/*
 * debugcon.c - the one-port debug console that Bochs and QEMU have: every byte written to it
 * appears on a character back end, and a read gives E9h so that a guest can tell that it is there.
 */
#include "internal/chardev.h"
#include "internal/chips.h"
#include "internal/log.h"
#include <stdlib.h>
#include <string.h>

enum { PRESENT = 0xe9, BUFFER = 65536 };

struct debugcon {
    struct device dev;
    struct board *board;
    struct chardev *chr;
    uint8_t bytes[BUFFER]; /* what a slow back end has not taken yet */
    uint32_t count;
    bool losing;
    int port;
};

static void send_buffered(struct debugcon *d)
{
    size_t sent = chardev_write(d->chr, d->bytes, d->count);
    memmove(d->bytes, d->bytes + sent, d->count - sent);
    d->count -= (uint32_t)sent;
    d->losing = d->losing && d->count == BUFFER;
}

static void front_writable(void *opaque)
{
    struct debugcon *d = opaque;
    if (d->count)
        send_buffered(d);
}

/* Nobody reads what is typed. */
static size_t front_can_receive(void *opaque)
{
    (void)opaque;
    return 0;
}

static uint64_t debugcon_read(void *opaque, const struct access *access, uint64_t offset,
                              unsigned size)
{
    (void)opaque, (void)access, (void)offset, (void)size;
    return PRESENT;
}

/* The port cannot make the guest wait: what exceeds the buffer is lost, and said to be. */
static void debugcon_write(void *opaque, const struct access *access, uint64_t offset,
                           unsigned size, uint64_t value)
{
    struct debugcon *d = opaque;
    uint8_t byte = (uint8_t)value;
    (void)access, (void)offset, (void)size;
    if (!d->chr || (d->count == 0 && chardev_write(d->chr, &byte, 1) == 1))
        return;
    if (d->count < BUFFER) {
        d->bytes[d->count++] = byte;
    } else if (!d->losing) {
        d->losing = true;
        log_printf(d->board->log, "debugcon: output is lost, its file or terminal is too slow\n");
    }
}

static void debugcon_reset(struct device *dev)
{
    (void)dev; /* what was written before a reset still comes out */
}

static void debugcon_destroy(struct device *dev)
{
    struct debugcon *d = (struct debugcon *)dev;
    io_remove(d->board->io, d->port);
    free(d);
}

/* The port has no state; what waits for the back end belongs to this process. */
static const struct state_desc debugcon_state = {"debugcon", 1, NULL, 0};

static const struct io_ops debugcon_ops = {debugcon_read, debugcon_write, 1, 1};

struct debugcon *debugcon_new(struct board *board, uint16_t base, struct chardev *chr)
{
    struct debugcon *d = chip_alloc(sizeof(*d));
    d->dev = (struct device){.name = "debugcon",
                             .state = &debugcon_state,
                             .reset = debugcon_reset,
                             .destroy = debugcon_destroy};
    d->board = board;
    d->chr = chr;
    d->port = io_add(board->io, base, 1, &debugcon_ops, d, "debugcon");
    if (chr) {
        struct chardev_front front = {
            .opaque = d, .can_receive = front_can_receive, .writable = front_writable};
        chardev_connect(chr, &front);
    }
    return d;
}
