/*
 * io.c - the 64-Ki port space (io.h). Everything here runs under the machine lock.
 *
 * One byte-wide question, "who owns port p", answered by a table of 65536 claim numbers. An access
 * whose bytes have different owners is done byte by byte, as the bus does for 8-bit devices.
 */
#include "internal/io.h"
#include "internal/error.h"
#include "internal/log.h"
#include "map.h"
#include <stdlib.h>

enum { PORTS = 65536, NO_CLAIM = 0 };

struct claim {
    bool used;
    unsigned base, count;
    unsigned order; /* later claims win */
    const struct io_ops *ops;
    void *opaque;
    const char *name;
};

struct io_space {
    pthread_mutex_t *lock;
    struct log *log;
    struct log quiet;
    struct claim *claims; /* index = handle; 0 is nobody */
    unsigned claim_count, next_order;
    uint16_t owner[PORTS];
};

struct io_space *io_space_new(pthread_mutex_t *machine_lock, struct log *log)
{
    struct io_space *space = calloc(1, sizeof *space);
    if (!space)
        return NULL;
    space->lock = machine_lock;
    space->quiet.out = stderr;
    space->log = log ? log : &space->quiet;
    space->claim_count = 1;
    space->claims = calloc(1, sizeof *space->claims);
    if (!space->claims) {
        free(space);
        return NULL;
    }
    return space;
}

void io_space_free(struct io_space *space)
{
    if (!space)
        return;
    free(space->claims);
    free(space);
}

static int new_claim_locked(struct io_space *space)
{
    for (unsigned i = 1; i < space->claim_count; i++)
        if (!space->claims[i].used)
            return (int)i;
    if (space->claim_count == UINT16_MAX)
        return -1;
    struct claim *more = realloc(space->claims, (space->claim_count + 1) * sizeof *more);
    if (!more)
        return -1;
    space->claims = more;
    return (int)space->claim_count++;
}

int io_add(struct io_space *space, uint16_t base, unsigned count, const struct io_ops *ops,
           void *opaque, const char *name)
{
    if (count > PORTS - (unsigned)base)
        count = PORTS - (unsigned)base;
    pthread_mutex_lock(space->lock);
    int handle = new_claim_locked(space);
    if (handle > 0) {
        space->claims[handle] =
            (struct claim){true, base, count, space->next_order++, ops, opaque, name};
        for (unsigned port = base; port < base + count; port++)
            space->owner[port] = (uint16_t)handle;
    }
    pthread_mutex_unlock(space->lock);
    return handle;
}

/* The latest claim of a port, for when a later one has gone. */
static uint16_t owner_locked(const struct io_space *space, unsigned port)
{
    unsigned best = NO_CLAIM;
    for (unsigned i = 1; i < space->claim_count; i++) {
        const struct claim *c = &space->claims[i];
        if (c->used && port - c->base < c->count &&
            (best == NO_CLAIM || c->order > space->claims[best].order))
            best = i;
    }
    return (uint16_t)best;
}

void io_remove(struct io_space *space, int handle)
{
    pthread_mutex_lock(space->lock);
    if (handle > 0 && (unsigned)handle < space->claim_count && space->claims[handle].used) {
        struct claim *claim = &space->claims[handle];
        claim->used = false;
        for (unsigned port = claim->base; port < claim->base + claim->count; port++)
            if (space->owner[port] == handle)
                space->owner[port] = owner_locked(space, port);
    }
    pthread_mutex_unlock(space->lock);
}

/* The claim that holds all of the ports, NO_CLAIM when nobody has any, -1 when they differ. */
static int common_owner(const struct io_space *space, uint16_t port, unsigned size)
{
    int owner = space->owner[port];
    for (unsigned i = 1; i < size; i++)
        if (space->owner[(uint16_t)(port + i)] != owner)
            return -1;
    return owner;
}

static uint32_t read_locked(struct io_space *space, const struct access *access, uint16_t port,
                            unsigned size)
{
    int owner = common_owner(space, port, size);
    if (owner == NO_CLAIM) {
        LOG(space->log, LOG_GUEST_ERRORS, "read of %u bytes at unclaimed port %#x, rip %#llx\n",
            size, port, (unsigned long long)access->rip);
        return ~0u >> (32 - 8 * size);
    }
    if (owner > 0) {
        /* A copy: the callback may claim ports, and so move the table. */
        struct claim c = space->claims[owner];
        return (uint32_t)io_dispatch_read(c.ops, c.opaque, access, port - c.base, size);
    }
    uint32_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= read_locked(space, access, (uint16_t)(port + i), 1) << (8 * i);
    return value;
}

static void write_locked(struct io_space *space, const struct access *access, uint16_t port,
                         unsigned size, uint32_t value)
{
    int owner = common_owner(space, port, size);
    if (owner == NO_CLAIM) {
        LOG(space->log, LOG_GUEST_ERRORS, "write of %#x to unclaimed port %#x, rip %#llx\n", value,
            port, (unsigned long long)access->rip);
    } else if (owner > 0) {
        struct claim c = space->claims[owner];
        io_dispatch_write(c.ops, c.opaque, access, port - c.base, size, value);
    } else {
        for (unsigned i = 0; i < size; i++)
            write_locked(space, access, (uint16_t)(port + i), 1, (value >> (8 * i)) & 0xff);
    }
}

uint32_t io_read(struct io_space *space, const struct access *access, uint16_t port, unsigned size)
{
    pthread_mutex_lock(space->lock);
    uint32_t value = read_locked(space, access, port, size);
    pthread_mutex_unlock(space->lock);
    return value;
}

void io_write(struct io_space *space, const struct access *access, uint16_t port, unsigned size,
              uint32_t value)
{
    pthread_mutex_lock(space->lock);
    write_locked(space, access, port, size, value);
    pthread_mutex_unlock(space->lock);
}
