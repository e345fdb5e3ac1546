/*
 * debug_exit.c - isa-debug-exit: the guest writes a value and the program ends with status
 * (value << 1) | 1, as QEMU's device of that name does; so a guest's success is never 0.
 */
#include "internal/chips.h"
#include <stdlib.h>

struct debug_exit {
    struct device dev;
    struct board *board;
    int port;
};

static uint64_t exit_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    (void)opaque, (void)access, (void)offset, (void)size;
    return 0;
}

static void exit_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    struct debug_exit *d = opaque;
    (void)access, (void)offset, (void)size;
    d->board->shutdown(d->board->machine, BOARD_EXIT, (int)((uint32_t)value << 1 | 1));
}

static void exit_reset(struct device *dev)
{
    (void)dev;
}

static void exit_destroy(struct device *dev)
{
    struct debug_exit *d = (struct debug_exit *)dev;
    io_remove(d->board->io, d->port);
    free(d);
}

static const struct state_desc exit_state = {"isa-debug-exit", 1, NULL, 0};

static const struct io_ops exit_ops = {exit_read, exit_write, 1, 4};

struct debug_exit *debug_exit_new(struct board *board, uint16_t base, unsigned size)
{
    struct debug_exit *d = chip_alloc(sizeof(*d));
    d->dev = (struct device){.name = "isa-debug-exit",
                             .state = &exit_state,
                             .reset = exit_reset,
                             .destroy = exit_destroy};
    d->board = board;
    d->port = io_add(board->io, base, size, &exit_ops, d, "isa-debug-exit");
    return d;
}
