/*
 * images.h - disk images for fuzz targets: they answer late, in any order, or fail, and look at
 * every request. The target says first how many may wait (WAITING): more are a mistake.
 */
#ifndef TESTS_FUZZ_IMAGES_H
#define TESTS_FUZZ_IMAGES_H

#include "internal/blockdev.h"
#include "internal/phys.h"
#include "tests/fuzz/script.h"
#include <string.h>

#define DISK_BYTES (768u << 10)

struct blockdev {
    bool read_only, cache, lends;
    struct blockdev_request *waiting[WAITING];
    bool performed[WAITING]; /* only the answer is missing */
    unsigned count;
    uint8_t sum; /* of what was written: every byte of a buffer is looked at */
};

void blockdev_submit(struct blockdev *dev, struct blockdev_request *r)
{
    require(dev->count < WAITING);
    require(r->op == BLOCKDEV_FLUSH || (r->len && r->len % 512 == 0 && r->offset % 512 == 0));
    require(r->op == BLOCKDEV_FLUSH ||
            (r->offset < DISK_BYTES && r->len <= DISK_BYTES - r->offset));
    require(r->op == BLOCKDEV_READ || r->op == BLOCKDEV_FLUSH || !dev->read_only);
    for (unsigned i = 0; i < dev->count; i++)
        require(dev->waiting[i] != r);
    dev->performed[dev->count] = false;
    dev->waiting[dev->count++] = r;
}
bool blockdev_may_lend(const struct blockdev *dev, enum blockdev_op op, uint64_t offset)
{
    (void)op, (void)offset;
    return dev->lends;
}
uint64_t blockdev_size(const struct blockdev *dev)
{
    (void)dev;
    return DISK_BYTES;
}
bool blockdev_read_only(const struct blockdev *dev)
{
    return dev->read_only;
}
bool blockdev_default_write_cache(const struct blockdev *dev)
{
    (void)dev;
    return true;
}
bool blockdev_write_cache(const struct blockdev *dev)
{
    return dev->cache;
}
void blockdev_set_write_cache(struct blockdev *dev, bool on)
{
    dev->cache = on;
}

/* As a worker does it: the buffers are used and let go of, the answer comes later. */
static inline void perform(struct blockdev *dev, unsigned index, int error)
{
    struct blockdev_request *r = dev->waiting[index];
    uint64_t total = 0;
    if (dev->performed[index])
        return;
    dev->performed[index] = true;
    for (int i = 0; i < r->iovcnt && r->op <= BLOCKDEV_WRITE; i++) {
        uint8_t *bytes = r->iov[i].iov_base;
        total += r->iov[i].iov_len;
        if (r->op == BLOCKDEV_READ)
            memset(bytes, 0x5a, r->iov[i].iov_len);
        for (size_t n = 0; r->op == BLOCKDEV_WRITE && n < r->iov[i].iov_len; n++)
            dev->sum = (uint8_t)(dev->sum + bytes[n]);
    }
    require(r->op > BLOCKDEV_WRITE || total == r->len);
    r->result = error;
    if (r->let_go)
        r->let_go(r);
}

void blockdev_settle(struct blockdev *dev)
{
    for (unsigned i = 0; i < dev->count; i++)
        if (dev->waiting[i]->let_go)
            perform(dev, i, 0);
}

/* A request comes back, in whatever order the script says. */
static inline void answer(struct blockdev *dev, unsigned index, int error)
{
    struct blockdev_request *r = dev->waiting[index];
    perform(dev, index, error);
    dev->waiting[index] = dev->waiting[--dev->count];
    dev->performed[index] = dev->performed[dev->count];
    r->done(r);
}

/* What resets and the end of a device promise. */
static inline void nothing_is_lent(struct phys_map *map, uint64_t ram)
{
    for (uint64_t gpa = 0; gpa < ram; gpa += PAGE_SIZE) {
        const _Atomic uint32_t *attr = phys_frame_attr(map, gpa);
        require(!attr || !(*attr & (FRAME_LENT | FRAME_LENT_WRITE))); /* or a BAR lies over it */
    }
}

#endif
