/*
 * pvpanic.c - the port through which a guest kernel says that it has panicked (QEMU's
 * docs/specs/pvpanic: bit 0 panicked, bit 1 crash kernel loaded and the guest goes on).
 */
#include "internal/chips.h"
#include "internal/log.h"
#include <stdlib.h>

enum { PANICKED = 1 << 0, CRASH_LOADED = 1 << 1 };

struct pvpanic {
    struct device dev;
    struct board *board;
    int port;
};

static uint64_t pvpanic_read(void *opaque, const struct access *access, uint64_t offset,
                             unsigned size)
{
    (void)opaque, (void)access, (void)offset, (void)size;
    return PANICKED | CRASH_LOADED;
}

static void pvpanic_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                          uint64_t value)
{
    struct pvpanic *p = opaque;
    (void)access, (void)offset, (void)size;
    if (value & PANICKED)
        p->board->shutdown(p->board->machine, BOARD_PANIC, PANICKED);
    else if (value & CRASH_LOADED)
        LOG(p->board->log, LOG_DEVICE, "pvpanic: the guest's crash kernel takes over\n");
}

static void pvpanic_reset(struct device *dev)
{
    (void)dev;
}

static void pvpanic_destroy(struct device *dev)
{
    struct pvpanic *p = (struct pvpanic *)dev;
    io_remove(p->board->io, p->port);
    free(p);
}

static const struct state_desc pvpanic_state = {"pvpanic", 1, NULL, 0};

static const struct io_ops pvpanic_ops = {pvpanic_read, pvpanic_write, 1, 1};

struct pvpanic *pvpanic_new(struct board *board, uint16_t base)
{
    struct pvpanic *p = chip_alloc(sizeof(*p));
    p->dev = (struct device){.name = "pvpanic",
                             .state = &pvpanic_state,
                             .reset = pvpanic_reset,
                             .destroy = pvpanic_destroy};
    p->board = board;
    p->port = io_add(board->io, base, 1, &pvpanic_ops, p, "pvpanic");
    return p;
}
