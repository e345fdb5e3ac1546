/*
 * blk.h - requests to a virtio block device (virtio 1.2, 5.2.6).
 */
#ifndef GUEST_BLK_H
#define GUEST_BLK_H

#include "virtio.h"

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2, S_NOTHING = 0xee };
enum { SECTOR = 512 };
enum {
    BLK_F_RO = 1 << 5,
    BLK_F_FLUSH = 1 << 9,
    BLK_F_CONFIG_WCE = 1 << 11,
    BLK_F_DISCARD = 1 << 13,
    BLK_F_WRITE_ZEROES = 1 << 14
};

static volatile struct blk_header {
    uint32_t type, reserved;
    uint64_t sector;
} blk_header;
static volatile uint8_t blk_status;
static uint32_t blk_written; /* what the last request's used element said */

/* A request with its data in `len` bytes at `data`; its status, S_NOTHING without an answer. */
UNUSED_OK unsigned blk_do(struct virtio *d, uint32_t type, uint64_t sector, volatile void *data,
                          uint32_t len)
{
    bool in = type == T_IN || type == T_GET_ID;
    struct part parts[3] = {{&blk_header, sizeof(blk_header), OUT}};
    unsigned n = 1;
    blk_header = (struct blk_header){type, 0, sector};
    blk_status = S_NOTHING;
    if (len)
        parts[n++] = (struct part){data, len, in ? IN : OUT};
    parts[n++] = (struct part){&blk_status, 1, IN};
    blk_written = virtio_do(d, parts, n);
    return blk_status;
}

#endif
