/*
 * fake_disk.h - a disk in memory that answers when the test says so, in any order, and can fail:
 * all that devices know of the block room. Included by one test program each, after pci_board.h.
 */
#ifndef TEST_FAKE_DISK_H
#define TEST_FAKE_DISK_H

#include "internal/blockdev.h"
#include <errno.h>

#define DISK_SECTORS 8192u
#define DISK_WAITING 128

struct blockdev {
    uint8_t bytes[DISK_SECTORS * 512];
    uint64_t size;
    bool read_only, default_cache, cache;
    bool never_lent;    /* its requests must have buffers of their own */
    int64_t bad_sector; /* cannot be read or written; -1: none */
    int flush_result;
    struct blockdev_request *waiting[DISK_WAITING];
    bool performed[DISK_WAITING]; /* only the answer is missing */
    unsigned count;
    char log[512]; /* a letter per request done: R W F D Z */
};

void blockdev_submit(struct blockdev *dev, struct blockdev_request *request)
{
    ck_assert_uint_lt(dev->count, DISK_WAITING);
    request->dev = dev;
    dev->performed[dev->count] = false;
    dev->waiting[dev->count++] = request;
}

bool blockdev_may_lend(const struct blockdev *dev, enum blockdev_op op, uint64_t offset)
{
    (void)op, (void)offset;
    return !dev->never_lent;
}

uint64_t blockdev_size(const struct blockdev *dev)
{
    return dev->size;
}
bool blockdev_read_only(const struct blockdev *dev)
{
    return dev->read_only;
}
bool blockdev_default_write_cache(const struct blockdev *dev)
{
    return dev->default_cache;
}
bool blockdev_write_cache(const struct blockdev *dev)
{
    return dev->cache;
}
void blockdev_set_write_cache(struct blockdev *dev, bool on)
{
    dev->cache = on;
}

static inline void disk_init(struct blockdev *disk)
{
    memset(disk, 0, sizeof(*disk));
    disk->size = sizeof(disk->bytes);
    disk->default_cache = true;
    disk->bad_sector = -1;
    for (unsigned i = 0; i < sizeof(disk->bytes); i++)
        disk->bytes[i] = (uint8_t)(i / 512 * 3 + i % 253);
}

static inline int disk_perform(struct blockdev *disk, const struct blockdev_request *r)
{
    size_t n = strlen(disk->log);
    if (n < sizeof(disk->log) - 1) {
        disk->log[n] = "RWFDZ"[r->op];
        disk->log[n + 1] = 0;
    }
    if (r->op == BLOCKDEV_FLUSH)
        return disk->flush_result;
    ck_assert(r->offset % 512 == 0 && r->len % 512 == 0);
    ck_assert(r->offset + r->len <= disk->size && r->len > 0);
    if (disk->bad_sector >= 0 && r->offset / 512 <= (uint64_t)disk->bad_sector &&
        (uint64_t)disk->bad_sector < (r->offset + r->len) / 512)
        return -EIO;
    uint64_t at = r->offset;
    for (int i = 0; i < r->iovcnt && r->op <= BLOCKDEV_WRITE; at += r->iov[i++].iov_len) {
        if (r->op == BLOCKDEV_READ)
            memcpy(r->iov[i].iov_base, disk->bytes + at, r->iov[i].iov_len);
        else
            memcpy(disk->bytes + at, r->iov[i].iov_base, r->iov[i].iov_len);
    }
    ck_assert(r->op > BLOCKDEV_WRITE || at == r->offset + r->len);
    if (r->op == BLOCKDEV_DISCARD || r->op == BLOCKDEV_WRITE_ZEROES)
        memset(disk->bytes + r->offset, 0, r->len);
    return 0;
}

/* As a worker does it: the buffers are let go of, the answer comes later. */
static inline void disk_perform_at(struct blockdev *disk, unsigned index)
{
    struct blockdev_request *r = disk->waiting[index];
    if (disk->performed[index])
        return;
    disk->performed[index] = true;
    r->result = disk_perform(disk, r);
    if (r->let_go)
        r->let_go(r);
}

void blockdev_settle(struct blockdev *dev)
{
    for (unsigned i = 0; i < dev->count; i++)
        if (dev->waiting[i]->let_go)
            disk_perform_at(dev, i);
}

/* Finishes the request at `index` of those that wait. */
static inline void disk_complete(struct blockdev *disk, unsigned index)
{
    struct blockdev_request *r = disk->waiting[index];
    ck_assert_uint_lt(index, disk->count);
    disk_perform_at(disk, index);
    memmove(&disk->waiting[index], &disk->waiting[index + 1],
            (disk->count - index - 1) * sizeof(disk->waiting[0]));
    memmove(&disk->performed[index], &disk->performed[index + 1],
            (disk->count - index - 1) * sizeof(disk->performed[0]));
    disk->count--;
    pthread_mutex_lock(&machine_lock);
    r->done(r);
    pthread_mutex_unlock(&machine_lock);
}

static inline void disk_settle(struct blockdev *disk)
{
    while (disk->count)
        disk_complete(disk, 0);
}

#endif
